use super::node::{Entry, Kind, Node};

/// How deep mappings may become.
const MAX_DEPTH: usize = 64;

use super::parse::Syntax;

/// Turns keys with dots into mappings, as Spring reads them: `a.b: 1` is `a: {b: 1}`.
///
/// Only keys of the document itself for which `wanted` holds are taken apart, and everything below
/// them; the rest of the document may use dots otherwise.
pub(crate) fn nest(tree: &mut Node, wanted: &dyn Fn(&str) -> bool) -> Result<(), Syntax> {
    let Kind::Mapping(entries) = &mut tree.kind else { return Ok(()) };
    let mut nested = Vec::new();
    for entry in std::mem::take(entries) {
        if wanted(&entry.key) {
            add(&mut nested, entry, 0)?;
        } else {
            nested.push(entry);
        }
    }
    *entries = nested;
    Ok(())
}

/// Adds an entry, below those of its key's first words that are there already.
fn add(entries: &mut Vec<Entry>, mut entry: Entry, depth: usize) -> Result<(), Syntax> {
    if depth > MAX_DEPTH {
        let message = "mappings stand too deep within each other".to_owned();
        return Err(Syntax { origin: entry.origin, message });
    }
    if let Some((first, rest)) = entry.key.split_once('.') {
        let (first, rest) = (first.into(), rest.into());
        let origin = entry.origin.clone();
        let inner = Entry { key: rest, ..entry };
        let id = inner.value.id;
        let value = Node { id, origin: origin.clone(), kind: Kind::Mapping(vec![inner]) };
        entry = Entry { key: first, origin, value };
    }
    if let Kind::Mapping(children) = &mut entry.value.kind {
        let mut nested = Vec::new();
        for child in std::mem::take(children) {
            add(&mut nested, child, depth + 1)?;
        }
        *children = nested;
    }
    let Some(known) = entries.iter_mut().find(|known| known.key == entry.key) else {
        entries.push(entry);
        return Ok(());
    };
    if let (Kind::Mapping(into), Kind::Mapping(children)) =
        (&mut known.value.kind, entry.value.kind)
    {
        children.into_iter().try_for_each(|child| add(into, child, depth + 1))
    } else {
        let message = format!("the key `{}` stands here a second time", known.key);
        Err(Syntax { origin: entry.origin, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    fn nested(text: &str) -> Result<Node, Syntax> {
        let mut tree = parse(text)?;
        nest(&mut tree, &|key| key.starts_with('a')).map(|()| tree)
    }

    #[track_caller]
    fn check(text: &str, path: &str, expected: Option<&str>) {
        let tree = nested(text).unwrap();
        let path = crate::KeyPath::ROOT.dotted(path);
        let found = tree.find(&path).and_then(|node| match &node.kind {
            Kind::Scalar { text, .. } => Some(&**text),
            _ => None,
        });
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn dots_are_mappings() {
        check("a.b.c: 1", "a.b.c", Some("1"));
        check("a.b: {c.d: 1}\na: {b: {e: 2}}", "a.b.c.d", Some("1"));
        check("a.b: {c.d: 1}\na: {b: {e: 2}}", "a.b.e", Some("2"));
        check("x.b: 1", "x.b", None);
        assert!(nested("a.b: 1\na: {b: 2}").is_err());
        assert!(nested(&format!("? {}\n: 1", "a.".repeat(100_000))).is_err());
    }
}
