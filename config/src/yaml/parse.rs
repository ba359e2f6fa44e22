use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::node::{Entry, Kind, Node, Origin};

/// How many values a document may have after its aliases are expanded.
const MAX_NODES: u32 = 4_000_000;

/// How many mappings: some eight thousand rules with their conditions, and a document of more is refused
/// while it is still being read. Long lists are lists of words, which are cheap.
const MAX_MAPPINGS: u32 = 30_000;

/// Up to how many keys a mapping's are looked through rather than looked up.
const FEW_KEYS: usize = 16;

/// How many values aliases may add: a bomb is stopped long before memory is.
const MAX_ALIASED: u32 = 100_000;

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) origin: Origin,
    pub(crate) message: String,
}

/// How many keys that stand a second time are told of.
const MAX_TWICE: usize = 25;

/// Builds the tree of a text with one YAML document; an empty one is an empty mapping.
pub(crate) fn parse(text: &str) -> Result<Node, Syntax> {
    let mut twice = Vec::new();
    let tree = parse_noting(text, &mut twice)?;
    twice.into_iter().next().map_or(Ok(tree), Err)
}

/// As [`parse`], but of a key that stands there twice the first value is taken, and the second one noted.
pub(crate) fn parse_noting(text: &str, twice: &mut Vec<Syntax>) -> Result<Node, Syntax> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| scan_error(&error))?;
        builder.accept(event, &span)?;
    }
    let start = Origin::Text { line: 1, column: 1 };
    twice.append(&mut builder.twice);
    Ok(builder.root.unwrap_or(Node { id: 0, origin: start, kind: Kind::Mapping(Vec::new()) }))
}

fn scan_error(error: &ScanError) -> Syntax {
    let marker = error.marker();
    let origin = Origin::Text { line: marker.line(), column: marker.col() + 1 };
    Syntax { origin, message: error.info() }
}

fn origin(span: &Span) -> Origin {
    Origin::Text { line: span.start.line(), column: span.start.col() + 1 }
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    twice: Vec<Syntax>,
    nodes: u32,
    mappings: u32,
    aliased: u32,
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    origin: Origin,
    id: u32,
    parts: Parts,
}

enum Parts {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        /// All keys, where there are many.
        keys: HashSet<Box<str>>,
        key: Option<Key>,
    },
}

/// A key whose value has not come yet.
struct Key {
    text: Box<str>,
    origin: Origin,
    /// The mapping has it already.
    is_twice: bool,
}

impl Builder {
    fn accept(&mut self, event: Event<'_>, span: &Span) -> Result<(), Syntax> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let kind = Kind::Scalar { text: text.into(), plain: style == ScalarStyle::Plain };
                let node = Node { id: self.next_id(span)?, origin: origin(span), kind };
                self.complete(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.start(anchor, span, Parts::Sequence(Vec::new()))
            }
            Event::MappingStart(_, anchor, _) => {
                self.mappings += 1;
                if self.mappings > MAX_MAPPINGS {
                    let message = format!("the document has more than {MAX_MAPPINGS} mappings");
                    return Err(Syntax { origin: origin(span), message });
                }
                self.start(anchor, span, Parts::mapping())
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::DocumentStart(..) if self.root.is_some() => Err(Syntax {
                origin: origin(span),
                message: "a second document begins here, only one is allowed".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn next_id(&mut self, span: &Span) -> Result<u32, Syntax> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values");
            return Err(Syntax { origin: origin(span), message });
        }
        Ok(self.nodes)
    }

    fn start(&mut self, anchor: usize, span: &Span, parts: Parts) -> Result<(), Syntax> {
        let id = self.next_id(span)?;
        self.open.push(Open { anchor, origin: origin(span), id, parts });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Syntax> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let kind = match open.parts {
            Parts::Sequence(elements) => Kind::Sequence(elements),
            Parts::Mapping { entries, .. } => Kind::Mapping(entries),
        };
        self.complete(Node { id: open.id, origin: open.origin, kind }, open.anchor)
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<(), Syntax> {
        let refuse = |message: &str| Syntax { origin: origin(span), message: message.to_owned() };
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(refuse("the alias stands inside what it names"));
        };
        self.aliased += size(target);
        if self.aliased > MAX_ALIASED {
            return Err(refuse("aliases expand to too many values"));
        }
        let mut node = target.clone();
        self.renumber(&mut node, span)?;
        node.origin = origin(span);
        self.complete(node, 0)
    }

    /// Gives copied nodes numbers of their own, since a number stands for one place.
    fn renumber(&mut self, node: &mut Node, span: &Span) -> Result<(), Syntax> {
        node.id = self.next_id(span)?;
        match &mut node.kind {
            Kind::Scalar { .. } | Kind::Unset => Ok(()),
            Kind::Sequence(elements) => {
                elements.iter_mut().try_for_each(|element| self.renumber(element, span))
            }
            Kind::Mapping(entries) => {
                entries.iter_mut().try_for_each(|entry| self.renumber(&mut entry.value, span))
            }
        }
    }

    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), Syntax> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { parts, .. }) => {
                if let Some(twice) = parts.add(node)? {
                    self.twice.push(twice);
                }
                if self.twice.len() > MAX_TWICE {
                    return Err(self.twice.swap_remove(0));
                }
            }
        }
        Ok(())
    }
}

impl Parts {
    fn mapping() -> Self {
        Self::Mapping { entries: Vec::new(), keys: HashSet::new(), key: None }
    }

    /// Adds a part; returns what to say of a key that is there already.
    fn add(&mut self, node: Node) -> Result<Option<Syntax>, Syntax> {
        match self {
            Self::Sequence(elements) => elements.push(node),
            Self::Mapping { entries, key: key @ Some(_), .. } => {
                if let Some(Key { text, origin, .. }) = key.take().filter(|it| !it.is_twice) {
                    entries.push(Entry { key: text, origin, value: node });
                }
            }
            Self::Mapping { entries, keys, key } => {
                let Kind::Scalar { text, .. } = node.kind else {
                    let message = "a key must be a plain word, not a list or mapping".to_owned();
                    return Err(Syntax { origin: node.origin, message });
                };
                if entries.len() == FEW_KEYS {
                    keys.extend(entries.iter().map(|entry| entry.key.clone()));
                }
                let is_twice = if entries.len() < FEW_KEYS {
                    entries.iter().any(|entry| entry.key == text)
                } else {
                    !keys.insert(text.clone())
                };
                let origin = node.origin;
                let said = is_twice.then(|| {
                    let message = format!("the key `{text}` stands here a second time");
                    Syntax { origin: origin.clone(), message }
                });
                *key = Some(Key { text, origin, is_twice });
                return Ok(said);
            }
        }
        Ok(None)
    }
}

fn size(node: &Node) -> u32 {
    match &node.kind {
        Kind::Scalar { .. } | Kind::Unset => 1,
        Kind::Sequence(elements) => elements.iter().map(size).fold(1, u32::saturating_add),
        Kind::Mapping(entries) => {
            entries.iter().map(|entry| size(&entry.value)).fold(1, u32::saturating_add)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, line: usize, column: usize, message: &str) {
        let error = parse(text).unwrap_err();
        assert_eq!(error.origin, Origin::Text { line, column }, "{}", error.message);
        assert!(error.message.contains(message), "{}", error.message);
    }

    #[test]
    fn names_the_place_of_what_it_refuses() {
        check("a: 1\na: 2\n", 2, 1, "second time");
        check("a: 1\n---\nb: 2\n", 2, 1, "second document");
        check("[a]: 1\n", 1, 1, "plain word");
        check("a: &x [*x]\n", 1, 8, "inside what it names");
        check("a: 'open\n", 2, 1, "");
    }

    #[test]
    fn stops_an_alias_bomb() {
        let bomb = (1..10).fold(
            String::from(
                "a0: &a0 [x]
",
            ),
            |text, level| {
                let below = vec![format!("*a{}", level - 1); 10].join(", ");
                format!(
                    "{text}a{level}: &a{level} [{below}]
"
                )
            },
        );
        let error = parse(&bomb).unwrap_err();
        assert!(error.message.contains("too many values"), "{}", error.message);
    }

    #[test]
    fn a_key_that_stands_twice_is_found_among_few_and_many() {
        for count in [1, FEW_KEYS - 1, FEW_KEYS, FEW_KEYS + 1, 3 * FEW_KEYS] {
            let keys = (0..count).fold(String::new(), |keys, key| keys + &format!("k{key}: 1\n"));
            assert!(parse(&keys).is_ok(), "{count}");
            for twice in [0, count / 2, count - 1] {
                check(&format!("{keys}k{twice}: 1\n"), count + 1, 1, "second time");
            }
        }
    }

    #[test]
    fn refuses_more_mappings_than_anyone_writes() {
        let many = "- {a: 1}\n".repeat(100_000);
        assert!(parse(&many).unwrap_err().message.contains("more than 30000 mappings"));
        assert!(parse(&"- a\n".repeat(100_000)).is_ok());
    }

    #[test]
    fn refuses_depth_instead_of_overflowing_the_stack() {
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"- ".repeat(10_000)).is_err());
    }
}
