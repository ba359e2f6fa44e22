//! A serde deserializer over [`Node`]s that goes on after an error.
//!
//! serde gives up at the first error. To report all of them, the value at fault is set aside and the
//! document is read again without it, until nothing new turns up.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::access::{Choice, Elements, Fields};
use super::error::{At, Error};
use super::node::{Entry, Kind, Node};
use crate::{Fault, Faults, KeyPath, Severity};

/// How many errors of one document are reported; each costs one more reading.
const MAX_ERRORS: usize = 25;

/// Reads a value from a tree, noting every error on the way. What is returned is the value without
/// the parts that are wrong, so that the rest of it can be checked too; `None` if nothing is left.
pub(crate) fn read<T>(node: &Node, at: &KeyPath, faults: &mut Faults) -> Option<T>
where
    T: for<'de> Deserialize<'de>,
{
    let mut aside = HashSet::new();
    node.each(at, &|it| matches!(it.kind, Kind::Unset), &mut |path| faults.set_aside(path));
    loop {
        let error = match T::deserialize(Reader { node, at: At::Root(at), aside: &aside }) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let Error { path, culprit, message, help, missing } = error;
        let path = path.unwrap_or_else(|| at.clone());
        // A key that was set aside is missing only for that reason.
        if !(missing && faults.lacks(&path)) {
            faults.push(Fault { severity: Severity::Error, path, message, help });
        }
        let culprit = culprit.filter(|id| *id != node.id && aside.insert(*id))?;
        if aside.len() >= MAX_ERRORS {
            return None;
        }
        node.each(at, &|it| it.id == culprit, &mut |path| faults.set_aside(path));
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) node: &'a Node,
    pub(super) at: At<'a>,
    pub(super) aside: &'a HashSet<u32>,
}

impl<'a> Reader<'a> {
    fn fail(&self, expected: &str) -> Error {
        let found = match &self.node.kind {
            _ if self.node.is_null() => "nothing".to_owned(),
            Kind::Scalar { text, .. } => format!("`{text}`"),
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
            Kind::Unset => "what is not set".to_owned(),
        };
        Error::new(format!("expected {expected}, found {found}")).at(self.at, self.node.id)
    }

    fn scalar(&self, expected: &str) -> Result<&'a str, Error> {
        match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_null() => Ok(text),
            _ => Err(self.fail(expected)),
        }
    }

    fn number<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Error> {
        // What YAML calls them, and Rust does not.
        let text = match self.scalar(expected)? {
            ".nan" | ".NaN" | ".NAN" => "NaN",
            ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => "inf",
            "-.inf" | "-.Inf" | "-.INF" => "-inf",
            text => text,
        };
        text.parse().map_err(|_| self.fail(expected))
    }

    fn bool(&self) -> Result<bool, Error> {
        const EXPECTED: &str = "true or false";
        match self.scalar(EXPECTED)?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err(self.fail(EXPECTED)),
        }
    }

    fn fields(&self, known: &'static [&'static str]) -> Fields<'a> {
        let entries: &[Entry] = match &self.node.kind {
            Kind::Mapping(entries) => entries,
            _ => &[],
        };
        Fields { reader: *self, left: entries.iter(), known, value: None }
    }

    fn placed<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.at(self.at, self.node.id))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $expected:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.number($expected)?;
            self.placed(visitor.$visit(number))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.kind {
            _ if self.node.is_null() => self.deserialize_unit(visitor),
            Kind::Sequence(_) => self.deserialize_seq(visitor),
            Kind::Mapping(_) => self.deserialize_map(visitor),
            Kind::Unset => Err(self.fail("a value")),
            Kind::Scalar { text, plain: false } => self.placed(visitor.visit_str(text)),
            Kind::Scalar { text, .. } => self.placed(match &**text {
                "true" | "True" | "TRUE" => visitor.visit_bool(true),
                "false" | "False" | "FALSE" => visitor.visit_bool(false),
                text => match (text.parse::<u64>(), text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(number), ..) => visitor.visit_u64(number),
                    (_, Ok(number), _) => visitor.visit_i64(number),
                    (.., Ok(number)) if text.contains(|c: char| c.is_ascii_digit()) => {
                        visitor.visit_f64(number)
                    }
                    _ => visitor.visit_str(text),
                },
            }),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = self.bool()?;
        self.placed(visitor.visit_bool(value))
    }

    numbers! {
        deserialize_i8 visit_i8 "a whole number from -128 to 127"
        deserialize_i16 visit_i16 "a whole number from -32768 to 32767"
        deserialize_i32 visit_i32 "a whole number"
        deserialize_i64 visit_i64 "a whole number"
        deserialize_u8 visit_u8 "a whole number from 0 to 255"
        deserialize_u16 visit_u16 "a whole number from 0 to 65535"
        deserialize_u32 visit_u32 "a whole number, not negative"
        deserialize_u64 visit_u64 "a whole number, not negative"
        deserialize_f32 visit_f32 "a number"
        deserialize_f64 visit_f64 "a number"
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.scalar("a text")?;
        self.placed(visitor.visit_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() {
            self.placed(visitor.visit_unit())
        } else {
            Err(self.fail("nothing"))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let placed = self;
        placed.placed(visitor.visit_newtype_struct(self))
    }

    /// A key with nothing behind it is an empty list: `grayIPList:`.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let elements: &[Node] = match &self.node.kind {
            Kind::Sequence(elements) => elements,
            _ if self.node.is_null() => &[],
            _ => return Err(self.fail("a list")),
        };
        let elements = Elements { reader: self, elements: elements.iter().enumerate() };
        self.placed(visitor.visit_seq(elements))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !matches!(self.node.kind, Kind::Mapping(_)) && !self.node.is_null() {
            return Err(self.fail("a mapping"));
        }
        self.placed(visitor.visit_map(self.fields(fields)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_null() => (&**text, None),
            Kind::Mapping(entries) => {
                if let [entry] = entries.as_slice() {
                    (&*entry.key, Some(&entry.value))
                } else {
                    let expected = format!("exactly one of the keys {}", variants.join(", "));
                    return Err(Error::new(expected).at(self.at, self.node.id));
                }
            }
            _ => return Err(self.fail(&format!("one of {}", variants.join(", ")))),
        };
        let (word, value) = variant;
        self.placed(visitor.visit_enum(Choice { reader: self, word, value }))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Gateway {
        name: String,
        port: u16,
        enabled: bool,
        tags: Vec<String>,
        kind: Option<Shape>,
        parts: Vec<Part>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase")]
    enum Shape {
        Round,
        Square { side: u32 },
        Other(String),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Part {
        id: u8,
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let mut faults = Faults::default();
        let tree = parse(text).unwrap();
        let value: Option<Gateway> = read(&tree, &KeyPath::ROOT, &mut faults);
        assert!(value.is_some());
        let found: Vec<_> =
            faults.iter().map(|fault| (fault.path.to_string(), fault.message.clone())).collect();
        let found: Vec<_> =
            found.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn keeps_a_scalar_as_it_was_written() {
        let mut faults = Faults::default();
        let text = "{name: 1.10, port: 80, enabled: on, tags: , kind: {square: {side: 2}}}";
        let tree = parse(text);
        let value = read(&tree.unwrap(), &KeyPath::ROOT, &mut faults);
        let expected = Gateway {
            name: "1.10".into(),
            port: 80,
            enabled: true,
            kind: Some(Shape::Square { side: 2 }),
            ..Gateway::default()
        };
        assert_eq!(value, Some(expected));
        check("kind: round", &[]);
        check("kind: {other: text}", &[]);
    }

    #[test]
    fn reports_all_errors_at_once() {
        check(
            "nmae: x\nport: 70000\nenabled: maybe\nparts:\n- {id: 1}\n- {id: 300}\n- {}\n- {ix: 1, id: 2}\n",
            &[
                ("nmae", "unknown key `nmae`"),
                ("port", "expected a whole number from 0 to 65535, found `70000`"),
                ("enabled", "expected true or false, found `maybe`"),
                ("parts[1].id", "expected a whole number from 0 to 255, found `300`"),
                ("parts[2]", "the key `id` is missing"),
                ("parts[3].ix", "unknown key `ix`"),
            ],
        );
    }

    /// Elements that were set aside once moved others to their lines, and hid all that was found later.
    #[test]
    fn what_is_found_later_stands_where_it_was_written() {
        #[derive(Deserialize)]
        struct Lists {
            parts: Vec<Part>,
            shapes: Vec<Shape>,
        }
        let mut faults = Faults::default();
        let text =
            "parts: [{id: 300}, {id: 1}, {x: {y: 1}}, {id: 2}]\nshapes: [{squar: 1}, round]\n";
        let tree = parse(text).unwrap();
        let lists: Lists = read(&tree, &KeyPath::ROOT, &mut faults).unwrap();
        assert_eq!(lists.parts, [Part { id: 1 }, Part { id: 2 }]);
        assert_eq!(lists.shapes, [Shape::Round]);
        let (parts, shapes) = (KeyPath::ROOT.key("parts"), KeyPath::ROOT.key("shapes"));
        faults.error(&parts.index(0).key("id"), "odd");
        faults.error(&parts.index(1), "even");
        faults.error(&shapes.index(0), "round");
        // What lacks a part may be as it should be.
        faults.error(&parts, "too short");
        let found: Vec<_> = faults.iter().map(|it| it.path.to_string()).collect();
        let expected = [
            "parts[0].id",
            "parts[2].x",
            "shapes[0].squar",
            "parts[1].id",
            "parts[3]",
            "shapes[1]",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn names_the_word_of_an_enum() {
        check("kind: rond", &[("kind", "unknown word `rond`")]);
        check("kind: {squar: 1}", &[("kind.squar", "unknown word `squar`")]);
        check("kind: square", &[("kind", "`square` needs a value")]);
        check("kind: {round: 1}", &[("kind", "`round` takes no value")]);
        check("tags: x", &[("tags", "expected a list, found `x`")]);
    }

    #[test]
    fn suggests_what_was_meant() {
        let mut faults = Faults::default();
        let tree = parse("enabeld: true").unwrap();
        let _: Option<Gateway> = read(&tree, &KeyPath::ROOT, &mut faults);
        let help = faults.iter().next().and_then(|fault| fault.help.clone());
        assert_eq!(help.as_deref(), Some("did you mean `enabled`?"));
    }
}
