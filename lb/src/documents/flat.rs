//! Documents of the Spring Cloud design (seed S1) whose lines all begin at one column.

/// What stands below the prefix: a key, and those below that.
const GROUPS: [(&str, &[&str]); 2] = [
    ("version", &["prodversion", "grayversion"]),
    (
        "gateway",
        &[
            "enabled",
            "grayheadkey",
            "grayheadvalue",
            "grayiplist",
            "graycitylist",
            "grayusernolist",
        ],
    ),
];

/// Where the line before stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Above this part of the prefix.
    Prefix(usize),
    /// Below the prefix, or below a service: nothing is missing.
    Whole,
    /// In one of [`GROUPS`].
    Group(usize),
    /// In a list of it.
    List(usize),
    /// A service that has not said anything.
    Service,
    /// Its Ribbon, which has not said anything.
    Ribbon,
}

/// Gives a document its indentation back, where all lines begin at one column, as in the copies of the design that
/// circulate: each of its keys has one place only.
///
/// Returns `None` where lines differ in where they begin, where the document does not begin with the prefix,
/// one key a line, and where it has a line whose place nobody can tell.
pub(super) fn indent(text: &str, prefix: &str) -> Option<String> {
    let speaking = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let columns = text.lines().filter(speaking).map(|line| line.len() - line.trim_start().len());
    let mut columns = columns.collect::<Vec<_>>();
    columns.dedup();
    if columns.len() != 1 {
        return None;
    }
    let prefix: Vec<&str> = prefix.split('.').collect();
    let mut following = text.lines().filter(speaking).skip(1).map(str::trim);
    let mut place = Place::Prefix(0);
    let mut lines = Vec::new();
    for line in text.lines() {
        let (line, speaks) = (line.trim(), speaking(&line));
        let mut depth = 0;
        if speaks {
            (depth, place) = next(place, line, following.next(), &prefix)?;
        }
        lines.push(format!("{}{line}\n", "  ".repeat(depth)));
    }
    (!matches!(place, Place::Prefix(_) | Place::Service | Place::Ribbon)).then(|| lines.concat())
}

/// Returns how deep a line stands, and where that is.
fn next(
    place: Place,
    line: &str,
    following: Option<&str>,
    prefix: &[&str],
) -> Option<(usize, Place)> {
    let below = prefix.len();
    if line.starts_with('-') {
        return matches!(place, Place::List(_)).then_some((below + 2, place));
    }
    let (key, value) = line.split_once(':')?;
    let (bare, name) = (value.trim().is_empty(), letters(key));
    match place {
        Place::Prefix(at) => {
            let whole = if at + 1 == below { Place::Whole } else { Place::Prefix(at + 1) };
            return (bare && prefix.get(at) == Some(&key)).then_some((at, whole));
        }
        Place::Service => return (bare && name == "ribbon").then_some((1, Place::Ribbon)),
        Place::Ribbon => {
            return (name == "nfloadbalancerruleclassname").then_some((2, Place::Whole));
        }
        Place::Group(group) | Place::List(group) if is_of(group, &name) => {
            let list = bare && name.ends_with("list");
            return Some((below + 1, if list { Place::List(group) } else { Place::Group(group) }));
        }
        Place::Whole | Place::Group(_) | Place::List(_) => {}
    }
    if name == "load" {
        return Some((below, Place::Whole));
    }
    if let Some(group) = GROUPS.iter().position(|(group, _)| bare && *group == name) {
        return Some((below, Place::Group(group)));
    }
    let begins = bare && following.is_some_and(|line| line == "ribbon:");
    begins.then_some((0, Place::Service))
}

fn is_of(group: usize, name: &str) -> bool {
    GROUPS.get(group).is_some_and(|(_, keys)| keys.contains(&name))
}

/// A key as Spring reads it: case, hyphens and blanks do not matter.
fn letters(key: &str) -> String {
    let letters = key.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(flat: &str, expected: Option<&str>) {
        assert_eq!(indent(flat, "kerwin.tool.gray").as_deref(), expected);
    }

    #[test]
    fn each_key_has_its_place() {
        check(
            "kerwin:\ntool:\ngray:\n## whether\nload:true\nversion:\nprodVersion:V1\ngray-version: V2\n\n\
             user-app:\nribbon:\nNFLoadBalancerRule className:a.GrayRule\n",
            Some(
                "kerwin:\n  tool:\n    gray:\n## whether\n      load:true\n      version:\n        \
                 prodVersion:V1\n        gray-version: V2\n\nuser-app:\n  ribbon:\n    \
                 NFLoadBalancerRule className:a.GrayRule\n",
            ),
        );
        check(
            "  kerwin:\n  tool:\n  gray:\n  gateway:\n  grayIPList:\n  -'127.0.0.1'\n  - ::1\n  grayCityList: []\n  \
             enabled:true",
            Some(
                "kerwin:\n  tool:\n    gray:\n      gateway:\n        grayIPList:\n          -'127.0.0.1'\n          \
                 - ::1\n        grayCityList: []\n        enabled:true\n",
            ),
        );
    }

    #[test]
    fn what_has_no_place_of_its_own_is_left_alone() {
        for text in [
            "",
            "kerwin:\n  tool:\n",
            "kerwin:\ntool:\n",
            "tool:\ngray:\nload: true\n",
            "kerwin:\ntool:\ngray:\nlaod: true\n",
            "kerwin:\ntool:\ngray:\nload: true\nspring:\napplication:\n",
            "kerwin:\ntool:\ngray:\nprodVersion: V1\n",
            "kerwin:\ntool:\ngray:\nversion:\n- V1\n",
            "kerwin:\ntool:\ngray:\nversion:\nenabled: true\n",
            "kerwin:\ntool:\ngray:\nload: true\na:\nribbon:\n",
            "kerwin:\ntool:\ngray:\nload: true\nwords\n",
        ] {
            check(text, None);
        }
    }
}
