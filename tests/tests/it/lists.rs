//! Lists as large as they may become: a million users and a million networks.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Echo, Gateway, Stub, eventually};

const COUNT: u32 = 1_000_000;

const RULES: &str = "\
base: {version: V1}
lanes: [{name: gray, version: V2}]
rules:
- {name: users, when: {user: {inList: users}}}
- {name: nets, when: {clientIp: {inList: nets}}}
";

/// Writes a list over an older one, as a process does that must not be seen half-way.
fn write(path: &Path, line: &dyn Fn(u32, &mut String)) -> anyhow::Result<()> {
    let mut text = String::new();
    for number in 0..COUNT {
        line(number, &mut text);
        text.push('\n');
    }
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text)?;
    Ok(std::fs::rename(fresh, path)?)
}

/// The network of a number: every second /29 from 32.0.0.0 on, so that no two of them touch.
fn network(number: u32) -> [u8; 4] {
    ((32 << 24) + (number << 4)).to_be_bytes()
}

async fn version(gateway: &Gateway, user: &str, address: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let request = client.get(gateway.url("/")).header("x-user-no", user);
    let answer = request.header("x-forwarded-for", address).send().await?;
    Ok(Echo::read(answer.error_for_status()?).await?.version)
}

#[tokio::test]
async fn a_million_users_and_networks_are_told_apart() -> anyhow::Result<()> {
    let stubs = [Stub::start("V1").await?, Stub::start("V2").await?];
    let folder = tempfile::tempdir()?;
    let lines: String = stubs.iter().map(Stub::registry_line).collect();
    std::fs::write(folder.path().join("registry.yaml"), format!("services:\n  app:\n{lines}"))?;
    std::fs::write(folder.path().join("rules.yaml"), RULES)?;
    let (users, nets) = (folder.path().join("users.txt"), folder.path().join("nets.txt"));
    write(&users, &|number, text| {
        let _ = write!(text, "u{number}");
    })?;
    write(&nets, &|number, text| {
        let [a, b, c, d] = network(number);
        let _ = write!(text, "{a}.{b}.{c}.{d}/29");
    })?;
    let gateway = Gateway::start_in(
        folder,
        "routes: [{service: app}]\ndiscovery: {files: ['{dir}/registry.yaml']}\n\
         trustedProxies: [127.0.0.1]\n\
         rules: {files: ['{dir}/rules.yaml'], lists: {users: {file: '{dir}/users.txt'}, \
         nets: {file: '{dir}/nets.txt'}}}\n",
    )?;
    gateway.ready().await?;
    for number in [0, 1, 499_999, COUNT - 1] {
        let [a, b, c, d] = network(number);
        for (user, address, expected) in [
            (format!("u{number}"), "192.0.2.1".to_owned(), "V2"),
            (format!("u{number}x"), "192.0.2.1".to_owned(), "V1"),
            ("nobody".to_owned(), format!("{a}.{b}.{c}.{}", d + 7), "V2"),
            ("nobody".to_owned(), format!("{a}.{b}.{c}.{}", d + 8), "V1"),
        ] {
            let version = version(&gateway, &user, &address).await?;
            ensure!(version == expected, "{user} from {address} is served by {version}");
        }
    }
    // It is replaced while the gateway serves.
    write(&users, &|number, text| {
        let _ = write!(text, "w{number}");
    })?;
    eventually(Duration::from_mins(1), async || {
        let last = format!("w{}", COUNT - 1);
        ensure!(version(&gateway, &last, "192.0.2.1").await? == "V2", "not yet");
        Ok(())
    })
    .await?;
    ensure!(version(&gateway, "u0", "192.0.2.1").await? == "V1");
    Ok(())
}
