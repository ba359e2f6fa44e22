use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gray_config::{Live, Publisher, live};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, client::verify_server_name};

use crate::properties::{CertificateProperties, TlsProperties};
use crate::reloads::Reloads;

/// How often certificate files are looked at.
const POLL: Duration = Duration::from_secs(2);

/// The certificates of a listener, read again when their files change.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Vec<CertificateProperties>,
    publisher: Publisher<Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    /// Reads the certificates.
    pub(crate) fn open(properties: &TlsProperties) -> Result<Self, String> {
        if properties.certificates.is_empty() {
            return Err("TLS needs at least one certificate".to_owned());
        }
        let files = properties.certificates.clone();
        let (publisher, _) = live(read_all(&files)?);
        Ok(Self { files, publisher })
    }

    /// Returns how TLS is spoken with them.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        let chooser = Chooser(self.publisher.reader());
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(chooser));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Reads the certificates again whenever a file changes; what cannot be read changes nothing.
    pub(crate) async fn follow(self, reloads: Reloads) {
        let mut seen = stamps(&self.files);
        loop {
            tokio::time::sleep(POLL).await;
            let now = stamps(&self.files);
            if now == seen {
                continue;
            }
            seen = now;
            let read = read_all(&self.files);
            reloads.note("certificates", read.map(|fresh| self.publisher.publish(fresh)));
        }
    }
}

fn stamps(files: &[CertificateProperties]) -> Vec<Option<SystemTime>> {
    let modified = |path: &PathBuf| std::fs::metadata(path).ok()?.modified().ok();
    files.iter().flat_map(|it| [modified(&it.certificate_file), modified(&it.key_file)]).collect()
}

fn read_all(files: &[CertificateProperties]) -> Result<Vec<Arc<CertifiedKey>>, String> {
    files.iter().map(|file| read(file).map(Arc::new)).collect()
}

fn read(file: &CertificateProperties) -> Result<CertifiedKey, String> {
    let CertificateProperties { certificate_file, key_file } = file;
    let chain = CertificateDer::pem_file_iter(certificate_file);
    let chain = chain.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| format!("{}: {error}", certificate_file.display()))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate", certificate_file.display()));
    }
    let of_key = |error: &dyn std::fmt::Display| format!("{}: {error}", key_file.display());
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| of_key(&error))?;
    let key = any_supported_type(&key).map_err(|error| of_key(&error))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(of_key(&format!("the key is not that of {}", certificate_file.display())))
        }
        _ => Ok(certified),
    }
}

/// Chooses a certificate by the name that a client asks for.
#[derive(Debug)]
struct Chooser(Live<Vec<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.peek();
        let named = hello
            .server_name()
            .and_then(|name| certificates.iter().find(|certificate| is_for(certificate, name)));
        named.or_else(|| certificates.first()).cloned()
    }
}

fn is_for(certificate: &CertifiedKey, name: &str) -> bool {
    let Some(first) = certificate.cert.first() else { return false };
    let Ok(name) = ServerName::try_from(name) else { return false };
    ParsedCertificate::try_from(first)
        .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}
