//! The commands beside `run` and `demo`.

use std::path::Path;
use std::process::{Command, Output};

use gray_tests::binary;

const CONFIG: &str = "\
listeners: [{address: '127.0.0.1:0'}]
routes: [{service: app}]
discovery: {files: ['{dir}/registry.yaml']}
rules: {files: ['{dir}/rules.yaml']}
";

const REGISTRY: &str = "\
services:
  app:
  - {address: '127.0.0.1:7201', metadata: {version: V1}}
  - {address: '127.0.0.1:7202', metadata: {version: V2}}
";

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}, {name: blue, version: V3}]
rules:
- name: five-percent
  when: {percentage: {share: 5, by: [{header: x-uid}]}}
- {name: office, lane: blue, when: {clientIp: {in: [10.0.0.0/8]}}}
";

fn folder(config: &str, rules: &str) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().display().to_string();
    std::fs::write(folder.path().join("graylane.yaml"), config.replace("{dir}", &dir))?;
    std::fs::write(folder.path().join("registry.yaml"), REGISTRY)?;
    std::fs::write(folder.path().join("rules.yaml"), rules)?;
    Ok(folder)
}

fn graylane(folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(binary("graylane")?).args(arguments).current_dir(folder).output()?)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn check_says_everything_that_is_wrong_at_once() -> anyhow::Result<()> {
    let wrong = "rules:\n- {name: a, lane: gary}\n- {nmae: b}\n- {name: c, when: {path: {equal: 1, prefix: 2}}}\n- {name: d, when: {percentage: {share: 101}}}\nlanes: [{name: gray}]\n";
    let folder = folder(CONFIG, wrong)?;
    let output = graylane(folder.path(), &["check"])?;
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    for expected in [
        "rules.yaml:2:13: rules[0].lane: there is no lane `gary`",
        "did you mean `gray`?",
        "rules.yaml:3:4: rules[1].nmae: unknown key `nmae`",
        "rules.yaml:3:3: rules[1].name: a rule needs a name",
        "rules.yaml:4:37: rules[2].when.path.prefix: only one operator",
        "rules.yaml:5:33: rules[3].when.percentage.share: 101 is no percentage",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let output = graylane(folder.path(), &["check", "--format", "json"])?;
    let problems: serde_json::Value = serde_json::from_str(&stdout(&output))?;
    let all = problems.as_array().map_or(0, Vec::len);
    assert_eq!(all, text.matches("error: ").count(), "{text}\n{problems:#}");
    let first = serde_json::json!({
        "severity": "error", "document": problems[0]["document"], "line": 2, "column": 13,
        "key": "rules[0].lane", "message": "there is no lane `gary`",
        "help": "did you mean `gray`?", "snippet": "- {name: a, lane: gary}",
    });
    assert_eq!(problems[0], first, "{problems:#}");
    assert!(problems[0]["document"].as_str().is_some_and(|it| it.ends_with("rules.yaml")));
    Ok(())
}

#[test]
fn check_warns_of_what_is_odd() -> anyhow::Result<()> {
    let folder = folder(CONFIG, RULES)?;
    let output = graylane(folder.path(), &["check"])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stdout(&output);
    let message =
        "rules.yaml:2:49: lanes[1].version: lane blue has no instance of app (version V3)";
    assert!(text.contains(message), "{text}");
    // The line itself is shown, and the place in it.
    let line = "2 | lanes: [{name: gray, version: V2}, {name: blue, version: V3}]\n";
    assert!(text.contains(line) && text.contains(&format!("  | {}^", " ".repeat(48))), "{text}");

    let without_blue = RULES.replace(", {name: blue, version: V3}", "").replace("lane: blue, ", "");
    std::fs::write(folder.path().join("rules.yaml"), without_blue)?;
    let output = graylane(folder.path(), &["check"])?;
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "all is well\n"));
    Ok(())
}

/// Each of these is odd, and none of them wrong.
#[test]
fn every_kind_of_oddness_ends_with_1_and_names_the_place() -> anyhow::Result<()> {
    let all = "base: {version: V1}\nlanes: [{name: gray, version: V2}]\nrules:\n";
    for (more, expected) in [
        ("- {name: all}\n- {name: b}\n", "rules.yaml:5:3: rules[1]: "),
        ("services: {apq: {fallback: fail}}\n", "rules.yaml:4:12: services.apq: no route leads"),
        (
            "services: {app: {lanes: {gray: V9}}}\n",
            "rules.yaml:4:26: services.app.lanes.gray: lane gray has no instance of app (version V9)",
        ),
        (
            "- {name: b, lane: blue}\n",
            "rules.yaml:2:36: lanes[1]: lane blue has no instance of app (it has no version, and no \
             registry of its own)",
        ),
    ] {
        let all = if more.contains("blue") {
            all.replace("V2}", "V2}, {name: blue}")
        } else {
            all.to_owned()
        };
        let folder = folder(CONFIG, &format!("{all}{more}"))?;
        let output = graylane(folder.path(), &["check"])?;
        let text = stdout(&output);
        assert!(text.contains(expected), "{expected}\n{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
    let spring = "kerwin.tool.gray: {load: true, gateway: {enabled: true}, \
                  version: {prodVersion: V1, grayVersion: V7}}\n\
                  app.ribbon.NFLoadBalancerRuleClassName: com.kerwin.gray.GrayRoundRobinRule\n";
    let folder = folder(CONFIG, spring)?;
    let text = stdout(&graylane(folder.path(), &["check"])?);
    let place =
        "kerwin.tool.gray.version.grayVersion: lane gray has no instance of app (version V7)";
    assert!(text.contains("rules.yaml:1:") && text.contains(place), "{text}");
    Ok(())
}

/// What stands in the static configuration and does nothing was meant otherwise.
#[test]
fn keys_without_effect_earn_a_warning() -> anyhow::Result<()> {
    for (more, expected) in [
        (
            "services: {ap: {protocol: h2c}}\n",
            "5:12: services.ap: no route leads to `ap`; did you mean `app`?",
        ),
        (
            "services: {app: {serverName: a.example}}\n",
            "5:18: services.app.serverName: it has no effect without `protocol: https`",
        ),
        (
            "services: {default: {hashBy: {header: x-user}}}\n",
            "5:22: services.default.hashBy: it has no effect without `balance: consistentHash`",
        ),
        (
            "accessLog: {file: '{dir}/access.log'}\n",
            "5:13: accessLog.file: nothing is written there: `accessLog.enabled` is not set",
        ),
    ] {
        let folder = folder(&format!("{CONFIG}{more}"), "base: {version: V1}\n")?;
        let output = graylane(folder.path(), &["check"])?;
        let text = stdout(&output);
        assert!(text.contains(&format!("graylane.yaml:{expected}")), "{expected}\n{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
    let list = CONFIG.replace("rules: {", "rules: {lists: {vips: {dataId: vips.txt}}, ");
    let folder = folder(&list, "base: {version: V1}\n")?;
    let text = stdout(&graylane(folder.path(), &["check"])?);
    assert!(text.contains("4:17: rules.lists.vips: it is never read"), "{text}");
    Ok(())
}

#[test]
fn a_wrong_configuration_ends_with_2_and_names_the_key() -> anyhow::Result<()> {
    let folder = folder(&CONFIG.replace("routes", "rotues"), RULES)?;
    let output = graylane(folder.path(), &["run"])?;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("graylane.yaml:2:1: rotues: unknown key"), "{text}");
    assert!(text.contains("did you mean `routes`?"), "{text}");
    Ok(())
}

/// Whoever corrects a configuration is told of everything in one go: what cannot be read, what makes no
/// sense, and what is wrong with the rules.
#[test]
fn check_stops_at_no_kind_of_error() -> anyhow::Result<()> {
    let wrong =
        CONFIG.replace("127.0.0.1:0", "nowhere") + "limts: {}\ntrustedProxies: [everywhere]\n";
    let folder = folder(&wrong, "rules: [{name: a, lane: gary}]\nlanes: [{name: gray}]\n")?;
    let output = graylane(folder.path(), &["check"])?;
    let text = stdout(&output);
    for expected in [
        "graylane.yaml:1:14: listeners[0].address: `nowhere` is no address",
        "graylane.yaml:5:1: limts: unknown key `limts`",
        "graylane.yaml:6:18: trustedProxies[0]: ",
        "rules.yaml:1:19: rules[0].lane: there is no lane `gary`",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}

/// One file that is missing keeps no other from being read.
#[test]
fn check_reads_whatever_it_can() -> anyhow::Result<()> {
    let config = CONFIG
        .replace(
            "['{dir}/rules.yaml']",
            "['{dir}/none.yaml', '{dir}/rules.yaml', '{dir}/nor.yaml']",
        )
        .replace("'127.0.0.1:0'", "nowhere");
    let folder = folder(&config, "rules: [{name: a, lane: gary}]\nlanes: [{name: gray}]\n")?;
    std::fs::write(folder.path().join("registry.yaml"), "services: {app: [{adress: x}]}\n")?;
    let output = graylane(folder.path(), &["check"])?;
    let text = stdout(&output);
    for expected in [
        "`nowhere` is no address",
        "none.yaml: No such file",
        "nor.yaml: No such file",
        "rules.yaml:1:19: rules[0].lane: there is no lane `gary`",
        "unknown key `adress`",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}

/// What is odd about the static configuration is said by check, and by a gateway that starts with it.
#[test]
fn an_admin_page_for_everybody_earns_a_warning() -> anyhow::Result<()> {
    let open = format!("{CONFIG}admin: {{address: '0.0.0.0:0'}}\n");
    let folder = folder(&open, "base: {version: V1}\n")?;
    let output = graylane(folder.path(), &["check"])?;
    let text = stdout(&output);
    let warning = "graylane.yaml:5:9: admin.address: the admin page can be read by anyone";
    assert!(text.contains(warning) && output.status.code() == Some(1), "{text}");
    let writable = format!("{CONFIG}admin: {{address: '0.0.0.0:0', writable: true}}\n");
    std::fs::write(
        folder.path().join("graylane.yaml"),
        writable.replace("{dir}", &folder.path().display().to_string()),
    )?;
    let output = graylane(folder.path(), &["check"])?;
    assert!(stdout(&output).contains("admin.writable: a page that can be reached from elsewhere"));
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}

#[test]
fn flag_wins_over_environment_and_environment_over_file() -> anyhow::Result<()> {
    let folder = folder(&CONFIG.replace("127.0.0.1:0", "${ADDRESS:nonsense}"), RULES)?;
    let run = |variables: &[(&str, &str)], flags: &[&str]| -> anyhow::Result<String> {
        let mut command = Command::new(binary("graylane")?);
        command.args(["check"]).args(flags).current_dir(folder.path());
        command.envs(variables.iter().copied());
        Ok(stdout(&command.output()?))
    };
    assert!(run(&[], &[])?.contains("`nonsense` is no address"));
    assert!(run(&[("ADDRESS", "x")], &[])?.contains("`x` is no address"));
    let env = ("GRAYLANE__LISTENERS__0__ADDRESS", "y");
    let text = run(&[env], &[])?;
    assert!(text.contains("environment variable GRAYLANE__LISTENERS__0__ADDRESS: "), "{text}");
    assert!(text.contains("`y` is no address"), "{text}");
    assert!(run(&[env], &["--set", "listeners.0.address=z"])?.contains("`z` is no address"));
    Ok(())
}

#[test]
fn explain_says_why() -> anyhow::Result<()> {
    let folder = folder(CONFIG, RULES)?;
    let ask = ["explain", "GET", "/order/1?a=b", "-H", "x-uid: 1001", "--ip", "10.1.2.3"];
    let text = stdout(&graylane(folder.path(), &ask)?);
    for expected in [
        "lane      blue",
        "rule      office",
        "miss five-percent -> GRAY",
        "- in 5 %   [bucket ",
        "hit  office -> blue",
        "fallback  base: the lane has no instance, V1 serves",
        "clientIp in [\"10.0.0.0/8\"]   [10.1.2.3]",
        "instances 127.0.0.1:7201",
        "writes    gray: blue",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let output = graylane(folder.path(), &[&ask[..], &["--json"]].concat())?;
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output))?;
    assert_eq!(answer["decision"]["rule"], "office");
    assert_eq!((&answer["version"], &answer["served"]), (&"V3".into(), &serde_json::json!(["V1"])));
    Ok(())
}

/// What the gateway refuses before it decides anything is not given a lane.
#[test]
fn explain_refuses_what_the_gateway_refuses() -> anyhow::Result<()> {
    let folder = folder(CONFIG, RULES)?;
    let long = format!("/{}", "a".repeat(9_000));
    for (method, url, expected) in [
        ("CONNECT", "a.example:80", "refuses it with 501"),
        ("GET", "ftp://a.example/", "refuses it with 400"),
        ("GET", "http://u:p@a.example/", "refuses it with 400"),
        ("GET", "x", "refuses it with 400"),
        ("GET", "/a#b", "refuses it with 400: the request's target has a fragment"),
        ("GET", &long, "refuses it with 414"),
    ] {
        let output = graylane(folder.path(), &["explain", method, url])?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(expected), "{method} {url}: {output:?}");
    }
    Ok(())
}

/// What an editor that knows the schema says about a document.
fn judged(folder: &Path, document: &str, text: &str) -> anyhow::Result<Vec<String>> {
    let schema = stdout(&graylane(folder, &["schema", document])?);
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema)?)?;
    let mut faults = gray_config::Faults::default();
    let parsed = gray_config::Document::parse(document, text).map_err(anyhow::Error::msg)?;
    let value: Option<serde_json::Value> = parsed.read(&gray_config::KeyPath::ROOT, &mut faults);
    let value = value.unwrap_or_default();
    let errors = validator.iter_errors(&value);
    Ok(errors.map(|error| format!("{}: {error}", error.instance_path())).collect())
}

#[test]
fn the_samples_fit_the_schemas_and_wrong_documents_do_not() -> anyhow::Result<()> {
    let folder = folder(CONFIG, RULES)?;
    let aliases = "rules: [{name: a, when: {method: {not_equal: GET}}}, {name: b, when: {path: {not_in: [/]}}}]";
    for (document, text) in [("config", CONFIG), ("rules", RULES), ("rules", aliases)] {
        assert_eq!(judged(folder.path(), document, text)?, [""; 0]);
    }
    for (document, text) in [
        ("config", "routes: [{service: app, mtach: {}}]"),
        ("config", "rotues: []"),
        ("config", "limits: {attempts: many}"),
        ("rules", "rules: [{name: a, when: {header: 7}}]"),
        ("rules", "lanes: {gray: V2}"),
        ("rules", "rules: [{name: a, when: {method: {not_is: GET}}}]"),
    ] {
        assert_ne!(judged(folder.path(), document, text)?, [""; 0], "{text}");
    }
    Ok(())
}

#[test]
fn the_samples_of_the_documents_fit_the_schemas() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut tried = 0;
    for (file, document) in [
        ("docs/rules.md", "rules"),
        ("docs/operations.md", "config"),
        ("docs/nacos.md", "config"),
        ("README.md", "rules"),
        ("README.zh-CN.md", "rules"),
    ] {
        let text = std::fs::read_to_string(root.join(file))?;
        for part in text.split("```yaml\n").skip(1) {
            let sample = part.split("```").next().unwrap_or_default();
            let document = if sample.contains("listeners:") { "config" } else { document };
            assert_eq!(judged(folder.path(), document, sample)?, [""; 0], "{file}:\n{sample}");
            tried += 1;
        }
    }
    assert!(tried > 5, "only {tried} samples");
    Ok(())
}

#[test]
fn completions_and_version_are_printed() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    assert!(stdout(&graylane(folder.path(), &["completions", "bash"])?).contains("_graylane"));
    assert!(stdout(&graylane(folder.path(), &["version"])?).starts_with("graylane 0."));
    let output = graylane(folder.path(), &["healthcheck", "--admin", "127.0.0.1:1"])?;
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}
