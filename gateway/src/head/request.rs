use http::request::Parts;
use http::{Method, Version};

use super::{HeadFields, RequestTarget};

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// What is asked for.
    pub target: RequestTarget,
    /// The version of HTTP that it came in.
    pub version: Version,
    /// The fields.
    pub fields: HeadFields,
}

impl From<&Parts> for RequestHead {
    fn from(parts: &Parts) -> Self {
        Self {
            method: parts.method.clone(),
            target: RequestTarget::from(&parts.uri),
            version: parts.version,
            fields: HeadFields::from(&parts.headers),
        }
    }
}
