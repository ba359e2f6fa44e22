//! What ARCHITECTURE.md says about the shape of the code, held by machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which crates may use which of ours, as the request's path goes.
const ARROWS: [(&str, &[&str]); 11] = [
    ("propagation", &[]),
    ("config", &[]),
    ("lb", &["config", "propagation"]),
    ("filters", &["config", "propagation"]),
    ("starter", &["config", "lb", "propagation"]),
    ("mq", &["config", "lb", "propagation", "starter"]),
    ("demo", &["mq", "starter"]),
    ("gateway", &["config", "demo", "filters", "lb", "mq", "propagation"]),
    ("tests", &["config", "demo", "filters", "gateway", "lb", "mq", "propagation", "starter"]),
    ("bench", &[]),
    ("xtask", &[]),
];

/// Words that only files and folders of these names may know.
const KNOWN_BY: [(&str, &[&str]); 2] = [
    ("NacosInstance", &["nacos", "nacos.rs", "tidy.rs"]),
    ("RocketMqError", &["rocketmq", "rocketmq.rs", "tidy.rs"]),
];

/// No file is longer.
const MAX_LINES: usize = 480;

/// No line of code stands deeper, in steps of four blanks.
const MAX_DEPTH: usize = 8;

fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for (name, _) in ARROWS {
        let mut folders = vec![root().join(name)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|it| it == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap_or_default();
                    found.push((path, text));
                }
            }
        }
    }
    found
}

/// The lines before the tests of a file.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"))
}

#[test]
fn arrows_between_crates_never_point_up() {
    for (name, allowed) in ARROWS {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let ours = manifest.lines().filter_map(|line| line.strip_prefix("gray-"));
        for used in ours.filter_map(|line| line.split(['.', ' ']).next()) {
            assert!(allowed.contains(&used), "{name} uses {used}");
        }
    }
}

/// Of HTTP the balancer knows nothing: an instance is an address.
#[test]
fn the_balancer_knows_no_protocol() {
    let manifest = std::fs::read_to_string(root().join("lb/Cargo.toml")).unwrap();
    for library in ["http", "hyper", "tower", "reqwest", "tonic"] {
        let used = manifest.lines().any(|line| line.starts_with(&format!("{library}.")));
        assert!(!used, "lb uses {library}");
    }
}

/// What `cargo tree` says that the starter is made of.
fn crates_of_starter(features: &str) -> String {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--quiet", "--offline", "--package", "gray-starter", "--edges", "normal"])
        .args(["--prefix", "none", "--no-default-features", "--features", features])
        .current_dir(root())
        .output()
        .unwrap();
    String::from_utf8(tree.stdout).unwrap()
}

/// Whoever leaves out a feature of the starter does not have its libraries built, and the guide says how
/// many there are.
#[test]
fn a_service_pays_for_the_features_it_uses() {
    let count = |features: &str| {
        let tree = crates_of_starter(features);
        let crates = tree.lines().map(|line| line.trim_end_matches(" (*)"));
        crates.collect::<std::collections::BTreeSet<_>>().len()
    };
    let (least, all) = (count(""), count("client,grpc,nacos,serve"));
    let guide = std::fs::read_to_string(root().join("docs/services.md")).unwrap();
    let said = format!("{least} crates in all, {all} with everything");
    assert!(guide.replace('\n', " ").contains(&said), "docs/services.md does not say: {said}");
    let libraries =
        [("client", "reqwest"), ("grpc", "tonic"), ("nacos", "prost"), ("serve", "axum")];
    for (feature, library) in libraries {
        let others = libraries.iter().filter(|(other, _)| {
            // Nacos is spoken by gRPC, with a login over HTTP.
            *other != feature && (*other != "nacos" || feature == "serve")
        });
        let others: Vec<&str> = others.map(|(other, _)| *other).collect();
        let tree = crates_of_starter(&others.join(","));
        assert!(tree.contains("gray-config"), "{tree}");
        let unwanted = tree.lines().find(|line| line.split(' ').next() == Some(library));
        assert_eq!(unwanted, None, "{library} without the feature {feature}");
    }
}

#[test]
fn only_files_named_after_a_server_know_it() {
    for (path, text) in sources() {
        for (word, names) in KNOWN_BY {
            let knows = code(&text).any(|line| line.contains(word));
            let named = path.iter().any(|part| names.iter().any(|name| part == *name));
            assert!(!knows || named || path.ends_with("config/src/lib.rs"), "{}", path.display());
        }
    }
}

#[test]
fn files_are_short_and_shallow() {
    for (path, text) in sources() {
        assert!(code(&text).count() <= MAX_LINES, "{} is too long", path.display());
        let deep = code(&text).find(|line| {
            let blanks = line.len() - line.trim_start_matches(' ').len();
            blanks > MAX_DEPTH * 4 && !line.trim_start().starts_with("//")
        });
        assert_eq!(deep, None, "{} is too deep", path.display());
    }
}

/// A crate, a folder and a file of tests begin by saying what they are for. A file with one concept may
/// say it at the concept.
#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let of_many = ["lib.rs", "main.rs", "mod.rs", "build.rs"].contains(&name)
            || path
                .iter()
                .any(|part| ["tests", "benches", "examples"].iter().any(|it| part == *it));
        let of_harness = path.starts_with(root().join("tests/src"));
        let at_its_concept = || code(&text).any(|line| line.starts_with("/// "));
        let says = text.starts_with("//!") || ((!of_many || of_harness) && at_its_concept());
        assert!(says, "{} does not say what it is for", show(&path));
    }
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "#[ign".to_owned() + "ore"];
    for (path, text) in sources() {
        for word in &words {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn functions_are_short_as_a_rule() {
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    for (path, text) in sources() {
        let mut open: Option<(usize, usize)> = None;
        for (number, line) in code(&text).enumerate() {
            let trimmed = line.trim_start();
            let indent = line.len() - trimmed.len();
            match open {
                None if is_function(trimmed) && !trimmed.ends_with(';') => {
                    open = Some((number, indent));
                }
                // Of a trait: a signature only.
                Some((_, depth)) if indent == depth && trimmed.ends_with(';') => open = None,
                Some((start, depth)) if indent == depth && trimmed.starts_with('}') => {
                    let length = number - start - 1;
                    assert!(length <= 60, "{}:{} has {length} lines", show(&path), start + 1);
                    *lengths.entry(length).or_default() += 1;
                    open = None;
                }
                _ => {}
            }
        }
    }
    let all: usize = lengths.values().sum();
    let mut seen = 0;
    let ninth = lengths.iter().find(|(_, count)| {
        seen += **count;
        seen * 10 >= all * 9
    });
    assert!(ninth.is_some_and(|(length, _)| *length <= 28), "{ninth:?} of {all}");
}

fn is_function(line: &str) -> bool {
    let seen =
        ["pub(crate) ", "pub(super) ", "pub "].into_iter().find_map(|it| line.strip_prefix(it));
    let mut rest = seen.unwrap_or(line);
    for word in ["const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    rest.starts_with("fn ")
}

fn show(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
