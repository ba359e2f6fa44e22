use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place where the gateway listens, as an operator writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerProperties {
    /// The address, such as `0.0.0.0:8080`; port 0 takes any free one.
    #[serde(default)]
    pub address: String,
    /// TLS; without it, HTTP/1.1 and HTTP/2 with prior knowledge are spoken in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsProperties>,
    /// Whether each connection begins with a PROXY header (v1 or v2) that names the client.
    #[serde(default)]
    pub proxy_protocol: bool,
}

/// How a listener speaks TLS, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsProperties {
    /// The certificates; the client's server name chooses, the first is for everyone else. They are
    /// read again when their files change.
    #[serde(default)]
    pub certificates: Vec<CertificateProperties>,
}

/// A certificate as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateProperties {
    /// A PEM file with the certificate and its chain.
    pub certificate_file: PathBuf,
    /// A PEM file with its private key.
    pub key_file: PathBuf,
}
