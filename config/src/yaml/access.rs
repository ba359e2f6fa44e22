//! The parts of lists, mappings and enums, as serde asks for them.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::error::{At, Error};
use super::node::{Entry, Node, Origin};
use super::read::Reader;
use crate::suggest::fold;

/// The elements of a list that are not set aside.
pub(super) struct Elements<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) elements: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let aside = self.reader.aside;
        let next = self.elements.find(|(_, node)| !node.is_aside(aside));
        let Some((index, node)) = next else { return Ok(None) };
        let at = At::Index(&self.reader.at, index);
        let value = seed.deserialize(Reader { node, at, aside });
        value.map(Some).map_err(|error| error.at(at, node.id))
    }
}

/// The entries of a mapping that are not set aside.
pub(super) struct Fields<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) left: std::slice::Iter<'a, Entry>,
    pub(super) known: &'static [&'static str],
    pub(super) value: Option<&'a Entry>,
}

impl Fields<'_> {
    /// An override's key may be written in capitals: `TRUSTED_PROXIES` is `trustedProxies`.
    fn canonical<'k>(&self, entry: &'k Entry) -> &'k str {
        if matches!(entry.origin, Origin::Text { .. }) {
            return &entry.key;
        }
        let plain = fold(&entry.key);
        let field = self.known.iter().find(|field| fold(field) == plain);
        field.copied().unwrap_or(&entry.key)
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let aside = self.reader.aside;
        let next = self.left.find(|entry| !entry.value.is_aside(aside));
        let Some(entry) = next else { return Ok(None) };
        self.value = Some(entry);
        let key: StrDeserializer<'_, Error> = self.canonical(entry).into_deserializer();
        let at = At::Key(&self.reader.at, &entry.key);
        seed.deserialize(key).map(Some).map_err(|error| error.at(at, entry.value.id))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let entry = self.value.take().ok_or_else(|| Error::new("value before key".to_owned()))?;
        let at = At::Key(&self.reader.at, &entry.key);
        let reader = Reader { node: &entry.value, at, aside: self.reader.aside };
        seed.deserialize(reader).map_err(|error| error.at(at, entry.value.id))
    }
}

/// The word of an enum, and its value.
pub(super) struct Choice<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) word: &'a str,
    pub(super) value: Option<&'a Node>,
}

impl<'a> Choice<'a> {
    fn inner(&self, at: At<'a>) -> Result<Reader<'a>, Error> {
        let node = self.value.ok_or_else(|| {
            let message = format!("`{}` needs a value", self.word);
            Error::new(message).at(self.reader.at, self.reader.node.id)
        })?;
        Ok(Reader { node, at, aside: self.reader.aside })
    }
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let word: StrDeserializer<'_, Error> = self.word.into_deserializer();
        let at = At::Key(&self.reader.at, self.word);
        let at = if self.value.is_some() { at } else { self.reader.at };
        let variant = seed.deserialize(word);
        variant.map_err(|error| error.at(at, self.reader.node.id)).map(|variant| (variant, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.value {
            Some(node) if !node.is_null() => {
                let message = format!("`{}` takes no value", self.word);
                Err(Error::new(message).at(self.reader.at, self.reader.node.id))
            }
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.inner(At::Key(&self.reader.at, self.word))?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.inner(At::Key(&self.reader.at, self.word))?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.inner(At::Key(&self.reader.at, self.word))?.deserialize_struct("", fields, visitor)
    }
}
