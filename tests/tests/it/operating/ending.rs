//! How commands end that need no server: what is refused, what is away, and what is never shown.

use std::process::Command;

use anyhow::ensure;
use gray_tests::{binary, free_port};

/// Runs a program with a state that nobody answers for; returns what it prints, and its exit code.
fn run(program: &str, arguments: &[&str]) -> anyhow::Result<(String, Option<i32>)> {
    let nobody = free_port(&[1000]);
    let mut command = Command::new(binary(program)?);
    command.args(arguments).env("GRAYLANE_MQ", format!("127.0.0.1:{nobody}"));
    let state = format!("postgres://me:hush@127.0.0.1:{nobody}/mq");
    let output = command.env("GRAYLANE_MQ_STATE", state).output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8_lossy(&said).into_owned(), output.status.code()))
}

/// Help showed what the environment had, with the password.
#[test]
fn help_shows_no_password() -> anyhow::Result<()> {
    let helps: [(&str, &[&str]); 4] = [
        ("graylane", &["mq", "--help"]),
        ("graylane", &["mq", "-h"]),
        ("graylane", &["mq", "audit", "--help"]),
        ("graylane-demo", &["--help"]),
    ];
    for (program, arguments) in helps {
        let (text, code) = run(program, arguments)?;
        ensure!(code == Some(0) && text.contains("GRAYLANE_MQ_STATE"), "{text}");
        ensure!(!text.contains("hush"), "{program} {arguments:?} shows a password: {text}");
    }
    Ok(())
}

/// Whoever runs an audit by a timer has to tell messages that are lost from a database that is away.
#[test]
fn tables_that_cannot_be_had_have_an_exit_code_of_their_own() -> anyhow::Result<()> {
    let tasks: [&[&str]; 5] = [
        &["mq", "audit"],
        &["mq", "status"],
        &["mq", "drain", "orders", "orders", "gray"],
        &["mq", "forget-broker", "orders", "orders", "broker-a"],
        &["mq", "audit", "--state", "sqlite://here"],
    ];
    for task in tasks {
        let (text, code) = run("graylane", task)?;
        ensure!(code == Some(3) && !text.contains("hush"), "{task:?}: {code:?} {text}");
    }
    Ok(())
}

/// It was accepted, and messages were given to consumers that there cannot be.
#[test]
fn a_lane_that_can_have_no_consumers_is_not_opened() -> anyhow::Result<()> {
    for lane in ["team_a", "v2.1"] {
        let (text, code) = run("graylane", &["mq", "open", "orders", "orders", lane])?;
        let named = text.contains(&format!("lane `{lane}` has no consumer group"));
        ensure!(code == Some(2) && named, "{code:?} {text}");
    }
    let (text, code) = run("graylane", &["mq", "open", "orders", "orders", "team-a"])?;
    ensure!(code == Some(3), "{code:?} {text}");
    Ok(())
}
