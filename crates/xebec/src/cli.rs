//! Subcommands and what they answer the shell.
use crate::{
    bench,
    config::{
        self, Faults,
        flags::{CONFIG_VARIABLE, Flags, REPOSITORY, REPOSITORY_VARIABLE, Setting},
        machine,
    },
    doctor, files, infer, inspect, quantize, run, tune,
};
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

/// Wrong usage or configuration, as in BSD's sysexits.
const EX_USAGE: u8 = 64;

const AFTER_HELP: &str = "\
Examples:
  xebec up examples/fraud-detection        serve what a folder's YAML describes
  xebec serve --model-repository models    serve .onnx files or Triton's layout
  xebec infer fraud-mlp --input examples/fraud-detection/request.json
  xebec doctor models                      what is wrong, and the way out
  xebec inspect fraud.onnx                 inputs, operators, cost of a run
  xebec tune models/fraud --slo-p99 5ms    best instances, threads and batch
  xebec bench fraud-mlp --concurrency 64   load, latencies and throughput
  xebec completions bash                   shell completion

Every flag of 'serve' and 'up' is also a variable (--http-port is
XEBEC_HTTP_PORT) and a key of the file that --config names (http-port: 8000).
Flags win over variables, variables over the file.";

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
    /// Send a request, pictures, texts or the rows of a table, and show or write the answers.
    #[command(
        after_help = "Examples:\n  xebec infer fraud-mlp --input examples/fraud-detection/request.json\n  echo '[1, 2, 3, 4]' | xebec infer scaler\n  xebec infer detect --image street.jpg                 a table; street.boxes.jpg if the model draws\n  xebec infer detect --image photos --out found.jsonl   a line for each picture of a folder\n  xebec infer sentiment --text \"what a day\"\n  xebec infer fraud-mlp --csv transactions.csv --without fraud --out scored.csv\n  xebec infer fraud-mlp --parquet month.parquet --out scored.parquet --resume\n\nWith --out, Ctrl-C and whatever else ends it leave what is done; --resume goes on there.\nExit status 0: all was answered. 1: something failed, and the text says what. 64: the flags are wrong. 130: Ctrl-C."
    )]
    Infer(infer::InferArgs),
    /// Put load on a server of the Open Inference Protocol and report latencies and throughput.
    #[command(
        after_help = "Examples:\n  xebec bench fraud-mlp --concurrency 64                          REST, binary tensors\n  xebec bench fraud-mlp --url 127.0.0.1:8001 --concurrency 64     gRPC\n  xebec bench fraud-mlp --protocol json --rate 1000 --concurrency 256\n\nLatencies are in microseconds. With --rate they count from when a request was due."
    )]
    Bench(bench::BenchArgs),
    /// Find the arrangement of a model (instances, threads, batch, delay) that answers most, or soonest, on this machine.
    #[command(
        after_help = "Examples:\n  xebec tune models/fraud --slo-p99 5ms --write        the highest throughput with a p99 of at most 5 ms\n  xebec tune fraud.onnx --concurrency 64 --svg tune.svg\n  xebec tune fraud.onnx --rate 2000 --time 90s         the lowest p99 at 2000 requests a second\n\nThe model runs in this process, without sockets. Exit status 1: nothing does what was asked for."
    )]
    Tune(tune::TuneArgs),
    /// Make a smaller and faster copy of a model (int8 or fp16) and tell what it loses and gains.
    #[command(
        after_help = "Examples:\n  xebec quantize fraud.onnx -o fraud-int8.onnx --mode static --calibration train.csv --eval test.csv --max-loss 0.02 --python venv/bin/python\n  xebec quantize encoder.onnx -o encoder-fp16.onnx --mode fp16 --free-extent 32 --python venv/bin/python\n\nThe rewriting is onnxruntime's own, in the Python environment named by --python (packages onnx and onnxruntime).\nExit status 1: the copy loses more than --max-loss and was not written."
    )]
    Quantize(quantize::QuantizeArgs),
    /// Tell what is wrong or doubtful about a model or a repository, and print a corrected config.pbtxt.
    #[command(
        after_help = "Examples:\n  xebec doctor models                  every model of a repository\n  xebec doctor models/fraud --write    correct its config.pbtxt; the old one is kept as config.pbtxt.bak\n  xebec doctor fraud.onnx --json\n\nExit status 0: nothing has to be done (there may be warnings). 1: there is something to fix, or the path cannot be read.\n64: the flags are wrong."
    )]
    Doctor(doctor::DoctorArgs),
    /// Tell what a model holds: inputs, outputs, operators, parameters, what stops batching, cost of a run.
    #[command(
        after_help = "Examples:\n  xebec inspect fraud.onnx\n  xebec inspect models/fraud --json\n  xebec inspect fraud.onnx --no-run    the file alone, without an engine\n\nExit status 0: the file was read; where it cannot be run a warning says why. 1: it cannot be read or is no ONNX\nmodel. 64: the flags are wrong."
    )]
    Inspect(inspect::InspectArgs),
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

/// The command line. Help tells the variable and the default of each setting, which its parser does not know: it sees
/// flags alone.
pub fn command_line() -> clap::Command {
    let serving = ["serve", "up"].into_iter();
    serving.fold(Cli::command(), |command, name| {
        command.mut_subcommand(name, |serving| serving.mut_args(with_layers_below))
    })
}

fn with_layers_below(arg: Arg) -> Arg {
    let text = match arg.get_long().unwrap_or_default() {
        "config" => format!("[env: {CONFIG_VARIABLE}]"),
        REPOSITORY => format!("[env: {REPOSITORY_VARIABLE}]"),
        name => match Setting::named(name) {
            Some(Setting { variable, default: "", .. }) => format!("[env: {variable}]"),
            Some(Setting { variable, default, .. }) => format!("[env: {variable}] [default: {default}]"),
            None => return arg,
        },
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} {text}"))
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match command_line().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
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
        Command::Infer(args) => infer::command(&args),
        Command::Bench(args) => bench::command(&args).map(|()| ExitCode::SUCCESS),
        Command::Tune(args) => tune::command(&args),
        Command::Doctor(args) => doctor::command(&args),
        Command::Inspect(args) => inspect::command(&args).map(|()| ExitCode::SUCCESS),
        Command::Quantize(args) => quantize::command(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command_line(), "xebec", &mut script);
            show(&script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Checks everything that is configured, and only then serves.
fn with_config(flags: Flags, folder: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut faults = Faults::default();
    let config = config::load(&flags, &machine::environment(), folder.is_none(), &mut faults);
    let services = folder.map(|folder| files::read(&folder, &mut faults));
    if let Some(config) = config.as_ref().filter(|_| flags.check_config) {
        config.check_files(&mut faults);
        config.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    }
    let Some(config) = config.filter(|_| faults.is_empty()) else {
        // If standard error is gone the exit status says it alone.
        let _ = faults.print(&mut io::stderr().lock());
        return Ok(ExitCode::from(EX_USAGE));
    };
    if flags.check_config {
        let mut text = Vec::new();
        config.print(&mut text)?;
        show(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    run::run(&config, services)
}

/// Prints to standard output. A reader that has seen enough, such as `head`, is no error.
pub(crate) fn show(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => shown,
    }
}

pub(crate) fn say(text: &str) {
    // If standard error is gone there is nowhere left to say so.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::flags::SETTINGS;
    use xebec_core::metrics::names;

    fn help(name: &str) -> String {
        let mut command = command_line();
        command.build();
        command.find_subcommand_mut(name).unwrap().render_long_help().to_string()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command_line().debug_assert();
    }

    #[test]
    fn help_tells_variable_and_default_of_every_setting() {
        for name in ["serve", "up"] {
            let words = help(name).split_whitespace().collect::<Vec<_>>().join(" ");
            for setting in SETTINGS {
                let variable = format!("[env: {}]", setting.variable);
                assert!(words.contains(&variable), "{name}: {variable}\n{words}");
                let default = format!("{variable} [default: {}]", setting.default);
                assert_eq!(words.contains(&default), !setting.default.is_empty(), "{name}: {default}");
            }
        }
    }

    #[test]
    fn the_first_help_fits_a_narrow_terminal() {
        for line in AFTER_HELP.lines() {
            assert!(line.len() < 80, "{line}");
        }
    }

    /// A page of the guide, and what it must name.
    fn names_all(page: &str, names: impl IntoIterator<Item = String>) {
        let path = format!("{}/../../docs/guide/{page}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let missing: Vec<String> = names.into_iter().filter(|name| !text.contains(name.as_str())).collect();
        assert!(missing.is_empty(), "{page} lacks {missing:#?}");
    }

    #[test]
    fn the_guide_has_flag_variable_and_default_of_every_setting() {
        let flags = SETTINGS.iter().filter(|setting| setting.name != "i-know-this-is-insecure");
        names_all(
            "configuration.md",
            flags.map(|Setting { name, variable, default }| match *default {
                "" => format!("| `--{name}` | `{variable}` | none |"),
                default => format!("| `--{name}` | `{variable}` | `{default}` |"),
            }),
        );
        let others =
            ["`--i-know-this-is-insecure[=BOOL]` | `XEBEC_I_KNOW_THIS_IS_INSECURE`", CONFIG_VARIABLE];
        names_all(
            "configuration.md",
            others.map(str::to_owned).into_iter().chain([REPOSITORY_VARIABLE.into()]),
        );
    }

    #[test]
    fn the_guide_has_every_metric() {
        names_all("operations.md", names::ALL.iter().map(|family| format!("`{}`", family.name)));
    }

    #[test]
    fn the_command_lines_of_tritonservers_users_parse() {
        for line in [
            "xebec serve --model-repository=/models --http-port=8000 --grpc-port 8001 --metrics-port 8002",
            "xebec serve --model-repository /a --model-repository /b --model-control-mode none --exit-on-error=false",
            "xebec serve --model-repository /a --allow-http=false --strict-readiness=true --http-thread-count 4",
            "xebec serve --model-repository /a --exit-timeout-secs 10 --http-address localhost --id triton",
            "xebec up examples --i-know-this-is-insecure --check-config",
        ] {
            command_line().try_get_matches_from(line.split(' ')).unwrap();
        }
    }
}
