use std::sync::Arc;

use regex::bytes::Regex;

use crate::names::NameSet;
use crate::share::Share;

/// What is asked of a text.
///
/// A text that is absent is not equal to anything and not in any list: `NotEqual` and `NotIn` hold
/// for it, everything else but `Exists(false)` does not.
#[derive(Clone, Debug)]
pub(crate) enum Operator {
    Equal(Box<[u8]>),
    NotEqual(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    In(Arc<NameSet>),
    NotIn(Arc<NameSet>),
    Regex(Regex),
    Exists(bool),
    Percentage(Share),
}

/// An operator, and whether ASCII case matters to it.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(crate) operator: Operator,
    /// Where set, the operator's own texts are in lower case.
    pub(crate) ignore_case: bool,
}

impl Test {
    /// Tells whether the test holds for a text.
    pub(crate) fn holds(&self, text: Option<&[u8]>) -> bool {
        match text.filter(|text| self.ignore_case && text.iter().any(u8::is_ascii_uppercase)) {
            Some(mixed) => self.operator.holds(Some(&mixed.to_ascii_lowercase())),
            None => self.operator.holds(text),
        }
    }
}

impl Operator {
    fn holds(&self, text: Option<&[u8]>) -> bool {
        let Some(text) = text else {
            return matches!(self, Self::NotEqual(_) | Self::NotIn(_) | Self::Exists(false));
        };
        match self {
            Self::Equal(expected) => text == &**expected,
            Self::NotEqual(expected) => text != &**expected,
            Self::Prefix(prefix) => text.starts_with(prefix),
            Self::Suffix(suffix) => text.ends_with(suffix),
            Self::Contains(part) => {
                part.is_empty() || text.windows(part.len()).any(|window| window == &**part)
            }
            Self::In(names) => names.contains(text),
            Self::NotIn(names) => !names.contains(text),
            Self::Regex(pattern) => pattern.is_match(text),
            Self::Exists(expected) => *expected,
            Self::Percentage(share) => share.holds(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(operator: Operator, hits: &[&str], misses: &[&str], absent: bool) {
        let test = Test { operator, ignore_case: false };
        for hit in hits {
            assert!(test.holds(Some(hit.as_bytes())), "{test:?} {hit}");
        }
        for miss in misses {
            assert!(!test.holds(Some(miss.as_bytes())), "{test:?} {miss}");
        }
        assert_eq!(test.holds(None), absent, "{test:?}");
    }

    fn bytes(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn each_holds_for_what_it_says() {
        let names = Arc::new(["a", "b"].into_iter().collect::<NameSet>());
        check(Operator::Equal(bytes("ab")), &["ab"], &["a", "AB", ""], false);
        check(Operator::NotEqual(bytes("ab")), &["a", ""], &["ab"], true);
        check(Operator::Prefix(bytes("ab")), &["ab", "abc"], &["a", "xab"], false);
        check(Operator::Suffix(bytes("ab")), &["ab", "xab"], &["abx"], false);
        check(Operator::Contains(bytes("ab")), &["ab", "xabx"], &["axb"], false);
        check(Operator::Contains(bytes("")), &["", "x"], &[], false);
        check(Operator::In(Arc::clone(&names)), &["a", "b"], &["ab", ""], false);
        check(Operator::NotIn(names), &["ab", ""], &["a"], true);
        check(Operator::Regex(Regex::new("^a+$").unwrap()), &["a", "aa"], &["b"], false);
        check(Operator::Exists(true), &["", "a"], &[], false);
        check(Operator::Exists(false), &[], &["", "a"], true);
    }

    #[test]
    fn case_can_be_ignored() {
        let test = Test { operator: Operator::Prefix(bytes("ab")), ignore_case: true };
        assert!(test.holds(Some(b"ABC")));
    }
}
