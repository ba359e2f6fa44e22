use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest frame that is read or written: the broker's own limit for a message is 4 MiB, and a
/// pull asks for some tens of them.
pub(super) const MAX_FRAME: usize = 64 * 1024 * 1024;

const RESPONSE: u32 = 1;

/// One request or response of the remoting protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// What is asked for, or how it went.
    pub(super) code: i32,
    pub(super) flag: u32,
    /// Ties a response to its request.
    pub(super) opaque: i32,
    pub(super) remark: String,
    pub(super) fields: BTreeMap<String, String>,
    pub(super) body: Bytes,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    code: i32,
    opaque: i32,
    flag: u32,
    #[serde(default)]
    language: String,
    #[serde(default)]
    version: i32,
    #[serde(default)]
    remark: Option<String>,
    #[serde(default)]
    ext_fields: Option<BTreeMap<String, Value>>,
}

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its length is that of no frame.
    #[error("a frame of {0} bytes")]
    Length(usize),
    /// Its header is in an encoding other than JSON.
    #[error("a header in encoding {0}, not JSON")]
    Encoding(u8),
    /// Its header is no JSON of a header.
    #[error("an unreadable header")]
    Header(#[source] serde_json::Error),
}

impl Command {
    /// A request with these fields; those without a value are left out.
    pub(super) fn request<const N: usize>(code: i32, fields: [(&str, Option<String>); N]) -> Self {
        let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Self { code, fields: given.collect(), ..Self::default() }
    }

    pub(super) fn with_body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The same, to which no answer is wanted.
    pub(super) fn one_way(self) -> Self {
        const ONE_WAY: u32 = 2;
        Self { flag: self.flag | ONE_WAY, ..self }
    }

    pub(super) const fn is_response(&self) -> bool {
        self.flag & RESPONSE != 0
    }

    /// Reads a field that is a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.fields.get(name)?.parse().ok()
    }

    /// Writes the frame, its length in front.
    pub(super) fn encode(&self) -> Result<Bytes, FrameError> {
        let text = |(name, value): (&String, &String)| (name.clone(), Value::from(value.as_str()));
        let header = Header {
            code: self.code,
            // The broker knows the languages of its own clients only.
            language: "OTHER".to_owned(),
            version: 401,
            opaque: self.opaque,
            flag: self.flag,
            remark: None,
            ext_fields: Some(self.fields.iter().map(text).collect()),
        };
        let header = serde_json::to_vec(&header).map_err(FrameError::Header)?;
        let length = 4 + header.len() + self.body.len();
        let short = |length: usize| u32::try_from(length).map_err(|_| FrameError::Length(length));
        if length > MAX_FRAME || header.len() >= 1 << 24 {
            return Err(FrameError::Length(length));
        }
        let mut frame = BytesMut::with_capacity(4 + length);
        frame.put_u32(short(length)?);
        frame.put_u32(short(header.len())?);
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&self.body);
        Ok(frame.freeze())
    }

    /// Reads a frame without its length.
    pub(super) fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let wrong = || FrameError::Length(frame.len());
        let (word, _) = frame.split_first_chunk::<4>().ok_or_else(wrong)?;
        let [encoding, high, middle, low] = *word;
        if encoding != 0 {
            return Err(FrameError::Encoding(encoding));
        }
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let end = 4 + length;
        let header = frame.get(4..end).ok_or_else(wrong)?;
        let header: Header = serde_json::from_slice(header).map_err(FrameError::Header)?;
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => Some(other.to_string()),
        };
        let fields = header.ext_fields.unwrap_or_default().into_iter();
        Ok(Self {
            code: header.code,
            flag: header.flag,
            opaque: header.opaque,
            remark: header.remark.unwrap_or_default(),
            fields: fields.filter_map(|(name, value)| Some((name, text(value)?))).collect(),
            body: frame.slice(end..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_reads_back_as_it_was_written() {
        let command = Command::request(11, [("topic", Some("订单".into())), ("none", None)]);
        let command = Command { opaque: 7, ..command.with_body("body") };
        let frame = command.encode().unwrap();
        let length = u32::from_be_bytes(frame[..4].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), frame.len() - 4);
        assert_eq!(Command::decode(&frame.slice(4..)).unwrap(), command);
    }

    #[test]
    fn a_frame_that_is_none_is_an_error() {
        for frame in
            [&b""[..], b"\0\0", b"\0\0\0\x09{}", b"\x01\0\0\0", b"\0\0\0\x02xx", b"\0\0\0\x02[]"]
        {
            assert!(Command::decode(&Bytes::from_static(frame)).is_err(), "{frame:?}");
        }
        let huge = Command::default().with_body(vec![0; MAX_FRAME]);
        assert!(matches!(huge.encode(), Err(FrameError::Length(_))));
    }

    #[test]
    fn what_a_java_server_writes_is_read() {
        let header = br#"{"code":0,"extFields":{"offset":"42","n":7,"x":null},"flag":1,"language":"JAVA","opaque":3,"serializeTypeCurrentRPC":"JSON","version":453}"#;
        let mut frame = vec![0, 0, 0, u8::try_from(header.len()).unwrap()];
        frame.extend(header);
        let command = Command::decode(&frame.into()).unwrap();
        assert!(command.is_response());
        assert_eq!((command.number("offset"), command.number("n")), (Some(42_u64), Some(7_u64)));
        assert_eq!(command.number::<u64>("x"), None);
    }
}
