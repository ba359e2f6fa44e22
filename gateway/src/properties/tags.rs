use std::path::PathBuf;

use gray_config::{Faults, KeyPath};
use gray_propagation::{TagKey, TagKeys};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A key whose signed tags are believed, as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TagKeyProperties {
    /// Its id, by which tags name it.
    pub id: String,
    /// The secret, at least 32 bytes.
    #[serde(skip_serializing)]
    pub secret: String,
    /// A file that holds the secret instead; a line break at its end is not part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}

impl TagKeyProperties {
    fn open(&self) -> Result<TagKey, (&'static str, String)> {
        let secret = match &self.secret_file {
            None => self.secret.clone().into_bytes(),
            Some(path) if self.secret.is_empty() => {
                let read = std::fs::read(path);
                let text = read.map_err(|error| {
                    ("secretFile", format!("{} cannot be read: {error}", path.display()))
                })?;
                text.trim_ascii_end().to_owned()
            }
            Some(_) => {
                return Err(("secretFile", "give either the secret or a file with it".to_owned()));
            }
        };
        let key = if self.secret_file.is_some() { "secretFile" } else { "secret" };
        TagKey::new(&self.id, &secret).map_err(|error| (key, error.to_string()))
    }
}

/// Opens the keys, noting what is wrong with them.
pub(crate) fn tag_keys(keys: &[TagKeyProperties], at: &KeyPath, faults: &mut Faults) -> TagKeys {
    let mut opened = Vec::new();
    for (index, properties) in keys.iter().enumerate() {
        match properties.open() {
            Ok(key) => opened.push(key),
            Err((key, message)) => faults.error(&at.index(index).key(key), message),
        }
    }
    opened.into_iter().collect()
}
