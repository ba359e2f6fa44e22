//! Errors as `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use serde::Serialize;

use crate::Error;
use crate::field::{CACHE_CONTROL, CONTENT_TYPE};
use crate::head::Answered;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: String,
    request_id: &'a str,
}

/// Returns what a client sees of an error; the body is empty where the method allows none.
pub(crate) fn answer(error: &Error, method: &Method, request_id: &str) -> Answered<Full<Bytes>> {
    let status = error.status();
    let problem = Problem {
        r#type: format!("urn:graylane:problem:{}", error.code()),
        title: status.canonical_reason().unwrap_or_default(),
        status: status.as_u16(),
        code: error.code(),
        detail: error.detail(),
        request_id,
    };
    let body = match *method {
        Method::HEAD => Vec::new(),
        _ => serde_json::to_vec(&problem).unwrap_or_default(),
    };
    let mut answered = Answered::new(Full::new(Bytes::from(body)));
    answered.head.status = status;
    let fields = &mut answered.head.fields;
    fields.append(&CONTENT_TYPE, b"application/problem+json");
    fields.append(&CACHE_CONTROL, b"no-store");
    answered
}
