//! The names of fields that the gateway looks for.

use gray_propagation::FieldName;

pub(crate) use gray_propagation::field::{HOP, PATH, TAG};

pub(crate) static AUTHORIZATION: FieldName = FieldName::from_static("authorization");
pub(crate) static CACHE_CONTROL: FieldName = FieldName::from_static("cache-control");
pub(crate) static CONNECTION: FieldName = FieldName::from_static("connection");
pub(crate) static CONTENT_ENCODING: FieldName = FieldName::from_static("content-encoding");
pub(crate) static CONTENT_LENGTH: FieldName = FieldName::from_static("content-length");
pub(crate) static CONTENT_RANGE: FieldName = FieldName::from_static("content-range");
pub(crate) static CONTENT_TYPE: FieldName = FieldName::from_static("content-type");
pub(crate) static COOKIE: FieldName = FieldName::from_static("cookie");
pub(crate) static DATE: FieldName = FieldName::from_static("date");
pub(crate) static DECISION: FieldName = FieldName::from_static("x-graylane-decision");
pub(crate) static EXPECT: FieldName = FieldName::from_static("expect");
pub(crate) static EXPLAIN: FieldName = FieldName::from_static("x-graylane-explain");
pub(crate) static FORWARDED: FieldName = FieldName::from_static("forwarded");
pub(crate) static FORWARDED_FOR: FieldName = FieldName::from_static("x-forwarded-for");
pub(crate) static FORWARDED_HOST: FieldName = FieldName::from_static("x-forwarded-host");
pub(crate) static FORWARDED_PROTO: FieldName = FieldName::from_static("x-forwarded-proto");
pub(crate) static HOST: FieldName = FieldName::from_static("host");
pub(crate) static HTTP2_SETTINGS: FieldName = FieldName::from_static("http2-settings");
pub(crate) static KEEP_ALIVE: FieldName = FieldName::from_static("keep-alive");
pub(crate) static MAX_FORWARDS: FieldName = FieldName::from_static("max-forwards");
pub(crate) static PRAGMA: FieldName = FieldName::from_static("pragma");
pub(crate) static PROXY_AUTHENTICATE: FieldName = FieldName::from_static("proxy-authenticate");
pub(crate) static PROXY_AUTHORIZATION: FieldName = FieldName::from_static("proxy-authorization");
pub(crate) static PROXY_CONNECTION: FieldName = FieldName::from_static("proxy-connection");
pub(crate) static RANGE: FieldName = FieldName::from_static("range");
pub(crate) static REAL_IP: FieldName = FieldName::from_static("x-real-ip");
pub(crate) static REQUEST_ID: FieldName = FieldName::from_static("x-request-id");
pub(crate) static SET_COOKIE: FieldName = FieldName::from_static("set-cookie");
pub(crate) static TE: FieldName = FieldName::from_static("te");
pub(crate) static TRAILER: FieldName = FieldName::from_static("trailer");
pub(crate) static TRANSFER_ENCODING: FieldName = FieldName::from_static("transfer-encoding");
pub(crate) static UPGRADE: FieldName = FieldName::from_static("upgrade");
pub(crate) static VIA: FieldName = FieldName::from_static("via");
pub(crate) static WWW_AUTHENTICATE: FieldName = FieldName::from_static("www-authenticate");
