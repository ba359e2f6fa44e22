use std::collections::BTreeMap;
use std::io::Read;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::read::ZlibDecoder;
use lz4_flex::frame::FrameDecoder;
use ruzstd::decoding::StreamingDecoder;

use crate::{Message, QueueKey, ReceivedMessage, Unreadable};

/// The first property that may not be there, since it separates them.
const NAME_END: char = '\u{1}';
const PROPERTY_END: char = '\u{2}';

const COMPRESSED: i32 = 1;
const BORN_HOST_V6: i32 = 1 << 4;
const STORE_HOST_V6: i32 = 1 << 5;
const COMPRESSION: i32 = 0b111 << 8;
const LZ4: i32 = 1 << 8;
const ZSTD: i32 = 2 << 8;
const ZLIB: i32 = 3 << 8;

/// Names the topic of a message that its group has given back.
pub(super) const ORIGIN: &str = "RETRY_TOPIC";

/// The largest body after decompression: four times what a broker takes by default.
const MAX_BODY: u64 = 16 * 1024 * 1024;

/// Writes properties as brokers keep them; `None` if one cannot be written.
pub(super) fn encode_properties(properties: &BTreeMap<String, String>) -> Option<String> {
    let mut text = String::new();
    for (name, value) in properties {
        if name.is_empty() || [name, value].iter().any(|it| it.contains([NAME_END, PROPERTY_END])) {
            return None;
        }
        text.extend([name.as_str(), "\u{1}", value, "\u{2}"]);
    }
    Some(text)
}

/// Writes messages one after the other, as brokers take a batch; `None` if one cannot be written.
pub(super) fn encode_batch(messages: &[Message]) -> Option<Bytes> {
    let mut all = BytesMut::new();
    for message in messages {
        let properties = encode_properties(&message.properties)?;
        let size = 4 * 5 + message.body.len() + 2 + properties.len();
        all.put_u32(size.try_into().ok()?);
        // Kind, checksum and flags are the broker's to fill in.
        all.put_bytes(0, 12);
        all.put_u32(message.body.len().try_into().ok()?);
        all.put_slice(&message.body);
        all.put_u16(properties.len().try_into().ok()?);
        all.put_slice(properties.as_bytes());
    }
    Some(all.freeze())
}

fn decode_properties(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(PROPERTY_END).filter_map(|pair| pair.split_once(NAME_END));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Reads the messages that were pulled from a broker.
///
/// # Errors
///
/// Says which message cannot be read: to pass over it would be to lose it.
pub(super) fn decode(broker: &str, mut bytes: Bytes) -> Result<Vec<ReceivedMessage>, String> {
    let mut messages = Vec::new();
    while bytes.has_remaining() {
        let number = messages.len();
        let size = bytes.clone().try_get_u32().ok().and_then(|size| usize::try_from(size).ok());
        let size = size.filter(|size| (4..=bytes.len()).contains(size));
        let size = size.ok_or_else(|| format!("message {number} of a pull has no length"))?;
        let mut one = bytes.split_to(size);
        one.advance(4);
        let message = decode_one(broker, &mut one);
        messages.push(message.map_err(|what| format!("message {number} of a pull: {what}"))?);
    }
    Ok(messages)
}

fn decode_one(broker: &str, bytes: &mut Bytes) -> Result<ReceivedMessage, String> {
    const V1: i32 = -626_843_481;
    const V2: i32 = -626_843_477;
    let short = |_: bytes::TryGetError| "it is cut off".to_owned();
    let magic = bytes.try_get_i32().map_err(short)?;
    if ![V1, V2].contains(&magic) {
        return Err(format!("of unknown kind {magic}"));
    }
    let _crc = bytes.try_get_u32().map_err(short)?;
    let number = bytes.try_get_u32().map_err(short)?;
    let flag = bytes.try_get_i32().map_err(short)?;
    let offset = bytes.try_get_u64().map_err(short)?;
    let position = bytes.try_get_i64().map_err(short)?;
    let flags = bytes.try_get_i32().map_err(short)?;
    let born_at = bytes.try_get_i64().map_err(short)?;
    let host = |flag| if flags & flag == 0 { 8 } else { 20 };
    skip(bytes, host(BORN_HOST_V6))?;
    let _stored_at = bytes.try_get_i64().map_err(short)?;
    skip(bytes, host(STORE_HOST_V6))?;
    let attempts = bytes.try_get_i32().map_err(short)?;
    let _prepared = bytes.try_get_i64().map_err(short)?;
    let length = bytes.try_get_u32().map_err(short)?;
    let body = take(bytes, length)?;
    let length = match magic {
        V1 => bytes.try_get_u8().map_err(short)?.into(),
        _ => bytes.try_get_u16().map_err(short)?.into(),
    };
    let topic = text(&take(bytes, length)?);
    let length = bytes.try_get_u16().map_err(short)?;
    let properties = decode_properties(&text(&take(bytes, length.into())?));
    // The others of the pull must not wait for one that somebody has packed wrongly.
    let (body, unreadable) = match decompress(body.clone(), flags) {
        Ok(body) => (body, None),
        Err(why) => (body, Some(Unreadable { why, packing: flags & (COMPRESSED | COMPRESSION) })),
    };
    Ok(ReceivedMessage {
        topic: properties.get(ORIGIN).cloned().unwrap_or(topic),
        queue: QueueKey { broker: broker.to_owned(), number },
        offset,
        position,
        born_at,
        attempts: u32::try_from(attempts).unwrap_or_default(),
        properties,
        body,
        flag,
        unreadable,
    })
}

fn skip(bytes: &mut Bytes, count: u32) -> Result<(), String> {
    take(bytes, count).map(drop)
}

fn take(bytes: &mut Bytes, count: u32) -> Result<Bytes, String> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > bytes.len() { Err("it is cut off".to_owned()) } else { Ok(bytes.split_to(count)) }
}

/// What is no UTF-8 is somebody's property, and no reason not to handle the message.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn decompress(body: Bytes, flags: i32) -> Result<Bytes, String> {
    if flags & COMPRESSED == 0 {
        return Ok(body);
    }
    let packed = &body[..];
    match flags & COMPRESSION {
        0 | ZLIB => unpack(ZlibDecoder::new(packed)),
        LZ4 => unpack(FrameDecoder::new(packed)),
        ZSTD => unpack(StreamingDecoder::new(packed).map_err(|error| failed(&error))?),
        other => Err(format!("its body is compressed by method {}", other >> 8)),
    }
}

fn unpack(packed: impl Read) -> Result<Bytes, String> {
    let mut whole = Vec::new();
    match packed.take(MAX_BODY + 1).read_to_end(&mut whole) {
        Err(error) => Err(failed(&error)),
        Ok(_) if u64::try_from(whole.len()).is_ok_and(|length| length > MAX_BODY) => {
            Err(format!("its body is larger than {MAX_BODY} bytes"))
        }
        Ok(_) => Ok(whole.into()),
    }
}

fn failed(error: &dyn std::error::Error) -> String {
    format!("its body cannot be decompressed: {error}")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A message as a broker writes it.
    fn stored(body: &[u8], flags: i32) -> Bytes {
        let mut rest = BytesMut::new();
        rest.put_i32(-626_843_481);
        rest.put_u32(0);
        rest.put_u32(3);
        rest.put_i32(77);
        rest.put_u64(42);
        rest.put_i64(4242);
        rest.put_i32(flags);
        rest.put_i64(1);
        rest.put_slice(&[127, 0, 0, 1, 0, 0, 0, 1]);
        rest.put_i64(2);
        rest.put_slice(&[127, 0, 0, 1, 0, 0, 0, 1]);
        rest.put_i32(5);
        rest.put_i64(0);
        rest.put_u32(u32::try_from(body.len()).unwrap());
        rest.put_slice(body);
        rest.put_u8(1);
        rest.put_slice(b"t");
        let properties = "gray\u{1}GRAY\u{2}KEYS\u{1}k\u{2}";
        rest.put_u16(u16::try_from(properties.len()).unwrap());
        rest.put_slice(properties.as_bytes());
        let mut all = BytesMut::new();
        all.put_u32(u32::try_from(rest.len() + 4).unwrap());
        all.put_slice(&rest);
        all.freeze()
    }

    #[test]
    fn messages_are_read_one_after_the_other() {
        let two = [stored(b"hello", 0), stored(b"world", 0)].concat();
        let messages = decode("b", two.into()).unwrap();
        assert_eq!(messages.len(), 2);
        let first = &messages[0];
        assert_eq!(
            (first.queue.to_string().as_str(), first.offset, first.position),
            ("b/3", 42, 4242)
        );
        assert_eq!((&*first.body, first.attempts, first.flag), (&b"hello"[..], 5, 77));
        assert_eq!((first.topic.as_str(), first.properties["gray"].as_str()), ("t", "GRAY"));
    }

    /// It is somebody's message: the others of the pull are handled, and it is put aside in the end.
    #[test]
    fn a_body_that_cannot_be_unpacked_does_not_hold_up_the_others() {
        let damaged = stored(b"no stream of zlib", COMPRESSED);
        let three = [stored(b"hello", 0), damaged, stored(b"world", 0)].concat();
        let messages = decode("b", three.into()).unwrap();
        let read: Vec<bool> = messages.iter().map(|it| it.unreadable.is_none()).collect();
        assert_eq!(read, [true, false, true]);
        assert_eq!(&*messages[1].body, b"no stream of zlib");
        let unreadable = messages[1].unreadable.as_ref().unwrap();
        assert!(unreadable.why.contains("decompressed") && unreadable.packing == COMPRESSED);
    }

    #[test]
    fn a_message_that_cannot_be_read_is_not_passed_over() {
        let whole = stored(b"hello", 0);
        for length in 1..whole.len() {
            assert!(decode("b", whole.slice(..length)).is_err(), "{length}");
        }
        for position in 0..whole.len() {
            let mut damaged = whole.to_vec();
            damaged[position] ^= 0xff;
            // It may read as something else, but never panics or takes more memory than there is.
            let _ = decode("b", damaged.into());
        }
    }

    #[test]
    fn a_compressed_body_is_unpacked_within_a_limit() {
        let pack = |body: &[u8]| {
            let mut packed = Vec::new();
            let level = flate2::Compression::fast();
            flate2::read::ZlibEncoder::new(body, level).read_to_end(&mut packed).unwrap();
            packed
        };
        let one = decode("b", stored(&pack(b"hello"), 1)).unwrap();
        assert_eq!(&*one[0].body, b"hello");
        let unreadable = |body: &[u8], flags| {
            decode("b", stored(body, flags)).unwrap().remove(0).unreadable.unwrap().why
        };
        assert!(unreadable(b"hello", 1).contains("cannot be decompressed"));
        let bomb = pack(&vec![0; 17 << 20]);
        assert!(unreadable(&bomb, 1).contains("larger"));
        assert!(unreadable(b"x", 1 | 4 << 8).contains("method 4"));
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(b"hello").unwrap();
        let one = decode("b", stored(&lz4.finish().unwrap(), 1 | LZ4)).unwrap();
        assert_eq!(&*one[0].body, b"hello");
        let level = ruzstd::encoding::CompressionLevel::Uncompressed;
        let zstd = ruzstd::encoding::compress_to_vec(&b"hello"[..], level);
        let one = decode("b", stored(&zstd, 1 | ZSTD)).unwrap();
        assert_eq!(&*one[0].body, b"hello");
        for kind in [LZ4, ZSTD, ZLIB] {
            assert!(unreadable(b"hello", 1 | kind).contains("cannot be decompressed"));
        }
    }

    #[test]
    fn properties_survive_and_separators_are_refused() {
        let properties: BTreeMap<String, String> =
            [("gray".into(), "GRAY".into()), ("空".into(), String::new())].into();
        let text = encode_properties(&properties).unwrap();
        assert_eq!(decode_properties(&text), properties);
        for (name, value) in [("", "x"), ("a\u{1}", "x"), ("a", "x\u{2}")] {
            assert_eq!(encode_properties(&[(name.to_owned(), value.to_owned())].into()), None);
        }
    }
}
