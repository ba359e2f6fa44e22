//! Users that signed tokens name, and keys that change while the gateway runs.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::eventually;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use crate::edge::Edge;

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules: [{name: staff, when: {user: {in: ['1001']}}}]
";

/// A key with a public half, as an issuer of tokens has it.
struct Issuer {
    id: &'static str,
    signing: EncodingKey,
}

impl Issuer {
    fn new(id: &'static str) -> anyhow::Result<Self> {
        let pair = rcgen::KeyPair::generate()?;
        Ok(Self { id, signing: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes())? })
    }

    /// The value of `Authorization` for a user.
    fn bearer(&self, user: &str, issuer: &str) -> anyhow::Result<String> {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        let claims = json!({ "uid": user, "iss": issuer, "exp": 4_000_000_000_u64 });
        Ok(format!("Bearer {}", encode(&header, &claims, &self.signing)?))
    }

    fn public(&self) -> anyhow::Result<Jwk> {
        let mut jwk = Jwk::from_encoding_key(&self.signing, Algorithm::ES256)?;
        jwk.common.key_id = Some(self.id.to_owned());
        Ok(jwk)
    }
}

/// Replaces the key file as a whole.
fn publish(path: &Path, issuers: &[&Issuer]) -> anyhow::Result<()> {
    let keys = issuers.iter().map(|issuer| issuer.public()).collect::<anyhow::Result<_>>()?;
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, serde_json::to_string(&JwkSet { keys })?)?;
    Ok(std::fs::rename(fresh, path)?)
}

async fn version(edge: &Edge, token: &str) -> anyhow::Result<String> {
    Ok(edge.get(&[("authorization", token)]).await?.version)
}

#[tokio::test]
async fn a_token_counts_while_its_key_is_published() -> anyhow::Result<()> {
    let (first, second) = (Issuer::new("first")?, Issuer::new("second")?);
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys.json");
    publish(&keys, &[&first])?;
    let edge = Edge::start(&format!(
        "user: {{from: [{{jwt: {{jwksFile: '{}', claim: uid, issuer: shop}}}}]}}\n",
        keys.display()
    ))
    .await?;
    edge.write_rules(RULES)?;
    edge.follows("staff").await?;
    let (of_first, of_second) = (first.bearer("1001", "shop")?, second.bearer("1001", "shop")?);
    let cut: String = of_first.chars().take(of_first.len() - 2).collect();
    for (token, expected) in [
        (of_first.clone(), "V2"),
        (of_second.clone(), "V1"),
        (first.bearer("1002", "shop")?, "V1"),
        (first.bearer("1001", "elsewhere")?, "V1"),
        (cut, "V1"),
        ("Basic MTAwMTp4".to_owned(), "V1"),
    ] {
        ensure!(version(&edge, &token).await? == expected, "{token} is not {expected}");
    }
    // The issuer takes a new key beside the old one, and then the old one away.
    publish(&keys, &[&first, &second])?;
    eventually(Duration::from_secs(10), async || {
        ensure!(version(&edge, &of_second).await? == "V2", "not known yet");
        Ok(())
    })
    .await?;
    ensure!(version(&edge, &of_first).await? == "V2");
    publish(&keys, &[&second])?;
    eventually(Duration::from_secs(10), async || {
        ensure!(version(&edge, &of_first).await? == "V1", "still believed");
        Ok(())
    })
    .await?;
    // A file that holds no key changes nothing, and somebody is told.
    std::fs::write(&keys, "{\"keys\": []}")?;
    eventually(Duration::from_secs(10), async || {
        let printed = edge.gateway.process.printed();
        ensure!(printed.contains("keys.json holds no RS256 or ES256 key"), "{printed}");
        Ok(())
    })
    .await?;
    ensure!(version(&edge, &of_second).await? == "V2");
    Ok(())
}
