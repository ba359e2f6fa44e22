//! Which condition holds wherever another one does: what keeps a rule from ever being reached.

use crate::CidrSet;
use crate::condition::{Condition, Key, Percentage};
use crate::operator::{Operator, Test};
use crate::share::Share;

/// The longest list whose entries are looked at one by one.
const LIST: usize = 1_000;

/// Compares conditions without any request, for as long as it takes a bounded number of steps.
///
/// What it says is so; what it does not say may be so all the same.
#[derive(Debug)]
pub(crate) struct Reasoning {
    steps: usize,
}

impl Reasoning {
    pub(crate) const fn new(steps: usize) -> Self {
        Self { steps }
    }

    /// Tells whether it has given up.
    pub(crate) const fn is_exhausted(&self) -> bool {
        self.steps == 0
    }

    /// Tells whether a list is compared with another: a long one would take what many rules need.
    fn affords(&mut self, length: usize) -> bool {
        length <= LIST && self.spend(1 + length / 16)
    }

    fn spend(&mut self, steps: usize) -> bool {
        self.steps = self.steps.saturating_sub(steps);
        !self.is_exhausted()
    }

    /// Tells whether `wide` holds for every request for which `narrow` does.
    pub(crate) fn implies(&mut self, narrow: &Condition, wide: &Condition) -> bool {
        use Condition as C;
        if !self.spend(1) {
            return false;
        }
        match (narrow, wide) {
            (C::Any(parts), _) => parts.iter().all(|part| self.implies(part, wide)),
            (_, C::All(parts)) => parts.iter().all(|part| self.implies(narrow, part)),
            (C::All(narrows), C::Any(wides)) => {
                wides.iter().any(|part| self.implies(narrow, part))
                    || narrows.iter().any(|part| self.implies(part, wide))
            }
            (C::All(parts), _) => parts.iter().any(|part| self.implies(part, wide)),
            (_, C::Any(parts)) => parts.iter().any(|part| self.implies(narrow, part)),
            (C::Not(narrow), C::Not(wide)) => self.implies(wide, narrow),
            _ => always(wide) || self.leaf(narrow, wide),
        }
    }

    /// Tells whether it holds for no request, since its parts contradict each other.
    pub(crate) fn never(&mut self, condition: &Condition) -> bool {
        match condition {
            Condition::Any(parts) => parts.iter().all(|part| self.never(part)),
            Condition::All(parts) => parts.iter().enumerate().any(|(index, part)| {
                let others = parts.iter().take(index);
                self.never(part) || others.into_iter().any(|other| self.contradict(part, other))
            }),
            _ => false,
        }
    }

    fn contradict(&mut self, one: &Condition, other: &Condition) -> bool {
        let (Condition::Text(source, one), Condition::Text(of, other)) = (one, other) else {
            return false;
        };
        if !self.spend(1) {
            return false;
        }
        source == of && (self.excludes(one, other) || self.excludes(other, one))
    }

    /// Tells whether a test allows some texts only, of which the other allows none.
    fn excludes(&mut self, few: &Test, other: &Test) -> bool {
        let fair = !few.ignore_case || other.ignore_case;
        fair && self.values(few).is_some_and(|values| {
            !values.is_empty() && !values.into_iter().any(|value| other.holds(Some(value)))
        })
    }

    /// Returns the only texts that a test holds for, in lower case where it ignores case.
    fn values<'a>(&mut self, test: &'a Test) -> Option<Vec<&'a [u8]>> {
        match &test.operator {
            Operator::Equal(only) => Some(vec![only]),
            Operator::In(names) => self.affords(names.len()).then(|| names.iter().collect()),
            _ => None,
        }
    }

    fn leaf(&mut self, narrow: &Condition, wide: &Condition) -> bool {
        use Condition as C;
        match (narrow, wide) {
            (C::Text(source, narrow), C::Text(of, wide)) if source == of => self.test(narrow, wide),
            (C::Client { set: narrow, inside }, C::Client { set: wide, inside: as_well })
                if inside == as_well =>
            {
                let (less, more) = if *inside { (narrow, wide) } else { (wide, narrow) };
                self.within(less, more)
            }
            (
                C::Place { level, names: narrow, inside },
                C::Place { level: of, names: wide, inside: as_well },
            ) if level == of && inside == as_well => {
                let (less, more) = if *inside { (narrow, wide) } else { (wide, narrow) };
                self.affords(less.len()) && less.iter().all(|name| more.contains(name))
            }
            (C::Place { level, inside: true, .. }, C::PlaceKnown { level: of, known: true }) => {
                level == of
            }
            (C::PlaceKnown { level, known }, C::PlaceKnown { level: of, known: as_well }) => {
                level == of && known == as_well
            }
            (C::ClientShare(narrow), C::ClientShare(wide)) => narrow.is_part_of(*wide),
            (C::Percentage(narrow), C::Percentage(wide)) => {
                let same = narrow.by == wide.by && narrow.share.is_part_of(wide.share);
                same && (wide.without_key || !narrow.without_key)
            }
            (C::Time(narrow), C::Time(wide)) => narrow == wide,
            _ => false,
        }
    }

    fn within(&mut self, less: &CidrSet, more: &CidrSet) -> bool {
        self.affords(less.len()) && less.is_within(more)
    }

    fn test(&mut self, narrow: &Test, wide: &Test) -> bool {
        use Operator as O;
        if matches!(wide.operator, Operator::Exists(true)) {
            return !narrow.holds(None);
        }
        // What one of them takes for equal, the other has to.
        if narrow.ignore_case && !wide.ignore_case {
            return false;
        }
        if let Some(values) = self.values(narrow) {
            return values.into_iter().all(|value| wide.holds(Some(value)));
        }
        let folded = |text: &[u8]| {
            if wide.ignore_case { text.to_ascii_lowercase() } else { text.to_vec() }
        };
        let same_case = narrow.ignore_case == wide.ignore_case;
        match (&narrow.operator, &wide.operator) {
            (O::Prefix(narrow), O::Prefix(wide)) => folded(narrow).starts_with(wide),
            (O::Suffix(narrow), O::Suffix(wide)) => folded(narrow).ends_with(wide),
            (O::Prefix(text) | O::Suffix(text) | O::Contains(text), O::Contains(_)) => {
                wide.holds(Some(text))
            }
            (O::NotEqual(narrow), O::NotEqual(wide)) => same_case && narrow == wide,
            (O::NotIn(names), O::NotEqual(text)) => same_case && names.contains(text),
            (O::NotIn(narrow), O::NotIn(wide)) => {
                same_case
                    && self.affords(wide.len())
                    && wide.iter().all(|name| narrow.contains(name))
            }
            (O::Regex(narrow), O::Regex(wide)) => same_case && narrow.as_str() == wide.as_str(),
            (O::Percentage(narrow), O::Percentage(wide)) => same_case && narrow.is_part_of(*wide),
            (O::Exists(narrow), O::Exists(wide)) => narrow == wide,
            _ => false,
        }
    }
}

/// Tells whether a condition plainly holds for every request.
pub(crate) fn always(condition: &Condition) -> bool {
    match condition {
        Condition::All(parts) => parts.iter().all(always),
        Condition::Any(parts) => parts.iter().any(always),
        Condition::ClientShare(share) => share.is_whole(),
        Condition::Percentage(Percentage { share, by, without_key }) => {
            let known = by.iter().any(|key| matches!(key, Key::ClientIp));
            share.is_whole() && (known || *without_key)
        }
        _ => false,
    }
}

impl Share {
    fn is_whole(self) -> bool {
        self.percent() >= 100.0
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use gray_config::{Faults, KeyPath};
    use gray_propagation::FieldName;
    use http::{HeaderMap, HeaderValue, Method};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    use super::*;
    use crate::condition::{Level, Source};
    use crate::senses::Subject;
    use crate::{Head, NameSet, OverrideProperties, PlaceProperties, Senses};

    static X: FieldName = FieldName::from_static("x");

    const CITIES: [&str; 3] = ["a", "b", "nowhere"];

    /// Where two cities are.
    fn senses() -> Senses {
        let network = |network: &str, city: &str| OverrideProperties {
            network: network.to_owned(),
            city: city.to_owned(),
            ..OverrideProperties::default()
        };
        let overrides = vec![network("10.0.0.0/31", CITIES[0]), network("10.0.0.4/31", CITIES[1])];
        let places = PlaceProperties { databases: Vec::new(), overrides };
        let places = places.open(&KeyPath::ROOT, &mut Faults::default());
        Senses { places, ..Senses::default() }
    }

    fn text() -> impl Strategy<Value = String> {
        "[aAb]{0,2}"
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(text(), 0..4)
    }

    fn test() -> impl Strategy<Value = Test> {
        let kinds = (0..10_u8, text(), names(), any::<bool>(), 0..4_u8);
        kinds.prop_map(|(kind, text, names, ignore_case, quarter)| {
            let folded = |text: String| if ignore_case { text.to_ascii_lowercase() } else { text };
            let names: NameSet = names.into_iter().map(folded).collect();
            let bytes = || folded(text.clone()).into_bytes().into_boxed_slice();
            let share =
                Share::new(f64::from(quarter) * 25.0, if text.len() > 1 { "t" } else { "s" });
            let pattern = regex::bytes::RegexBuilder::new(&format!("^{text}"))
                .case_insensitive(ignore_case)
                .build();
            let operator = match kind {
                0 => Operator::Equal(bytes()),
                1 => Operator::NotEqual(bytes()),
                2 => Operator::Prefix(bytes()),
                3 => Operator::Suffix(bytes()),
                4 => Operator::Contains(bytes()),
                5 => Operator::In(Arc::new(names)),
                6 => Operator::NotIn(Arc::new(names)),
                7 => Operator::Regex(pattern.unwrap()),
                8 => share.map_or(Operator::Exists(true), Operator::Percentage),
                _ => Operator::Exists(quarter > 1),
            };
            Test { operator, ignore_case }
        })
    }

    fn leaf() -> impl Strategy<Value = Condition> {
        let networks = prop::collection::vec((0..8_u8, 29..=32_u8), 0..4);
        prop_oneof![
            3 => test().prop_map(|test| Condition::Text(Source::Path, test)),
            3 => test().prop_map(|test| Condition::Text(Source::Header(X.clone()), test)),
            2 => (networks, any::<bool>()).prop_map(|(networks, inside)| {
                let network = |(last, bits)| format!("10.0.0.{last}/{bits}").parse().unwrap();
                let set = Arc::new(CidrSet::new(networks.into_iter().map(network)));
                Condition::Client { set, inside }
            }),
            1 => (0..=100_u8).prop_map(|share| {
                Condition::ClientShare(Share::new(f64::from(share), "s").unwrap())
            }),
            1 => (0..=4_u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
                |(quarters, salt, address, without_key)| {
                    let salt = if salt { "s" } else { "t" };
                    let share = Share::new(f64::from(quarters) * 25.0, salt).unwrap();
                    let key = if address { Key::ClientIp } else { Key::Text(Source::Header(X.clone())) };
                    Condition::Percentage(Percentage { share, by: vec![key], without_key })
                },
            ),
            1 => (prop::collection::vec(0..3_usize, 0..3), any::<bool>(), any::<bool>()).prop_map(
                |(cities, inside, city)| {
                    let names = cities.into_iter().map(|city| CITIES[city].to_owned());
                    let level = if city { Level::City } else { Level::Country };
                    Condition::Place { level, names: Arc::new(names.collect()), inside }
                },
            ),
            1 => (any::<bool>(), any::<bool>()).prop_map(|(known, city)| {
                let level = if city { Level::City } else { Level::Country };
                Condition::PlaceKnown { level, known }
            }),
        ]
    }

    fn condition() -> impl Strategy<Value = Condition> {
        leaf().prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::All),
                prop::collection::vec(inner.clone(), 1..4).prop_map(Condition::Any),
                inner.prop_map(|part| Condition::Not(Box::new(part))),
            ]
        })
    }

    /// Every text of at most three of these letters.
    fn texts() -> Vec<String> {
        let mut texts = vec![String::new()];
        for length in 0..3 {
            let longer = texts.iter().filter(|text| text.len() == length);
            let longer: Vec<String> = longer
                .flat_map(|text| ["a", "A", "b"].map(|letter| format!("{text}{letter}")))
                .collect();
            texts.extend(longer);
        }
        texts
    }

    /// Calls a function with many requests, until it says that one is enough.
    fn any_request(mut f: impl FnMut(&Subject<'_>) -> bool) -> bool {
        let texts = texts();
        let headers: Vec<Option<&String>> = texts.iter().map(Some).chain([None]).collect();
        let senses = senses();
        texts.iter().enumerate().any(|(index, path)| {
            headers.iter().enumerate().any(|(place, header)| {
                let mut map = HeaderMap::new();
                if let Some(header) = header {
                    map.insert(&*X, HeaderValue::from_str(header).unwrap());
                }
                let last = u8::try_from((index + place) % 9).unwrap();
                let head = Head {
                    method: &Method::GET,
                    path,
                    query: None,
                    target_host: None,
                    headers: &map,
                    client: IpAddr::from([10, 0, 0, last]),
                };
                f(&Subject::new(&head, &senses))
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// What is said to be never reached is not reached by any of some 1,600 requests.
        #[test]
        fn what_it_says_is_so(narrow in condition(), wide in condition()) {
            let mut reasoning = Reasoning::new(10_000);
            if reasoning.implies(&narrow, &wide) {
                let counter = any_request(|it| narrow.holds(it) && !wide.holds(it));
                prop_assert!(!counter, "{narrow:?} does not imply {wide:?}");
            }
            if reasoning.never(&narrow) {
                prop_assert!(!any_request(|it| narrow.holds(it)), "{narrow:?} holds");
            }
        }
    }

    /// It says so often enough for the test above to mean something.
    #[test]
    fn it_finds_what_there_is_to_find() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let (mut found, mut there) = (0, 0);
        for _ in 0..4_000 {
            let pair = (leaf(), leaf()).new_tree(&mut runner).unwrap().current();
            if any_request(|it| pair.0.holds(it))
                && !any_request(|it| pair.0.holds(it) && !pair.1.holds(it))
            {
                there += 1;
                found += usize::from(Reasoning::new(10_000).implies(&pair.0, &pair.1));
            }
        }
        // Most of the others come of the few letters there are.
        assert!(found > 80, "{found} of {there}");
    }
}
