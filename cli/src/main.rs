//! The command line client, `waxwing`: one device of one person per folder.
//!
//! Data goes to stdout, talk to stderr; the exit code says what happened ([`error::Exit`]). The JSON is described in `docs/CLI.md`.

mod args;
mod commands;
mod error;
mod output;
mod place;
mod prompt;
mod show;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let output = output::Output::new(&args.global);
    watch(args.global.verbose);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(args, &output)),
        Err(e) => Err(error::Failure::internal(format!("cannot start: {e}"))),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit.into()
        }
    }
}

/// What the SDK logs goes to stderr: nothing, or more with each `-v`.
fn watch(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = format!("warn,client={level},crypto={level},waxwing={level}");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
