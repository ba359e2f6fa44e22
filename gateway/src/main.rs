//! The command line of Graylane.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
