use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, Version};

use super::HeadFields;

/// The head of an answer.
#[derive(Clone, Debug, Default)]
pub struct AnswerHead {
    /// The status.
    pub status: StatusCode,
    /// The version of HTTP that it came in.
    pub version: Version,
    /// The fields.
    pub fields: HeadFields,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answered<B> {
    /// Its head.
    pub head: AnswerHead,
    /// Its body.
    pub body: B,
}

impl<B> Answered<B> {
    /// An answer with nothing but a body.
    pub fn new(body: B) -> Self {
        Self { head: AnswerHead::default(), body }
    }

    /// Makes another body of its body.
    pub(crate) fn map<T>(self, make: impl FnOnce(B) -> T) -> Answered<T> {
        Answered { head: self.head, body: make(self.body) }
    }

    /// Turns it into the answer that hyper writes.
    pub(crate) fn into_response(self) -> Response<B> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.head.status;
        *response.headers_mut() = HeaderMap::from(&self.head.fields);
        response
    }
}

impl From<&Parts> for AnswerHead {
    fn from(parts: &Parts) -> Self {
        let fields = HeadFields::from(&parts.headers);
        Self { status: parts.status, version: parts.version, fields }
    }
}
