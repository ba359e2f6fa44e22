use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gray_config::{Document, Documents, Faults, KeyPath, Live, Problem, Problems, did_you_mean};
use gray_filters::{List, Lists, Rule, RuleSet, Senses};
use gray_lb::{Format, LaneTable, ServiceName, Version};
use gray_propagation::Lane;

use super::spring::Spring;
use super::{Revision, native};

/// How rule documents are to be read.
#[derive(Clone, Debug)]
pub struct RuleDocuments {
    /// How they are written.
    pub format: Format,
    /// The prefix of the Spring Cloud design's keys.
    pub prefix: String,
    /// The names of the documents: what later ones say is over what earlier ones do.
    pub order: Vec<String>,
    /// Documents that are lists: the document's name, and the name that rules use.
    pub lists: BTreeMap<String, String>,
    /// What the gateway can find out about a request beyond its head.
    pub senses: Live<Senses>,
    /// The services that routes lead to: others that documents name may be misspelt.
    pub routed: BTreeSet<ServiceName>,
}

/// What documents of either format mean.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    /// The rules; `None` where gray release is switched off.
    pub(super) rules: Option<Vec<Rule>>,
    pub(super) lanes: LaneTable,
    /// The lanes that are switched on.
    pub(super) open: BTreeSet<Lane>,
}

/// Turns documents into a revision, with warnings, or says everything that is wrong with them.
///
/// # Errors
///
/// All errors of all documents, each with its line and key, and the warnings beside them.
pub fn parse_documents(
    documents: &Documents,
    how: &RuleDocuments,
) -> Result<(Revision, Problems), Problems> {
    let mut problems = Problems::default();
    let all = documents.in_order(&how.order);
    let (lists, texts): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(name, _)| how.lists.contains_key(*name));
    let lists = lists.into_iter().filter_map(|(name, text)| {
        Some((how.lists.get(name)?.clone(), List::new(Arc::clone(text))))
    });
    let lists = Lists(lists.collect());
    let parsed: Vec<(Document, bool)> = texts
        .into_iter()
        .filter_map(|(name, text)| match how.format.parse(name, text, &how.prefix) {
            Ok(parsed) => Some(parsed),
            Err(more) => {
                problems.extend(more.0);
                None
            }
        })
        .collect();
    let meaning = if parsed.iter().any(|(_, spring)| !spring) {
        read_native(&parsed, &lists, &how.senses.load(), &mut problems)
    } else {
        read_spring(&parsed, how, &mut problems)
    };
    if problems.has_errors() {
        return Err(problems);
    }
    let named = meaning.lanes.services.keys();
    for service in named.filter(|service| !how.routed.contains(*service)) {
        warn_of_unrouted(service, &parsed, how, &mut problems);
    }
    let rules = match meaning.rules {
        Some(rules) => RuleSet::new(rules, how.senses.clone()),
        None => RuleSet::off(),
    };
    let revision = Revision::new(documents.digest(), rules, meaning.lanes, meaning.open);
    Ok((revision, problems))
}

/// Warns of a lane that no instance of a service is in, where the lane's version is said, or the lane.
pub(crate) fn warn_of_empty_lane(
    service: &ServiceName,
    lane: Lane,
    version: Option<&Version>,
    documents: &Documents,
    how: &RuleDocuments,
) -> Problems {
    let version = version.map(|version| format!("(version {version})"));
    let why = version.as_deref().unwrap_or("(it has no version, and no registry of its own)");
    let message = format!("lane {lane} has no instance of {service} {why}");
    for (name, text) in documents.0.iter().filter(|(name, _)| !how.lists.contains_key(*name)) {
        let Ok((document, spring)) = how.format.parse(name, text, &how.prefix) else { continue };
        let place = if spring {
            let at = KeyPath::ROOT.dotted(&how.prefix).dotted("version.grayVersion");
            document.contains(&at).then_some(at)
        } else {
            native::place_of(lane, service, &document)
        };
        if let Some(at) = place {
            let mut faults = Faults::default();
            faults.warning(&at, message);
            return document.found(&faults);
        }
    }
    Problem::odd("rules", message).into()
}

/// Warns of a service that no route leads to, where it stands. It is no error: services read the same
/// documents, and call each other.
fn warn_of_unrouted(
    service: &ServiceName,
    parsed: &[(Document, bool)],
    how: &RuleDocuments,
    problems: &mut Problems,
) {
    let near = did_you_mean(service.as_str(), how.routed.iter().map(ServiceName::as_str));
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    for (document, spring) in parsed {
        let root = KeyPath::ROOT;
        let at = if *spring { root } else { root.key("services") }.key(service.as_str());
        if document.contains(&at) {
            let mut faults = Faults::default();
            faults.warning(&at, format!("no route leads to `{service}`{near}"));
            problems.extend(document.found(&faults).0);
        }
    }
}

fn read_native(
    parsed: &[(Document, bool)],
    lists: &Lists,
    senses: &Senses,
    problems: &mut Problems,
) -> Meaning {
    let mut all = parsed.iter().map(|(document, _)| document);
    let Some(document) = all.next() else { return Meaning::default() };
    for other in all {
        let message = format!("rules are one document, and {} is one already", document.name());
        problems.extend([Problem::whole(other.name(), message)]);
    }
    let mut faults = Faults::default();
    let read = native::read(document, lists, senses, &mut faults);
    problems.extend(document.problems(&faults).0);
    read
}

fn read_spring(
    parsed: &[(Document, bool)],
    how: &RuleDocuments,
    problems: &mut Problems,
) -> Meaning {
    let mut spring = Spring::default();
    for (document, _) in parsed {
        let mut faults = Faults::default();
        spring.take(document, &how.prefix, &how.senses.load(), &mut faults);
        problems.extend(document.problems(&faults).0);
    }
    let names = parsed.iter().map(|(document, _)| document.name()).collect::<Vec<_>>().join(", ");
    let (meaning, odd) = spring.finish(&how.prefix);
    problems.extend(odd.filter(|_| !parsed.is_empty()).map(|odd| Problem::odd(names, odd)));
    meaning
}

#[cfg(test)]
mod tests {
    use gray_config::live;
    use gray_filters::{Head, PlaceProperties, UserProperties, Users};
    use gray_lb::{Fallback, Unversioned};
    use gray_propagation::GrayStatus;
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    const GRAY: GrayStatus = GrayStatus::Gray(Lane::GRAY);

    /// The design's two documents as they circulate, some with the blanks lost.
    const COMMON: &str = "\
kerwin:
  tool:
    gray:
      ## whether the starter is loaded
      load:true
      version:
        prodVersion:V1
        grayVersion:V2
user-app:
  ribbon:
    NFLoadBalancerRuleClassName:com.kerwin.gray.loadbalancer.GrayRoundRobinRule
order-app:
  ribbon:
    NFLoadBalancerRuleClassName: com.kerwin.gray.loadbalancer.GrayRoundRobinRule
spring:
  datasource: {url: 'jdbc:mysql://h/d'}
";

    const GATEWAY: &str = "\
kerwin:
  tool:
    gray:
      gateway:
        enabled:true
        grayHeadKey:gray
        grayHeadValue:gray-996
        grayIPList:
          -'127.0.0.1'
        grayCityList:
          -本地
        grayUserNoList: 1001,1002
";

    fn parse(texts: &[(&str, &str)]) -> Result<(Revision, Problems), Problems> {
        let mut faults = Faults::default();
        let users = Users::open(&UserProperties::default(), &KeyPath::ROOT, &mut faults);
        let places = PlaceProperties::default().open(&KeyPath::ROOT, &mut faults);
        let senses = Senses { users, places, ..Senses::default() };
        let how = RuleDocuments {
            format: Format::Auto,
            prefix: "kerwin.tool.gray".to_owned(),
            order: texts.iter().map(|(name, _)| (*name).to_owned()).collect(),
            lists: BTreeMap::new(),
            senses: live(senses).1,
            routed: ["user-app", "order-app"].map(ServiceName::new).into(),
        };
        let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).into()));
        parse_documents(&Documents(texts.collect()), &how)
    }

    #[track_caller]
    fn check(revision: &Revision, header: (&'static str, &str), ip: &str, expected: GrayStatus) {
        let (method, mut headers) = (Method::GET, HeaderMap::new());
        headers.insert(header.0, HeaderValue::from_str(header.1).unwrap());
        let head = Head {
            method: &method,
            path: "/",
            query: None,
            target_host: None,
            headers: &headers,
            client: ip.parse().unwrap(),
        };
        assert_eq!(revision.rules.classify(&head).status, expected, "{header:?} {ip}");
    }

    #[test]
    fn the_designs_documents_are_understood_as_they_are() {
        let (revision, warnings) = parse(&[("common", COMMON), ("gateway", GATEWAY)]).unwrap();
        assert_eq!(warnings.0.len(), 9, "{warnings}");
        check(&revision, ("gray", "gray-996"), "9.9.9.9", GRAY);
        check(&revision, ("gray", "GRAY"), "9.9.9.9", GrayStatus::Prod);
        check(&revision, ("x-real-ip", "127.0.0.1"), "9.9.9.9", GrayStatus::Prod);
        check(&revision, ("x", "y"), "127.0.0.1", GRAY);
        check(&revision, ("x-user-no", "1002"), "9.9.9.9", GRAY);
        let lanes = revision.lanes.of(&ServiceName::new("user-app"));
        assert_eq!(lanes.base, Some(Version::new("V1")));
        assert_eq!(lanes.versions[&Lane::GRAY], Version::new("V2"));
        assert_eq!((lanes.fallback, lanes.unversioned), (Fallback::Fail, Unversioned::None));
        assert!(!revision.lanes.of(&ServiceName::new("other-app")).routed);
    }

    #[test]
    fn load_and_enabled_switch_it_off() {
        for (common, gateway) in [
            (COMMON.replace("load:true", "load: false"), GATEWAY.to_owned()),
            (
                COMMON
                    .replace("load:true", "loaded_elsewhere: 1")
                    .replace("      loaded_elsewhere: 1\n", ""),
                GATEWAY.to_owned(),
            ),
            (COMMON.to_owned(), GATEWAY.replace("enabled:true", "enabled: false")),
            (COMMON.to_owned(), "spring: {a: b}".to_owned()),
        ] {
            let (revision, _) = parse(&[("common", &common), ("gateway", &gateway)]).unwrap();
            check(&revision, ("gray", "gray-996"), "127.0.0.1", GrayStatus::All);
        }
    }

    #[test]
    fn documents_are_one_another_put_over_key_by_key_in_their_order() {
        let first = "kerwin.tool.gray:\n  load: true\n  version: {prodVersion: V1, grayVersion: V2}\n  gateway:\n    \
                     enabled: true\n    grayHeadValue: one\n    grayIPList: [1.1.1.1]\n";
        let second = "kerwin.tool.gray.gateway:\n  grayIPList: [2.2.2.2]\n";
        // By their names the second would be the first.
        let (revision, warnings) = parse(&[("b", first), ("a", second)]).unwrap();
        assert!(warnings.0.is_empty(), "{warnings}");
        check(&revision, ("gray", "one"), "9.9.9.9", GRAY);
        check(&revision, ("x", "y"), "2.2.2.2", GRAY);
        check(&revision, ("x", "y"), "1.1.1.1", GrayStatus::Prod);
        let (revision, _) = parse(&[("a", second), ("b", first)]).unwrap();
        check(&revision, ("x", "y"), "1.1.1.1", GRAY);
    }

    #[test]
    fn what_is_off_and_nobody_has_switched_off_is_warned_of() {
        let loaded = "kerwin.tool.gray.load: true";
        for (text, expected) in [
            ("spring: {a: b}", "no document says anything under `kerwin.tool.gray`"),
            ("kerwin.tool.gray.version.prodVersion: V1", "`kerwin.tool.gray.load` is not set"),
            (loaded, "`kerwin.tool.gray.gateway` is not there"),
        ] {
            let (_, warnings) = parse(&[("one", text)]).unwrap();
            assert!(warnings.to_string().contains(expected), "{warnings}");
        }
        for text in [
            "kerwin.tool.gray.load: false",
            &format!("{loaded}\nkerwin.tool.gray.gateway: {{enabled: false}}"),
        ] {
            let (_, warnings) = parse(&[("one", text)]).unwrap();
            assert!(warnings.0.is_empty(), "{warnings}");
        }
    }

    /// Letter by letter as seed S1 has them: without blanks and indentation, and with a blank within a key.
    const SEED: [&str; 2] = [
        "    kerwin:
    tool:
    gray:
    ## 配置是否載入灰度自動配置類,如果不配置那麽預設不載入
    load:true
    ## 配置生產版本和灰度版本號
    version:
    prodVersion:V1
    grayVersion:V2
    ## 配置Ribbon呼叫user-app和order-app服務時使用我們自訂灰度輪詢演算法
    user-app:
    ribbon:
    NFLoadBalancerRule className:com.kerwin.gray.loadbalancer.GrayRoundRobinRule
    order-app:
    ribbon:
    NFLoadBalancerRule className:com.kerwin.gray.loadbalancer.GrayRoundRobinRule
",
        "    kerwin:
    tool:
    gray:
    gateway:
    ## 是否開啟灰度釋出功能
    enabled:true
    ## 自訂灰度版本請求頭
    grayHeadKey:gray
    ## 自訂灰度版本請求頭匹配值
    grayHeadValue:gray-996
    ## 使用灰度版本IP陣列
    grayIPList:
    -'127.0.0.1'
    ## 使用灰度版本城市陣列
    grayCityList:
    -本地
",
    ];

    #[test]
    fn the_documents_of_the_seed_are_understood_as_they_are() {
        for lines in ["    ", ""] {
            let [common, gateway] = SEED.map(|text| text.replace("    ", lines));
            let documents = [("common", common.as_str()), ("gateway", gateway.as_str())];
            let (revision, warnings) = parse(&documents).unwrap();
            check(&revision, ("gray", "gray-996"), "9.9.9.9", GRAY);
            check(&revision, ("x", "y"), "127.0.0.1", GRAY);
            check(&revision, ("x", "y"), "9.9.9.9", GrayStatus::Prod);
            let text = warnings.to_string();
            assert_eq!(text.matches("all lines begin at one column").count(), 2, "{text}");
            assert!(text.contains("common: line 5: a blank was missing"), "{text}");
        }
    }

    #[test]
    fn what_nobody_can_tell_the_place_of_is_an_error() {
        // A key that is not the design's.
        let [common, _] = SEED;
        let text = common.replace("load:true", "laod:true");
        let text = parse(&[("common", &text)]).unwrap_err().to_string();
        assert!(text.contains("nothing is below `kerwin`"), "{text}");
        assert!(text.contains("indent what belongs below it"), "{text}");
        let nothing = "kerwin:\n  tool:\n  gray:\n    load: true\n";
        let text = parse(&[("common", nothing)]).unwrap_err().to_string();
        assert!(text.contains("nothing is below `tool`"), "{text}");
        assert!(text.contains("indent what belongs below it"), "{text}");
        // What is wrong is told where it stands.
        let text = SEED[1].replace("-'127.0.0.1'", "-'127.0.0.999'");
        let text = parse(&[("common", common), ("gateway", &text)]).unwrap_err().to_string();
        assert!(text.contains("gateway:13:"), "{text}");
    }

    #[test]
    fn absent_keys_have_the_designs_defaults() {
        let text = "kerwin.tool.gray.load: true\nkerwin.tool.gray.gateway.enabled: true";
        let (revision, _) = parse(&[("one", text)]).unwrap();
        check(&revision, ("gray", "gray-996"), "9.9.9.9", GRAY);
        check(&revision, ("x", "y"), "127.0.0.1", GrayStatus::Prod);
    }

    #[test]
    fn unknown_keys_under_the_prefix_are_errors_and_others_are_not() {
        let text = "kerwin:\n  tool: {gray: {load: true, gatway: {}, version: {prodVerion: 1}}}\n\
                    whatever: 1\nspring: {}";
        let text = parse(&[("one", text)]).unwrap_err().to_string();
        for expected in ["kerwin.tool.gray.gatway", "did you mean `gateway`?", "prodVerion"] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_service_that_no_route_leads_to_is_warned_of_where_it_stands() {
        let native = "base: {version: V1}\nservices:\n  usre-app: {fallback: fail}\n";
        let (_, warnings) = parse(&[("rules.yaml", native)]).unwrap();
        let text = warnings.to_string();
        assert!(text.contains("rules.yaml:3:"), "{text}");
        let message = "services.usre-app: no route leads to `usre-app`; did you mean `user-app`?";
        assert!(text.contains(message), "{text}");
        let (_, warnings) = parse(&[("common", &COMMON.replace("user-app", "other-app"))]).unwrap();
        assert!(warnings.to_string().contains("no route leads to `other-app`"), "{warnings}");
    }

    #[test]
    fn ribbons_key_is_read_as_spring_reads_keys() {
        for key in ["NFLoadBalancerRule className", "nf-load-balancer-rule-class-name"] {
            let common = COMMON.replace("NFLoadBalancerRuleClassName", key);
            let (revision, _) = parse(&[("common", &common)]).unwrap();
            assert!(revision.lanes.of(&ServiceName::new("order-app")).routed, "{key}");
            assert!(!revision.lanes.of(&ServiceName::new("other-app")).routed, "{key}");
        }
    }

    #[test]
    fn a_city_that_nobody_can_be_known_to_be_in_is_warned_of() {
        let rules = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\nrules:\n\
                     - {name: local, when: {city: {in: [本地, 深圳市]}}}\n\
                     - {name: far, when: {any: [{clientIp: {in: [9.9.9.9]}}, {city: {equal: 深圳}}]}}\n";
        let (_, warnings) = parse(&[("rules.yaml", rules)]).unwrap();
        let text = warnings.to_string();
        assert_eq!(warnings.0.len(), 1, "{text}");
        assert!(text.contains("rules.yaml:5:15: rules[1].when: no request can be known"), "{text}");
        let gateway = GATEWAY.replace("本地", "深圳");
        let (_, warnings) = parse(&[("common", COMMON), ("gateway", &gateway)]).unwrap();
        let text = warnings.to_string();
        assert!(
            text.contains("grayCityList: no request can be known to come from there"),
            "{text}"
        );
    }

    #[test]
    fn a_cookie_that_nobody_is_given_is_warned_of() {
        let rules = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\nrules:\n\
                     - {name: half, when: {any: [{percentage: {share: 50, by: [issuedCookie]}}]}}\n";
        let (_, warnings) = parse(&[("rules.yaml", rules)]).unwrap();
        let text = warnings.to_string();
        assert!(text.contains("rules.yaml:4:16: rules[0].when: "), "{text}");
        assert!(text.contains("stickyCookie"), "{text}");
        let (_, warnings) =
            parse(&[("rules.yaml", &rules.replace("issuedCookie", "user"))]).unwrap();
        assert!(warnings.0.is_empty(), "{warnings}");
    }
}
