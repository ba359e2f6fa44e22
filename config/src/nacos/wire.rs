//! The envelope that every gRPC call carries: a type name, headers, and JSON.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::NacosError;

/// `Metadata` of `nacos_grpc_service.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    #[prost(string, tag = "3")]
    pub(super) r#type: String,
    #[prost(map = "string, string", tag = "7")]
    pub(super) headers: HashMap<String, String>,
    #[prost(string, tag = "8")]
    pub(super) client_ip: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `Payload` of `nacos_grpc_service.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Payload {
    #[prost(message, optional, tag = "2")]
    pub(super) metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    pub(super) body: Option<Any>,
}

impl Payload {
    /// Wraps a message; one that is no JSON becomes an empty object, which the server refuses.
    pub(super) fn new(name: &str, headers: HashMap<String, String>, body: &impl Serialize) -> Self {
        let value = serde_json::to_vec(body).unwrap_or_else(|_| b"{}".to_vec());
        let metadata = Metadata { r#type: name.to_owned(), headers, client_ip: String::new() };
        Self { metadata: Some(metadata), body: Some(Any { type_url: String::new(), value }) }
    }

    pub(super) fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.r#type)
    }

    pub(super) fn json(&self) -> &[u8] {
        self.body.as_ref().map_or(b"{}", |body| &body.value)
    }

    pub(super) fn read<T: DeserializeOwned>(&self, request: &'static str) -> Result<T, NacosError> {
        let garbled =
            |error: serde_json::Error| NacosError::Garbled { request, reason: error.to_string() };
        serde_json::from_slice(self.json()).map_err(garbled)
    }
}
