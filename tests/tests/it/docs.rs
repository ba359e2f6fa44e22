//! Every document is tried: YAML is read, commands are run, and what they print is compared.
//!
//! A fence of `yaml` is a rule document, one of `yaml static` or with `listeners` a static
//! configuration. In a fence of `console`, lines after `$ ` are commands; each further line must
//! stand in what they print. A fence of `rust PATH` is a part of that file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use gray_tests::{Process, binary, free_port};

const STATIC: &str = "\
listeners: [{address: '127.0.0.1:0'}]
routes: [{service: app}]
discovery: {files: [registry.yaml]}
rules:
  files: [rules.yaml]
  lists: {vips: {file: vips.txt}, partner-networks: {file: partners.txt}}
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
    process.until(Duration::from_secs(10), |it| it.contains("Ctrl-C").then_some(()))?;
    let adapt = |command: &str| {
        let command = command.replace(":8080", &format!(":{port}"));
        command.replace(":9901", &format!(":{admin}"))
    };
    for document in ["README.md", "README.zh-CN.md"] {
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
