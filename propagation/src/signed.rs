//! Tags that can be believed from outside: signed, with an expiry.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderName, HeaderValue};
use ring::hmac;

use crate::GrayStatus;

/// The header that carries a [`SignedTag`].
pub const TAG_HEADER: HeaderName = HeaderName::from_static("x-graylane-tag");

/// The longest time that a tag may be valid for; one that claims more is refused.
pub const MAX_AGE: Duration = Duration::from_hours(1);

/// The shortest secret: as long as the hash (RFC 2104, section 3).
const MIN_SECRET: usize = 32;

/// A lane that somebody with a key asks for: `1;k1;GRAY;1763800000;p;<HMAC-SHA256>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTag {
    /// The lane.
    pub status: GrayStatus,
    /// Until when the tag is valid.
    pub expires: SystemTime,
    /// Whether services on the way are to report themselves.
    pub probe: bool,
}

/// A key that tags are signed with.
#[derive(Clone)]
pub struct TagKey {
    id: String,
    key: hmac::Key,
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagKey({})", self.id)
    }
}

/// Why something is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The id is empty or has characters that cannot stand in a tag.
    #[error("the id must be letters, digits, `-`, `_` or `.`")]
    Id,
    /// The secret is too short to be one.
    #[error("the secret has {0} bytes, fewer than the {MIN_SECRET} that are needed")]
    Secret(usize),
    /// There is no `:` between the id and the secret.
    #[error("a key is written as id:secret")]
    Form,
}

/// Why a tag is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTag {
    /// It is not written as a tag.
    #[error("the tag is malformed")]
    Malformed,
    /// Nobody here has the key that it names.
    #[error("the tag names an unknown key")]
    Key,
    /// It was not signed with that key.
    #[error("the tag's signature is wrong")]
    Signature,
    /// It is not valid any more.
    #[error("the tag has expired")]
    Expired,
    /// It claims to be valid for longer than any tag may be.
    #[error("the tag is valid for too long")]
    TooLong,
}

impl TagKey {
    /// Takes a key by its id and secret.
    ///
    /// # Errors
    ///
    /// See [`InvalidKey`].
    pub fn new(id: &str, secret: &[u8]) -> Result<Self, InvalidKey> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if id.is_empty() || !id.bytes().all(plain) {
            return Err(InvalidKey::Id);
        }
        if secret.len() < MIN_SECRET {
            return Err(InvalidKey::Secret(secret.len()));
        }
        Ok(Self { id: id.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, secret) })
    }

    /// Reads `id:secret`.
    ///
    /// # Errors
    ///
    /// See [`InvalidKey`].
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let (id, secret) = text.split_once(':').ok_or(InvalidKey::Form)?;
        Self::new(id, secret.as_bytes())
    }

    /// Returns the id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Signs a tag.
    pub fn sign(&self, tag: &SignedTag) -> Option<HeaderValue> {
        let expires = tag.expires.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let purpose = if tag.probe { "p" } else { "t" };
        let said = format!("1;{};{};{expires};{purpose}", self.id, tag.status);
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, said.as_bytes()));
        HeaderValue::try_from(format!("{said};{signature}")).ok()
    }
}

/// The keys whose tags are believed.
#[derive(Clone, Debug, Default)]
pub struct TagKeys(Vec<TagKey>);

impl FromIterator<TagKey> for TagKeys {
    fn from_iter<I: IntoIterator<Item = TagKey>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl TagKeys {
    /// Tells whether no tag is ever believed.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a tag, if it can be believed at this time.
    ///
    /// # Errors
    ///
    /// See [`InvalidTag`].
    pub fn verify(&self, value: &HeaderValue, now: SystemTime) -> Result<SignedTag, InvalidTag> {
        let text = value.to_str().map_err(|_| InvalidTag::Malformed)?;
        let (said, signature) = text.rsplit_once(';').ok_or(InvalidTag::Malformed)?;
        let parts: Vec<&str> = said.split(';').collect();
        let &["1", id, status, expires, purpose @ ("p" | "t")] = parts.as_slice() else {
            return Err(InvalidTag::Malformed);
        };
        let key = self.0.iter().find(|key| key.id == id).ok_or(InvalidTag::Key)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| InvalidTag::Malformed)?;
        hmac::verify(&key.key, said.as_bytes(), &signature).map_err(|_| InvalidTag::Signature)?;
        let expires: u64 = expires.parse().map_err(|_| InvalidTag::Malformed)?;
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(expires));
        let expires = expires.ok_or(InvalidTag::TooLong)?;
        let left = expires.duration_since(now).map_err(|_| InvalidTag::Expired)?;
        if left > MAX_AGE {
            return Err(InvalidTag::TooLong);
        }
        let status = status.parse().map_err(|_| InvalidTag::Malformed)?;
        Ok(SignedTag { status, expires, probe: purpose == "p" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lane;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_800_000)
    }

    fn tag() -> SignedTag {
        let status = GrayStatus::Gray(Lane::GRAY);
        SignedTag { status, expires: now() + Duration::from_mins(1), probe: true }
    }

    fn keys() -> TagKeys {
        [TagKey::new("k1", SECRET).unwrap()].into_iter().collect()
    }

    fn signed(tag: &SignedTag) -> HeaderValue {
        TagKey::new("k1", SECRET).unwrap().sign(tag).unwrap()
    }

    #[test]
    fn a_tag_survives_its_signature() {
        let value = signed(&tag());
        assert_eq!(keys().verify(&value, now()), Ok(tag()));
        // Computed with Python: hmac.new(secret, b"1;k1;GRAY;1763800060;p", "sha256").
        assert_eq!(value, "1;k1;GRAY;1763800060;p;TuqEKdZpxJk2Y19BfJAK8EP2zes_dCcPDvVLcJBie2g");
    }

    #[test]
    fn nothing_else_is_believed() {
        let value = signed(&tag()).to_str().unwrap().to_owned();
        let verify = |text: &str, at| keys().verify(&HeaderValue::from_str(text).unwrap(), at);
        let later = now() + Duration::from_secs(61);
        assert_eq!(verify(&value, later), Err(InvalidTag::Expired));
        let other = value.replace("GRAY", "blue");
        assert_eq!(verify(&other, now()), Err(InvalidTag::Signature));
        let other = value.replace("1763800060", "1763800999");
        assert_eq!(verify(&other, now()), Err(InvalidTag::Signature));
        assert_eq!(verify(&value.replace("k1", "k2"), now()), Err(InvalidTag::Key));
        for malformed in
            ["", ";", "1;k1;GRAY;1", "2;k1;GRAY;1763800060;p;x", value.get(2..).unwrap()]
        {
            assert_eq!(verify(malformed, now()), Err(InvalidTag::Malformed), "{malformed}");
        }
        for cut in 1..value.len() {
            assert!(verify(value.get(..cut).unwrap(), now()).is_err(), "{cut}");
        }
        let long = SignedTag { expires: now() + MAX_AGE + Duration::from_secs(1), ..tag() };
        assert_eq!(keys().verify(&signed(&long), now()), Err(InvalidTag::TooLong));
    }

    #[test]
    fn weak_keys_are_refused() {
        assert_eq!(TagKey::parse("k1").unwrap_err(), InvalidKey::Form);
        assert_eq!(TagKey::parse("k1:short").unwrap_err(), InvalidKey::Secret(5));
        assert_eq!(TagKey::new("a;b", SECRET).unwrap_err(), InvalidKey::Id);
        assert_eq!(format!("{:?}", TagKey::new("k1", SECRET).unwrap()), "TagKey(k1)");
    }
}
