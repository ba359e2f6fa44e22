use gray_config::{Faults, KeyPath};
use gray_propagation::{GrayStatus, Lane};
use serde::{Deserialize, Deserializer};

use crate::cidr::CidrSet;
use crate::condition::{Condition, Level, Source};
use crate::operator::{Operator, Test};
use crate::place;
use crate::rule_set::Rule;

/// `kerwin.tool.gray.gateway` as an operator of the Spring Cloud design writes it, with that
/// design's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrayGatewayProperties {
    /// Whether requests are classified at all.
    pub enabled: bool,
    /// The header that marks a request as gray.
    pub gray_head_key: String,
    /// The value that header must have.
    pub gray_head_value: String,
    /// Client addresses that are always gray; networks are understood too.
    #[serde(rename = "grayIPList", deserialize_with = "spring_list")]
    pub gray_ip_list: Vec<String>,
    /// Cities that are always gray.
    #[serde(deserialize_with = "spring_list")]
    pub gray_city_list: Vec<String>,
    /// User numbers that are always gray.
    #[serde(deserialize_with = "spring_list")]
    pub gray_user_no_list: Vec<String>,
}

impl Default for GrayGatewayProperties {
    fn default() -> Self {
        Self {
            enabled: false,
            gray_head_key: "gray".to_owned(),
            gray_head_value: "gray-996".to_owned(),
            gray_ip_list: Vec::new(),
            gray_city_list: Vec::new(),
            gray_user_no_list: Vec::new(),
        }
    }
}

/// A list, or one text with commas, which Spring binds to a list as well.
fn spring_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Lenient;

    impl<'de> serde::de::Visitor<'de> for Lenient {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            Ok(entries.map(str::to_owned).collect())
        }

        fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
            Ok(vec![number.to_string()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut seq: A,
        ) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = seq.next_element()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_any(Lenient)
}

impl GrayGatewayProperties {
    /// Puts what a later document says over what earlier ones said, key by key, as Spring does; `says` tells
    /// which keys it has. A list replaces a list.
    #[must_use]
    pub fn over(self, earlier: Self, says: impl Fn(&str) -> bool) -> Self {
        fn pick<T>(says: bool, new: T, old: T) -> T {
            if says { new } else { old }
        }
        Self {
            enabled: pick(says("enabled"), self.enabled, earlier.enabled),
            gray_head_key: pick(says("grayHeadKey"), self.gray_head_key, earlier.gray_head_key),
            gray_head_value: pick(
                says("grayHeadValue"),
                self.gray_head_value,
                earlier.gray_head_value,
            ),
            gray_ip_list: pick(says("grayIPList"), self.gray_ip_list, earlier.gray_ip_list),
            gray_city_list: pick(says("grayCityList"), self.gray_city_list, earlier.gray_city_list),
            gray_user_no_list: pick(
                says("grayUserNoList"),
                self.gray_user_no_list,
                earlier.gray_user_no_list,
            ),
        }
    }

    /// Turns the properties into rules: header, address, city or user, in the design's order.
    pub fn rules(&self, at: &KeyPath, faults: &mut Faults) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut rule = |name: &str, when: Condition| {
            let target = GrayStatus::Gray(Lane::GRAY);
            rules.push(Rule {
                name: name.into(),
                target,
                when: Some(when),
                off: None,
                expires: None,
            });
        };
        let name = self.gray_head_key.parse::<http::HeaderName>();
        let name = name.map_err(|_| format!("{:?} is no header name", self.gray_head_key));
        if let Some(name) = faults.check(&at.key("grayHeadKey"), name) {
            let value = self.gray_head_value.as_bytes().into();
            let test = Test { operator: Operator::Equal(value), ignore_case: false };
            rule("grayHead", Condition::Text(Source::Header(name.into()), test));
        }
        if !self.gray_ip_list.is_empty() {
            match CidrSet::parse(self.gray_ip_list.iter().map(String::as_str)) {
                Ok(set) => rule("grayIPList", Condition::Client { set: set.into(), inside: true }),
                Err(errors) => {
                    for (position, error) in errors {
                        faults.error(&at.key("grayIPList").index(position), error);
                    }
                }
            }
        }
        if !self.gray_city_list.is_empty() {
            let names = self.gray_city_list.iter().map(|city| place::fold(city)).collect();
            let names = std::sync::Arc::new(names);
            rule("grayCityList", Condition::Place { level: Level::City, names, inside: true });
        }
        if !self.gray_user_no_list.is_empty() {
            let names = std::sync::Arc::new(self.gray_user_no_list.iter().collect());
            let test = Test { operator: Operator::In(names), ignore_case: false };
            rule("grayUserNoList", Condition::Text(Source::User, test));
        }
        rules
    }
}
