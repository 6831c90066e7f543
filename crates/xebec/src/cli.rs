//! Subcommands and what they answer the shell.
use crate::{
    bench,
    config::{self, Faults, flags::Flags},
    files, infer, run,
};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use std::{io::Write as _, path::PathBuf, process::ExitCode};

/// Wrong usage or configuration, as in BSD's sysexits.
const EX_USAGE: u8 = 64;

const AFTER_HELP: &str = "\
Examples:
  xebec up examples/fraud-detection          serve the models that the YAML files of a folder describe
  xebec serve --model-repository models      serve a folder of .onnx files, or a Triton repository
  xebec infer fraud-mlp --input examples/fraud-detection/request.json
  xebec bench fraud-mlp --concurrency 64     load, latencies and throughput
  xebec completions bash                     shell completion

Every flag of 'serve' and 'up' is also a variable (--http-port is XEBEC_HTTP_PORT) and a key of the
file that --config names (http-port: 8000). Flags win over variables, variables over the file.";

/// Serve ONNX models over the Open Inference Protocol (REST and gRPC), at the engine's speed.
#[derive(Debug, Parser)]
#[command(name = "xebec", version, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a model repository: bare .onnx files, or folders in Triton's layout.
    #[command(
        after_help = "Example:\n  xebec serve --model-repository models --http-port 8080 --access-log json"
    )]
    Serve(Serve),
    /// Serve what the YAML files of a folder describe: the same files that later run on Kubernetes.
    #[command(
        after_help = "DIR and its direct subfolders are read for *.yaml and *.yml; each document is a resource of\nxebec.dev/v1alpha1, today an InferenceService. An unknown field is an error.\n\nExample:\n  xebec up examples"
    )]
    Up(Up),
    /// Send one request and print the answer.
    #[command(
        after_help = "Examples:\n  xebec infer fraud-mlp --input examples/fraud-detection/request.json\n  echo '[1, 2, 3, 4]' | xebec infer scaler"
    )]
    Infer(infer::InferArgs),
    /// Put load on a server of the Open Inference Protocol and report latencies and throughput.
    #[command(
        after_help = "Examples:\n  xebec bench fraud-mlp --concurrency 64                          REST, binary tensors\n  xebec bench fraud-mlp --url 127.0.0.1:8001 --concurrency 64     gRPC\n  xebec bench fraud-mlp --protocol json --rate 1000 --concurrency 256\n\nLatencies are in microseconds. With --rate they count from when a request was due."
    )]
    Bench(bench::BenchArgs),
    /// Print the completion script of a shell.
    #[command(after_help = "Example:\n  xebec completions bash > /etc/bash_completion.d/xebec")]
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Args)]
struct Up {
    /// Folder of YAML files.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    flags: Flags,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for; everything else is wrong usage.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(serve) => with_config(serve.flags, None),
        Command::Up(up) => with_config(up.flags, Some(up.folder)),
        Command::Infer(args) => infer::command(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::command(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "xebec", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Checks everything that is configured, and only then serves.
fn with_config(flags: Flags, folder: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let check_only = flags.check_config;
    let mut faults = Faults::default();
    let config = config::load(flags, folder.is_none(), &mut faults);
    let services = folder.map(|folder| files::read(&folder, &mut faults));
    let Some(config) = config.filter(|_| faults.is_empty()) else {
        faults.print(&mut std::io::stderr().lock())?;
        return Ok(ExitCode::from(EX_USAGE));
    };
    if check_only {
        config.print(&mut std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    run::run(&config, services)
}

fn say(text: &str) {
    // If standard error is gone there is nowhere left to say so.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_lines_of_tritonservers_users_parse() {
        for line in [
            "xebec serve --model-repository=/models --http-port=8000 --grpc-port 8001 --metrics-port 8002",
            "xebec serve --model-repository /a --model-repository /b --model-control-mode none --exit-on-error=false",
            "xebec serve --model-repository /a --allow-http=false --strict-readiness=true --http-thread-count 4",
            "xebec serve --model-repository /a --exit-timeout-secs 10 --http-address 127.0.0.1",
            "xebec up examples --i-know-this-is-insecure --check-config",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap();
        }
    }
}
