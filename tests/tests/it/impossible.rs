//! What a configuration may not say, since it can never work: `check` names each with its line.

use std::process::Command;

use anyhow::ensure;
use gray_tests::binary;

const RULES: &str = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\n";

const REGISTRY: &str = "\
services:
  app:
  - {address: '127.0.0.1:7201', metadata: {version: V1}}
  - {address: '127.0.0.1:7202', metadata: {version: V2}}
";

/// What `check` says, and how it ends.
fn check(config: &str, registry: &str, rules: &str) -> anyhow::Result<(Option<i32>, String)> {
    let folder = tempfile::tempdir()?;
    for (name, text) in
        [("graylane.yaml", config), ("registry.yaml", registry), ("rules.yaml", rules)]
    {
        std::fs::write(folder.path().join(name), text)?;
    }
    let output =
        Command::new(binary("graylane")?).arg("check").current_dir(folder.path()).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// With a line of the configuration in place of another, or behind all.
fn config(line: &str) -> String {
    let lines = [
        "listeners: [{address: '127.0.0.1:0'}]",
        "routes: [{service: app}]",
        "discovery: {files: [registry.yaml]}",
        "rules: {files: [rules.yaml]}",
    ];
    let key = line.split(':').next().unwrap_or_default();
    let mut all: Vec<&str> = lines.into_iter().filter(|it| !it.starts_with(key)).collect();
    all.push(line);
    all.join("\n") + "\n"
}

#[test]
fn what_can_never_work_is_an_error_of_its_line() -> anyhow::Result<()> {
    for (line, expected) in [
        (
            "listeners: [{address: '127.0.0.1:8081'}, {address: '0.0.0.0:8081'}]",
            "listeners[1].address: 127.0.0.1:8081 is listened on already",
        ),
        (
            "listeners: [{address: '127.0.0.1:9901'}]",
            "admin.address: 127.0.0.1:9901 is listened on already",
        ),
        ("limits: {headers: 0}", "limits.headers: nothing can be served where this is 0"),
        ("limits: {targetSize: 0}", "limits.targetSize: nothing can be served"),
        (
            "limits: {streams: 0, writeTime: 0s}",
            "limits.writeTime: nothing can be served in no time",
        ),
        ("timeouts: {total: 0s}", "timeouts.total: nothing can be served in no time"),
        (
            "routes: [{service: app, timeouts: {connect: 0s}}]",
            "routes[0].timeouts.connect: nothing can be served in no time",
        ),
        (
            "routes: [{service: app, match: {host: 'a b'}}]",
            "routes[0].match.host: \"a b\" is no host",
        ),
        ("routes: [{service: app, match: {host: 'a:80'}}]", "\"a:80\" is no host's name"),
        ("routes: [{service: app, match: {host: '*.*'}}]", "\"*.*\" is no host's name"),
        ("routes: [{service: app, match: {host: 'foo.*'}}]", "\"foo.*\" is no host's name"),
        ("stickyCookie: {name: 'a b'}", "stickyCookie.name: \"a b\" is no name of a cookie"),
        (
            "accessLog: {enabled: true, file: /there/is/none/access.log}",
            "accessLog.file: there is no directory /there/is/none",
        ),
        (
            "propagation: {headers: [x-mse-tag, Host]}",
            "propagation.headers[1]: `Host` says something else, and cannot carry the lane",
        ),
    ] {
        let (code, text) = check(&config(line), REGISTRY, RULES)?;
        ensure!(
            code == Some(2) && text.contains(expected),
            "{line}: {code:?}, not {expected}\n{text}"
        );
        // All of it is on the last line, but what is said of a place that has a value of its own.
        let lines = config(line).lines().count();
        let placed =
            text.contains(&format!("graylane.yaml:{lines}:")) || text.contains("admin.address");
        ensure!(placed, "{line}\n{text}");
    }
    Ok(())
}

#[test]
fn what_a_host_may_be_is_no_error() -> anyhow::Result<()> {
    for host in ["a.test", "*.a.test", "*", "[::1]", "10.0.0.1", "*-eu.test"] {
        let line = format!("routes: [{{service: app, match: {{host: '{host}'}}}}]");
        let (code, text) = check(&config(&line), REGISTRY, RULES)?;
        ensure!(code == Some(0), "{host}: {text}");
    }
    Ok(())
}

/// One instance that is refused is named with its line, once, and keeps no other from being read.
#[test]
fn instances_that_are_refused_are_named_with_their_lines() -> anyhow::Result<()> {
    let registry = "\
services:
  app:
  - {address: '169.254.169.254:80'}
  - {address: '127.0.0.1:65536'}
  - {address: '127.0.0.1:7201', weight: .nan}
  - {address: '127.0.0.1:7202', metadata: {version: V1}}
  - {address: '127.0.0.1:7203', metadata: {version: V2}}
";
    let (code, text) = check(&config("limits: {}"), registry, RULES)?;
    for expected in [
        "registry.yaml:3:6: services.app[0].address: instance 169.254.169.254:80 of app is refused",
        "registry.yaml:4:6: services.app[1].address: `127.0.0.1:65536` is no IP address",
        "registry.yaml:5:6: services.app[2].address: instance 127.0.0.1:7201 of app is refused",
    ] {
        ensure!(text.contains(expected), "{expected}\n{text}");
    }
    ensure!(code == Some(2) && text.matches("error: ").count() == 3, "{text}");
    Ok(())
}

#[test]
fn a_gateway_without_any_registry_is_odd() -> anyhow::Result<()> {
    let (code, text) = check(&config("discovery: {}"), REGISTRY, RULES)?;
    ensure!(code == Some(1) && text.contains("no registry is named"), "{text}");
    Ok(())
}

/// A part of a list that cannot be read hides nothing, moves nothing, and makes nothing else wrong.
#[test]
fn one_error_hides_no_other() -> anyhow::Result<()> {
    let rules = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
services: {app: {lanes: {grey: V2}}}
rules:
- name: a
  when: {percentage: {share: 5, by: [foo]}}
- name: b
  when: {clientIp: {in: [10.0.0.0/8, x, 10.0.0.1, y]}}
- name: c
  when: {haeder: {name: x}}
- name: d
  lane: gary
- name: e
  name: f
  when: {path: {equal: /e}}
- name: g
  when: {method: {equal: get}}
";
    let (code, text) = check(&config("limits: {}"), REGISTRY, rules)?;
    for expected in [
        "rules.yaml:3:26: services.app.lanes.grey: there is no lane `grey`",
        "rules.yaml:6:38: rules[0].when.percentage.by[0]: ",
        "rules.yaml:8:38: rules[1].when.clientIp.in[1]: \"x\" is neither",
        "rules.yaml:8:51: rules[1].when.clientIp.in[3]: \"y\" is neither",
        "rules.yaml:10:10: rules[2].when.haeder: unknown word `haeder`",
        "rules.yaml:12:3: rules[3].lane: there is no lane `gary`",
        "rules.yaml:14:3: the key `name` stands here a second time",
        "rules.yaml:17:19: rules[5].when.method.equal: methods mind case",
    ] {
        ensure!(text.contains(expected), "{expected}\n{text}");
    }
    ensure!(code == Some(2) && text.matches("error: ").count() == 7, "{text}");
    // What rule c takes is not known.
    ensure!(text.matches("warning: ").count() == 1, "{text}");
    Ok(())
}
