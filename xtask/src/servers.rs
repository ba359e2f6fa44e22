use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use xxhash_rust::xxh3::Xxh3;

use crate::{root, say};

/// What tests run against, each a folder with `install` and `start`.
pub(crate) const ALL: [&str; 6] =
    ["rnacos", "nacos", "rocketmq", "postgresql", "mariadb", "spring"];

/// Those that can be started by hand, each with the port that it usually has.
const SERVERS: [(&str, u16); 5] = [
    ("rnacos", 8848),
    ("nacos", 8848),
    ("rocketmq", 9876),
    ("postgresql", 5432),
    ("mariadb", 3306),
];

/// Those that are built by Maven.
const JAVA: [&str; 3] = ["nacos", "rocketmq", "spring"];

/// Installs the real servers of the tests into the cache, and starts one where it is named.
#[derive(Debug, clap::Args)]
pub(crate) struct Servers {
    /// The server to start in the foreground: `rnacos`, `nacos`, `rocketmq`, `postgresql` or `mariadb`.
    start: Option<String>,
    /// Its port, that of RocketMQ's name server; the usual one where not given.
    #[arg(long)]
    port: Option<u16>,
    /// The folder with its data; a fresh one in the system's temporary folder where not given.
    #[arg(long)]
    home: Option<PathBuf>,
}

impl Servers {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Some(name) = self.start else {
            for name in ALL {
                install(name)?;
            }
            return Ok(());
        };
        let Some((_, usual)) = SERVERS.iter().find(|(server, _)| *server == name) else {
            let names: Vec<_> = SERVERS.iter().map(|(name, _)| *name).collect();
            bail!("there is no server `{name}`, only {}", names.join(", "));
        };
        let folder = install(&name)?;
        let unique = format!("graylane-{name}-{}", std::process::id());
        let home = self.home.unwrap_or_else(|| std::env::temp_dir().join(unique));
        let port = self.port.unwrap_or(*usual);
        say(&format!("{name} on 127.0.0.1:{port}, data in {}", home.display()));
        let mut start = Command::new(folder.join("start"));
        run(start.arg(&home).arg(port.to_string()))
    }
}

/// Returns where servers are kept between runs: `$GRAYLANE_CACHE`, or `~/.cache/graylane`.
pub(crate) fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    std::env::var_os("GRAYLANE_CACHE").map_or_else(|| home.join(".cache/graylane"), PathBuf::from)
}

/// Installs a server unless it is there already, and returns its folder.
pub(crate) fn install(name: &str) -> anyhow::Result<PathBuf> {
    let recipe = root().join("xtask/servers").join(name);
    let folder = cache().join(format!("{name}-{}", digest(&recipe)?));
    let done = folder.join("installed");
    if done.exists() {
        return Ok(folder);
    }
    need_tools(name)?;
    say(&format!("installing {name} into {} (once)", folder.display()));
    let mut install = Command::new(recipe.join("install"));
    run(install.arg(&folder)).with_context(|| format!("{name} cannot be installed"))?;
    std::fs::write(done, "")?;
    Ok(folder)
}

/// A word that changes when a recipe does.
fn digest(recipe: &Path) -> anyhow::Result<String> {
    let mut files = vec![recipe.to_owned()];
    let mut hash = Xxh3::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let mut entries = std::fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
            entries.sort_by_key(std::fs::DirEntry::file_name);
            files.extend(entries.into_iter().map(|entry| entry.path()));
        } else {
            hash.update(&std::fs::read(&path)?);
        }
    }
    Ok(format!("{:08x}", hash.digest() >> 32))
}

/// Installs the Debian packages that a recipe needs, where they are missing.
fn need_tools(name: &str) -> anyhow::Result<()> {
    if !JAVA.contains(&name) || (has("mvn") && has("javac")) {
        return Ok(());
    }
    say("installing maven and a JDK by apt-get");
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    let packages =
        ["install", "-y", "-qq", "--no-install-recommends", "maven", "default-jdk-headless"];
    run(Command::new("apt-get").args(packages))
}

fn has(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(tool).is_file())
}

/// Runs a command, and fails where it does.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be run"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
