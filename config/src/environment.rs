use std::sync::Arc;

use crate::suggest::fold;
use crate::yaml::{self, Entry, Kind, Node, Origin};

/// A value that a flag or environment variable puts over that of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The keys and list positions down to the value, in any spelling.
    pub path: Vec<String>,
    /// The value, as YAML.
    pub value: String,
    /// What to name in an error: `environment variable GRAYLANE__ADMIN__ADDRESS`.
    pub origin: Arc<str>,
}

/// Returns the overrides among environment variables: `<PREFIX>__ADMIN__ADDRESS` is
/// `admin.address`, `<PREFIX>__LISTENERS__0__ADDRESS` the first listener's address.
pub fn overrides_from(
    prefix: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<Override> {
    let mut found: Vec<Override> = variables
        .into_iter()
        .filter_map(|(name, value)| {
            let keys = name.strip_prefix(prefix)?.strip_prefix("__")?;
            let path = keys.split("__").map(str::to_owned).collect();
            let origin = format!("environment variable {name}").into();
            Some(Override { path, value, origin })
        })
        .collect();
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

impl Override {
    /// Sets the value in a tree, making the mappings on the way.
    pub(crate) fn apply(&self, tree: &mut Node) -> Result<(), String> {
        let origin = Origin::Override(Arc::clone(&self.origin));
        let mut value = if self.value.trim().is_empty() {
            Node { id: 0, origin: origin.clone(), kind: text("") }
        } else {
            yaml::parse(&self.value).map_err(|error| error.message)?
        };
        yaml::mark(&mut value, &origin);
        let mut node = tree;
        for step in &self.path {
            node = descend(node, step, &origin)?;
        }
        node.kind = value.kind;
        node.origin = origin;
        Ok(())
    }
}

fn text(text: &str) -> Kind {
    Kind::Scalar { text: text.into(), plain: false }
}

fn descend<'a>(node: &'a mut Node, step: &str, origin: &Origin) -> Result<&'a mut Node, String> {
    let fresh = || Node { id: u32::MAX, origin: origin.clone(), kind: Kind::Mapping(Vec::new()) };
    match &mut node.kind {
        Kind::Sequence(elements) => {
            let index: usize = step.parse().map_err(|_| format!("`{step}` is no list position"))?;
            if index == elements.len() {
                elements.push(fresh());
            }
            let length = elements.len();
            elements.get_mut(index).ok_or(format!("the list has only {length} elements"))
        }
        kind => {
            if !matches!(kind, Kind::Mapping(_)) {
                *kind = match step.parse::<usize>() {
                    Ok(_) => return Err(format!("there is no list in which `{step}` could stand")),
                    Err(_) => Kind::Mapping(Vec::new()),
                };
            }
            let Kind::Mapping(entries) = kind else { return Err("no mapping".to_owned()) };
            let plain = fold(step);
            let known = entries.iter().position(|entry| fold(&entry.key) == plain);
            let position = known.unwrap_or_else(|| {
                entries.push(Entry { key: step.into(), origin: origin.clone(), value: fresh() });
                entries.len() - 1
            });
            let entry = entries.get_mut(position);
            entry.map(|entry| &mut entry.value).ok_or_else(|| format!("no entry `{step}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{Document, Faults, KeyPath};

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Root {
        admin: Admin,
        trusted_proxies: Vec<String>,
        listeners: Vec<Admin>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Admin {
        address: String,
    }

    fn overridden(variables: &[(&str, &str)]) -> (Option<Root>, String) {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let text = "admin: {address: a}\nlisteners: [{address: l}]";
        let document = Document::parse("f", text).unwrap();
        let document = document.override_with(&overrides_from("GRAYLANE", variables)).unwrap();
        let mut faults = Faults::default();
        let value = document.read(&KeyPath::ROOT, &mut faults);
        (value, document.problems(&faults).to_string())
    }

    #[test]
    fn a_variable_wins_over_the_file() {
        let (root, _) = overridden(&[
            ("GRAYLANE__ADMIN__ADDRESS", "b"),
            ("GRAYLANE__TRUSTED_PROXIES", "[10.0.0.0/8]"),
            ("GRAYLANE__LISTENERS__0__ADDRESS", "m"),
            ("GRAYLANE_OTHER", "x"),
        ]);
        let expected = Root {
            admin: Admin { address: "b".into() },
            trusted_proxies: vec!["10.0.0.0/8".into()],
            listeners: vec![Admin { address: "m".into() }],
        };
        assert_eq!(root, Some(expected));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let (root, problems) = overridden(&[("GRAYLANE__ADMIN__ADRESS", "b")]);
        assert!(root.is_some());
        assert!(problems.contains("environment variable GRAYLANE__ADMIN__ADRESS"), "{problems}");
        assert!(problems.contains("did you mean `address`?"), "{problems}");
    }
}
