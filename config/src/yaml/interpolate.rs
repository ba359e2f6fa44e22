use super::node::{Kind, Node, Origin};
use super::parse::Syntax;

/// Replaces `${NAME}` and `${NAME:default}` in every scalar; `$${` stands for `${` itself.
///
/// It works on parsed values, so a variable's value can never add structure to the document.
/// A name without a value and without a default is an error. A key whose whole value expands to
/// nothing is as good as not written: `namespace: ${NAMESPACE:}`.
pub(crate) fn interpolate(
    node: &mut Node,
    lookup: &dyn Fn(&str) -> Option<String>,
    errors: &mut Vec<Syntax>,
) {
    match &mut node.kind {
        Kind::Scalar { text, .. } if text.contains("${") => match expand(text, lookup) {
            Ok(expanded) => *text = expanded.into(),
            Err(message) => {
                errors.push(Syntax { origin: node.origin.clone(), message });
                node.kind = Kind::Unset;
            }
        },
        Kind::Scalar { .. } | Kind::Unset => {}
        Kind::Sequence(elements) => {
            for element in elements {
                interpolate(element, lookup, errors);
            }
        }
        Kind::Mapping(entries) => {
            entries.retain_mut(|entry| {
                let written = !entry.value.is_null();
                interpolate(&mut entry.value, lookup, errors);
                !(written && is_empty(&entry.value))
            });
        }
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar { text, plain: true } if text.is_empty())
}

fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            expanded.push_str(escaped);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let (name, tail) = after.split_once('}').ok_or("`${` without its `}`")?;
        let (name, default) = match name.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (name, None),
        };
        let value = lookup(name).or_else(|| default.map(str::to_owned));
        expanded.push_str(&value.ok_or_else(|| {
            format!("the environment variable {name} is not set; write ${{{name}:default}}")
        })?);
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Marks a node as given by a flag or variable, all the way down.
pub(crate) fn mark(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.kind {
        Kind::Scalar { .. } | Kind::Unset => {}
        Kind::Sequence(elements) => elements.iter_mut().for_each(|element| mark(element, origin)),
        Kind::Mapping(entries) => {
            for entry in entries {
                entry.origin = origin.clone();
                mark(&mut entry.value, origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let lookup = |name: &str| (name == "PORT").then(|| "80".to_owned());
        let actual = expand(text, &lookup);
        match expected {
            Ok(expected) => assert_eq!(actual.as_deref(), Ok(expected)),
            Err(part) => assert!(actual.unwrap_err().contains(part)),
        }
    }

    #[test]
    fn replaces_names_by_their_values() {
        check("a${PORT}b${PORT}", Ok("a80b80"));
        check("${PORT:90}", Ok("80"));
        check("${NO:90}", Ok("90"));
        check("${NO:}", Ok(""));
        check("${NO:a:b}", Ok("a:b"));
        check("$${PORT}", Ok("${PORT}"));
        check("${NO}", Err("NO is not set"));
        check("${PORT", Err("without its"));
    }

    #[test]
    fn a_key_that_expands_to_nothing_is_as_good_as_not_written() {
        let text = "a: ${NO:}\nb: '${NO:}'\nc: x${NO:}\nd:\ne: [\"${NO:}\"]";
        let mut tree = super::super::parse(text).unwrap();
        let mut errors = Vec::new();
        interpolate(&mut tree, &|_| None, &mut errors);
        assert!(errors.is_empty());
        let Kind::Mapping(entries) = &tree.kind else { panic!("no mapping") };
        let keys: Vec<&str> = entries.iter().map(|entry| &*entry.key).collect();
        assert_eq!(keys, ["b", "c", "d", "e"]);
    }
}
