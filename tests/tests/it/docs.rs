//! Every document is tried: YAML is read, commands are run, and what they print is compared.
//!
//! A fence of `yaml` is a rule document, one of `yaml static` or with `listeners` a static
//! configuration. In a fence of `console`, lines after `$ ` are commands; each further line must
//! stand in what they print. A fence of `sh NAME` starts what those of `console NAME` ask. A fence of
//! `rust PATH` is a part of that file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Process, Stub, binary, eventually, free_port};

const STATIC: &str = "\
listeners: [{address: '127.0.0.1:0'}]
routes: [{service: app}]
discovery: {files: [registry.yaml]}
rules:
  files: [rules.yaml]
  lists: {vips: {file: vips.txt}, partner-networks: {file: partners.txt}}
user: {from: [{header: x-user-no}, {cookie: userNo}, {query: userNo}, {jwt: {secret: change-me}}]}
places:
  overrides:
  - {network: 127.0.0.0/8, city: 本地}
  - {network: 10.44.0.0/16, country: CN, province: 广东省, city: 广州市}
";

const REGISTRY: &str = "\
services:
  app:
  - {address: '127.0.0.1:7201', metadata: {version: V1}}
  - {address: '127.0.0.1:7202', metadata: {version: V2}}
";

struct Fence {
    line: usize,
    kind: String,
    text: String,
}

fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

fn fences(document: &str) -> anyhow::Result<Vec<Fence>> {
    let text = std::fs::read_to_string(root().join(document))?;
    let mut fences = Vec::new();
    let mut open: Option<Fence> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => {
                open = Some(Fence { line: index + 1, kind: kind.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => fences.extend(open.take()),
            (None, Some(fence)) => fence.text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    Ok(fences)
}

/// Runs a command as a reader would, with the binaries at hand.
fn shell(command: &str, folder: &Path) -> anyhow::Result<String> {
    let binaries = binary("graylane")?.parent().map(PathBuf::from).context("no folder")?;
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let output =
        Command::new("sh").args(["-c", command]).current_dir(folder).env("PATH", path).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Makes lines comparable: ports and revisions differ from run to run.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line.trim_end();
    while let Some((before, after)) = ["\"port\":", "revision="]
        .iter()
        .filter_map(|mark| rest.find(mark).map(|at| rest.split_at(at + mark.len())))
        .min_by_key(|(before, _)| before.len())
    {
        plain += before;
        rest = after.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    plain + rest
}

/// Runs the commands of a fence, and looks for the lines after each in what it prints.
fn try_console(
    fence: &Fence,
    document: &str,
    folder: &Path,
    adapt: &dyn Fn(&str) -> String,
) -> anyhow::Result<()> {
    let mut printed = String::new();
    for line in fence.text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            printed = shell(&adapt(command), folder)?.replace('\r', "");
            continue;
        }
        let found = printed.lines().any(|it| plain(it) == plain(line));
        ensure!(found, "{document}:{}: `{line}` is not in\n{printed}", fence.line);
    }
    Ok(())
}

fn is_static(fence: &Fence) -> bool {
    fence.kind == "yaml static" || fence.text.contains("listeners:")
}

fn try_document(document: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write("registry.yaml", REGISTRY)?;
    write("graylane.yaml", STATIC)?;
    write("rules.yaml", "lanes: []\n")?;
    write("vips.txt", "2001\n")?;
    let certified = rcgen::generate_simple_self_signed(["shop.example".to_owned()])?;
    write("tls.pem", &certified.cert.pem())?;
    write("tls.key", &certified.signing_key.serialize_pem())?;
    write("partners.txt", "203.0.113.0/24 # their office\n")?;
    let mut tried = 0;
    for fence in fences(document)? {
        match fence.kind.as_str() {
            "yaml" | "yaml static" if is_static(&fence) => {
                let defaults = "listeners: [{address: '127.0.0.1:0'}]\nroutes: [{service: app}]\n";
                let whole = fence.text.contains("listeners:");
                let text =
                    if whole { fence.text.clone() } else { format!("{defaults}{}", fence.text) };
                write("static.yaml", &text)?;
                let printed = shell("graylane check -c static.yaml", folder.path())?;
                let syntax = printed.contains("static.yaml:") && printed.contains("error: ");
                ensure!(!syntax, "{document}:{}: {printed}", fence.line);
            }
            "yaml" => write("rules.yaml", &fence.text)?,
            "console" => try_console(&fence, document, folder.path(), &str::to_owned)?,
            kind if kind.starts_with("rust ") => {
                let path = kind.trim_start_matches("rust ");
                let text = std::fs::read_to_string(root().join(path))?;
                ensure!(text.contains(&fence.text), "{document}:{}: not in {path}", fence.line);
            }
            _ => continue,
        }
        tried += 1;
    }
    ensure!(tried > 0, "{document} shows nothing");
    Ok(())
}

#[test]
fn the_rules_work_as_they_are_documented() -> anyhow::Result<()> {
    try_document("docs/rules.md")
}

#[test]
fn the_other_guides_can_be_followed() -> anyhow::Result<()> {
    for document in [
        "docs/nacos.md",
        "docs/operations.md",
        "docs/migrate-from-spring.md",
        "docs/services.md",
        "docs/java.md",
        "docs/messages.md",
    ] {
        try_document(document)?;
    }
    Ok(())
}

#[test]
fn the_readmes_commands_print_what_they_show() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (port, admin) = (free_port(&[]), free_port(&[]));
    let mut demo = Command::new(binary("graylane")?);
    demo.args(["demo", "--port", &port.to_string(), "--admin-port", &admin.to_string()]);
    let mut process = Process::start(&mut demo, &folder.path().join("log"))?;
    let rules = process.until(Duration::from_secs(10), |printed| {
        let line = printed.lines().find(|line| line.contains("The rules are watched"));
        line.filter(|_| printed.contains("Ctrl-C"))?.rsplit(' ').next().map(str::to_owned)
    })?;
    let adapt = |command: &str| {
        let command = command.replace(":8080", &format!(":{port}"));
        format!("RULES={rules}; {}", command.replace(":9901", &format!(":{admin}")))
    };
    let as_printed = std::fs::read_to_string(&rules)?;
    for document in ["README.md", "README.zh-CN.md"] {
        std::fs::write(&rules, &as_printed)?;
        shell("sleep 2", folder.path())?;
        let mut commands = Vec::new();
        for fence in fences(document)?.iter().filter(|fence| fence.kind == "console") {
            commands.extend(
                fence.text.lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned),
            );
            // The first is running above, the second is running this.
            if !fence.text.starts_with("$ cargo") {
                try_console(fence, document, folder.path(), &adapt)?;
            }
        }
        let cargo: Vec<&String> = commands.iter().filter(|it| it.starts_with("cargo")).collect();
        ensure!(cargo == ["cargo run --release -- demo", "cargo xtask test"], "{cargo:?}");
    }
    Ok(())
}

/// Makes a package of a service that was one of axum, and of what docs/services.md adds to it, as its reader
/// would; returns the program.
fn guides_service(folder: &Path) -> anyhow::Result<PathBuf> {
    let added = fences("docs/services.md")?.into_iter().find(|fence| fence.kind == "toml");
    let added = added.context("no fence of toml")?.text;
    let named = "path = \"../graylane/starter\"";
    ensure!(added.contains(named), "{added}");
    let here = root().join("starter");
    let added = added.replace(named, &format!("path = {:?}", here.display().to_string()));
    let before = before_the_guide()?;
    let manifest = format!(
        "[package]\nname = \"orders-of-the-guide\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{added}\
         axum = {{ version = \"0.8\", default-features = false, features = [\"http1\", \"tokio\"] }}\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"net\", \"rt-multi-thread\", \"signal\"] }}\n\
         reqwest = {{ version = \"0.12\", default-features = false }}\n\n[workspace]\n"
    );
    std::fs::create_dir_all(folder.join("src/bin"))?;
    std::fs::write(folder.join("src/bin/before.rs"), before)?;
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    // The versions that were downloaded for the workspace.
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    std::fs::copy(root().join("starter/examples/orders.rs"), folder.join("src/main.rs"))?;
    let target =
        binary("graylane")?.parent().and_then(Path::parent).context("no target")?.to_owned();
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--offline"])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", &target)
        .output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(target.join("debug/orders-of-the-guide"))
}

/// Applies the guide's steps to the service that it begins with, which leads to the one that it ends with, and
/// returns the first.
fn before_the_guide() -> anyhow::Result<String> {
    let all = fences("docs/services.md")?;
    let steps = &all.iter().find(|fence| fence.kind == "diff").context("no diff")?.text;
    let side = |other: char| -> String {
        let lines = steps.lines().filter(|line| !line.starts_with(other));
        lines.flat_map(|line| [line.get(1..).unwrap_or_default(), "\n"]).collect()
    };
    let example = std::fs::read_to_string(root().join("starter/examples/orders.rs"))?;
    let (_, after) = example.split_once("\n\n").context("no description")?;
    ensure!(side('-') == after, "the steps lead to:\n{}", side('-'));
    let added = steps.lines().filter(|line| line.starts_with('+')).count();
    ensure!(added <= 10, "{added} lines are more than ten");
    Ok(side('+'))
}

/// The service of docs/services.md, built and run as its reader would: it calls user-app in the lane
/// that it was called in.
#[tokio::test]
async fn the_guides_service_is_part_of_gray_release() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let program = guides_service(folder.path())?;
    let users = [Stub::start("V1").await?, Stub::start("V2").await?];
    let lines: String = users.iter().map(Stub::registry_line).collect();
    let registry = folder.path().join("registry.yaml");
    std::fs::write(&registry, format!("services:\n  user-app:\n{lines}"))?;
    let port = free_port(&[]);
    let mut service = Command::new(&program);
    service.arg(format!("127.0.0.1:{port}")).env("GRAYLANE_REGISTRY", registry);
    service
        .env("GRAYLANE_VERSION", "V1")
        .env("GRAYLANE_BASE", "V1")
        .env("GRAYLANE_LANES", "gray=V2");
    let mut service = Process::start(&mut service, &folder.path().join("log"))?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    for (lane, version) in [("PROD", "V1"), ("GRAY", "V2")] {
        eventually(Duration::from_secs(10), async || {
            let request = client.get(format!("http://127.0.0.1:{port}/order"));
            let text = request.header("gray", lane).send().await?.text().await?;
            let served = text.contains(&format!("\"version\":\"{version}\""));
            ensure!(served && text.contains(&format!("\"gray\":[\"{lane}\"]")), "{text}");
            Ok(())
        })
        .await?;
    }
    // As orchestrators do.
    service.signal("-TERM")?;
    ensure!(service.wait(Duration::from_secs(15))? == Some(0), "{}", service.printed());
    // As the guide starts it, with the demo's user-app.
    let by_cargo = "cargo run --release -p gray-starter --example orders --";
    try_script("services", &[(by_cargo, &program.display().to_string())]).await
}

/// Gives each address that a guide's script names a port that is free.
fn free_addresses(text: &str) -> BTreeMap<String, String> {
    let parts = text.split("127.0.0.1:").skip(1);
    let numbers =
        parts.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    let mut free = BTreeMap::new();
    for port in numbers {
        free.entry(format!("127.0.0.1:{port}"))
            .or_insert_with(|| format!("127.0.0.1:{}", free_port(&[])));
    }
    free
}

/// Runs a script of docs/services.md until its commands have printed what they show.
async fn try_script(name: &str, more: &[(&str, &str)]) -> anyhow::Result<()> {
    let all = fences("docs/services.md")?;
    let of = |kind: &str| all.iter().find(|fence| fence.kind == format!("{kind} {name}"));
    let (script, asked) = (of("sh").context("no script")?, of("console").context("no commands")?);
    let addresses = free_addresses(&script.text);
    let adapt = |text: &str| {
        let mut text = text.to_owned();
        for (shown, used) in
            addresses.iter().map(|(a, b)| (a.as_str(), b.as_str())).chain(more.iter().copied())
        {
            text = text.replace(shown, used);
        }
        text
    };
    let folder = tempfile::tempdir()?;
    let whole =
        format!("trap 'kill $(jobs -p); wait; exit 0' TERM\n{}\nwait\n", adapt(&script.text));
    let binaries = binary("graylane")?.parent().map(PathBuf::from).context("no folder")?;
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-c", &whole]).current_dir(folder.path()).env("PATH", path);
    let mut process = Process::start(&mut command, &folder.path().join("log"))?;
    let tried = eventually(Duration::from_secs(30), async || {
        try_console(asked, "docs/services.md", folder.path(), &adapt)
    })
    .await;
    process.signal("-TERM")?;
    ensure!(process.wait(Duration::from_secs(20))? == Some(0), "{}", process.printed());
    tried.with_context(|| process.printed())
}

#[tokio::test]
async fn the_guides_chain_can_be_started() -> anyhow::Result<()> {
    try_script("chain", &[]).await
}

#[test]
fn cargo_run_is_graylane() -> anyhow::Result<()> {
    let output = Command::new("cargo")
        .args(["run", "--quiet", "--", "version"])
        .current_dir(root())
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(printed.starts_with("graylane 0."), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
