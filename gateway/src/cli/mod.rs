//! What `graylane` can be told to do.

mod check;
#[cfg(feature = "demo")]
mod demo;
mod explain;
mod healthcheck;
#[cfg(feature = "mq")]
mod mq;
mod probe;
mod run;
mod schema;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use gray_config::{Override, overrides_from};

/// The exit code for a wrong configuration or command.
const WRONG: u8 = 2;

/// An API gateway for gray (canary) release in the Nacos and Spring Cloud world.
#[derive(Debug, Parser)]
#[command(name = "graylane", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged, such as `info` or `graylane=debug`.
    #[arg(long, global = true, env = "GRAYLANE_LOG", default_value = "info")]
    log: String,
    /// Logs as lines of JSON.
    #[arg(long, global = true, env = "GRAYLANE_LOG_JSON")]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tries gray release out: gateway, services and rules in one process.
    #[cfg(feature = "demo")]
    Demo(demo::Demo),
    /// Runs the gateway.
    Run(run::Run),
    /// Checks a configuration and the rules it names, without running it.
    Check(check::Check),
    /// Says how a request is decided, and why.
    Explain(explain::Explain),
    /// Sends requests in a lane, and shows where they went.
    Probe(probe::Probe),
    /// Shows how the messages of lanes stand, and decides who handles them.
    #[cfg(feature = "mq")]
    Mq(mq::Mq),
    /// Prints the JSON schema of a document.
    Schema(schema::Schema),
    /// Prints completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Prints the version.
    Version,
    /// Asks a running gateway whether it is ready, for container health checks.
    Healthcheck(healthcheck::Healthcheck),
}

/// Where the static configuration comes from.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// The static configuration.
    #[arg(short, long, env = "GRAYLANE_CONFIG", default_value = "graylane.yaml")]
    config: PathBuf,
    /// Sets one key over file and environment, such as `admin.address=127.0.0.1:9000`.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,
}

impl ConfigArgs {
    /// Returns what is put over the file, the strongest last.
    fn overrides(&self) -> Vec<Override> {
        let mut overrides = overrides_from("GRAYLANE", std::env::vars());
        overrides.extend(self.set.iter().cloned());
        overrides
    }
}

fn parse_set(text: &str) -> Result<Override, String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let path = key.split('.').map(str::to_owned).collect();
    Ok(Override { path, value: value.to_owned(), origin: format!("--set {key}").into() })
}

/// Runs the command that the command line names.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = log(&cli) {
        return fail(&error);
    }
    // One provider is named, since two that are linked would make rustls panic.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail(&anyhow::anyhow!("the TLS provider was chosen twice"));
    }
    let done = match cli.command {
        #[cfg(feature = "demo")]
        Command::Demo(demo) => demo.run(),
        Command::Run(run) => run.run(),
        Command::Check(check) => check.run(),
        Command::Explain(explain) => explain.run(),
        Command::Probe(probe) => probe.run(),
        #[cfg(feature = "mq")]
        Command::Mq(mq) => mq.run(),
        Command::Schema(schema) => schema.run(),
        Command::Completions { shell } => {
            // Into memory first: whoever reads it may end before it has read all.
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "graylane", &mut text);
            say(String::from_utf8_lossy(&text).trim_end())
        }
        Command::Version => say(&format!("graylane {}", env!("CARGO_PKG_VERSION"))),
        Command::Healthcheck(healthcheck) => healthcheck.run(),
    };
    done.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to be done where even this cannot be written.
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    ExitCode::from(WRONG)
}

/// Writes a line to standard output; a closed pipe is no failure.
fn say(text: &str) -> anyhow::Result<ExitCode> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn log(cli: &Cli) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if cli.log_json {
        builder.json().init();
    } else {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(terminal).init();
    }
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Returns when the process is told to stop.
async fn told_to_stop() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return interrupted.map(|()| "interrupt"),
            _ = term.recv() => return Ok("SIGTERM"),
            // A terminal that is closed, or a script that wants files to be read again, must not end it.
            Some(()) = hangup.recv() => tracing::info!(
                "SIGHUP: rules, instances, certificates and keys are read again whenever they change; \
                 what stands in the configuration itself takes effect after a restart"
            ),
        }
    }
}
