use gray_filters::without_port;
use gray_propagation::Lines as _;
use http::header::HOST;
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

impl RequestHead {
    /// Returns the host that was asked for, without its port.
    pub fn host(&self) -> Option<&str> {
        let of_target = self.target.authority().map(http::uri::Authority::host);
        of_target.or_else(|| self.fields.text(&HOST).map(without_port))
    }
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
