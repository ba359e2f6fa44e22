use std::path::{Path, PathBuf};

use gray_propagation::{FieldName, Lines};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cookie::cookie;

/// How a signed token (RFC 7519) names the user, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JwtProperties {
    /// The cookie that holds the token; without it, the header `Authorization: Bearer …`.
    pub cookie: Option<String>,
    /// The claim that is the user's number; `sub` where not given.
    pub claim: Option<String>,
    /// The shared secret of HS256.
    #[serde(skip_serializing)]
    pub secret: Option<String>,
    /// A PEM file with the public key of RS256 or ES256.
    pub public_key_file: Option<PathBuf>,
    /// A JWKS file (RFC 7517); the token's `kid` chooses the key.
    pub jwks_file: Option<PathBuf>,
    /// The `iss` that a token must have.
    pub issuer: Option<String>,
    /// The `aud` that a token must have.
    pub audience: Option<String>,
}

/// Why tokens cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// Not exactly one of the three kinds of key.
    #[error("give exactly one of secret, publicKeyFile and jwksFile")]
    Keys,
    /// The key file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no key of a known kind.
    #[error("{path} holds no RS256 or ES256 key")]
    Format {
        /// The file.
        path: PathBuf,
    },
}

impl JwtError {
    /// Returns the message with its cause.
    pub(crate) fn in_full(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// Verifies tokens, and reads the user's number from them.
#[derive(Debug)]
pub struct Jwts {
    keys: Vec<Key>,
    cookie: Option<String>,
    claim: String,
}

struct Key {
    id: Option<String>,
    decoding: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.validation.algorithms)
    }
}

impl Jwts {
    /// Reads the keys.
    ///
    /// # Errors
    ///
    /// See [`JwtError`].
    pub fn open(properties: &JwtProperties) -> Result<Self, JwtError> {
        let keys = match (&properties.secret, &properties.public_key_file, &properties.jwks_file) {
            (Some(secret), None, None) => {
                let decoding = DecodingKey::from_secret(secret.as_bytes());
                vec![Key {
                    id: None,
                    decoding,
                    validation: validation(properties, Algorithm::HS256),
                }]
            }
            (None, Some(path), None) => vec![pem(properties, path)?],
            (None, None, Some(path)) => jwks(properties, path)?,
            _ => return Err(JwtError::Keys),
        };
        let claim = properties.claim.clone().unwrap_or_else(|| "sub".to_owned());
        Ok(Self { keys, cookie: properties.cookie.clone(), claim })
    }

    /// Returns the user that a valid token names.
    pub(super) fn user(&self, headers: &dyn Lines) -> Option<String> {
        let token = match &self.cookie {
            Some(name) => std::str::from_utf8(cookie(headers, name)?).ok()?,
            None => bearer(headers)?,
        };
        let header = decode_header(token).ok()?;
        let fits = |key: &&Key| {
            key.validation.algorithms.contains(&header.alg)
                && (key.id.is_none() || key.id == header.kid)
        };
        self.keys.iter().filter(fits).find_map(|key| {
            let claims = decode::<Value>(token, &key.decoding, &key.validation).ok()?.claims;
            match claims.get(&self.claim)? {
                Value::String(user) => Some(user.clone()),
                Value::Number(user) => Some(user.to_string()),
                _ => None,
            }
        })
    }
}

static AUTHORIZATION: FieldName = FieldName::from_static("authorization");

fn bearer(headers: &dyn Lines) -> Option<&str> {
    let (scheme, token) = headers.text(&AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn validation(properties: &JwtProperties, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_nbf = true;
    if let Some(issuer) = &properties.issuer {
        validation.set_issuer(&[issuer]);
    }
    match &properties.audience {
        Some(audience) => validation.set_audience(&[audience]),
        None => validation.validate_aud = false,
    }
    validation
}

fn read(path: &Path) -> Result<Vec<u8>, JwtError> {
    std::fs::read(path).map_err(|source| JwtError::Io { path: path.to_owned(), source })
}

fn pem(properties: &JwtProperties, path: &Path) -> Result<Key, JwtError> {
    let bytes = read(path)?;
    let rsa = DecodingKey::from_rsa_pem(&bytes).map(|key| (key, Algorithm::RS256));
    let any = rsa.or_else(|_| DecodingKey::from_ec_pem(&bytes).map(|key| (key, Algorithm::ES256)));
    let (decoding, algorithm) = any.map_err(|_| JwtError::Format { path: path.to_owned() })?;
    Ok(Key { id: None, decoding, validation: validation(properties, algorithm) })
}

fn jwks(properties: &JwtProperties, path: &Path) -> Result<Vec<Key>, JwtError> {
    let format = || JwtError::Format { path: path.to_owned() };
    let set: JwkSet = serde_json::from_slice(&read(path)?).map_err(|_| format())?;
    let keys: Vec<Key> = set
        .keys
        .iter()
        .filter_map(|jwk| {
            let algorithm = match &jwk.algorithm {
                jsonwebtoken::jwk::AlgorithmParameters::RSA(_) => Algorithm::RS256,
                jsonwebtoken::jwk::AlgorithmParameters::EllipticCurve(_) => Algorithm::ES256,
                jsonwebtoken::jwk::AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
                _ => return None,
            };
            let decoding = DecodingKey::from_jwk(jwk).ok()?;
            let id = jwk.common.key_id.clone();
            Some(Key { id, decoding, validation: validation(properties, algorithm) })
        })
        .collect();
    if keys.is_empty() { Err(format()) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const FAR: u64 = 4_000_000_000;

    fn properties() -> JwtProperties {
        JwtProperties { secret: Some("secret".to_owned()), ..JwtProperties::default() }
    }

    fn token(secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::default(), claims, &key).unwrap()
    }

    #[track_caller]
    fn check(properties: &JwtProperties, token: &str, expected: Option<&str>) {
        let mut headers = http::HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(&*AUTHORIZATION, value);
        let user = Jwts::open(properties).unwrap().user(&headers);
        assert_eq!(user.as_deref(), expected);
    }

    #[test]
    fn reads_the_claim_of_a_valid_token() {
        check(&properties(), &token("secret", &json!({"sub": "1001", "exp": FAR})), Some("1001"));
        let other = JwtProperties { claim: Some("uid".to_owned()), ..properties() };
        check(&other, &token("secret", &json!({"uid": 7, "exp": FAR})), Some("7"));
    }

    #[test]
    fn an_invalid_token_names_nobody() {
        check(&properties(), &token("wrong", &json!({"sub": "1", "exp": FAR})), None);
        check(&properties(), &token("secret", &json!({"sub": "1", "exp": 1})), None);
        check(&properties(), &token("secret", &json!({"sub": "1"})), None);
        check(&properties(), "garbage", None);
        let strict = JwtProperties { issuer: Some("me".to_owned()), ..properties() };
        check(&strict, &token("secret", &json!({"sub": "1", "exp": FAR, "iss": "you"})), None);
    }

    /// A key of each kind that has a public half.
    fn key_pairs() -> [(Algorithm, EncodingKey, String); 2] {
        let ec = rcgen::KeyPair::generate().unwrap();
        let signing = EncodingKey::from_ec_pem(ec.serialize_pem().as_bytes()).unwrap();
        let rsa = include_str!("../../fixtures/rsa-test-only.pem");
        let public = include_str!("../../fixtures/rsa-test-only.pub.pem");
        let rsa = EncodingKey::from_rsa_pem(rsa.as_bytes()).unwrap();
        [
            (Algorithm::ES256, signing, ec.public_key_pem()),
            (Algorithm::RS256, rsa, public.to_owned()),
        ]
    }

    fn signed(algorithm: Algorithm, key: &EncodingKey, id: Option<&str>) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
        encode(&header, &json!({"sub": "1001", "exp": FAR}), key).unwrap()
    }

    #[test]
    fn verifies_by_the_public_key_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        for (algorithm, key, public) in key_pairs() {
            std::fs::write(&path, public).unwrap();
            let properties =
                JwtProperties { public_key_file: Some(path.clone()), ..JwtProperties::default() };
            check(&properties, &signed(algorithm, &key, None), Some("1001"));
            // The public half must not serve as a secret.
            let public = std::fs::read_to_string(&path).unwrap();
            check(&properties, &token(&public, &json!({"sub": "1", "exp": FAR})), None);
        }
    }

    #[test]
    fn chooses_the_key_of_a_set_by_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let pairs = key_pairs();
        let jwk = |(algorithm, key, _): &(Algorithm, EncodingKey, String)| {
            let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(key, *algorithm).unwrap();
            jwk.common.key_id = Some(format!("{algorithm:?}"));
            jwk
        };
        let set = JwkSet { keys: pairs.iter().map(jwk).collect() };
        std::fs::write(&path, serde_json::to_string(&set).unwrap()).unwrap();
        let properties = JwtProperties { jwks_file: Some(path), ..JwtProperties::default() };
        for (algorithm, key, _) in &pairs {
            let id = format!("{algorithm:?}");
            check(&properties, &signed(*algorithm, key, Some(&id)), Some("1001"));
            check(&properties, &signed(*algorithm, key, Some("another")), None);
        }
    }

    #[test]
    fn wants_exactly_one_kind_of_key() {
        assert!(matches!(Jwts::open(&JwtProperties::default()), Err(JwtError::Keys)));
    }
}
