//! `xebec infer`: requests from the shell, one or a million.
//!
//! What is sent is one of: a request as it is (`request`), pictures (`pictures`), texts (`texts`), the rows of a CSV file
//! (`sheet`) or of a Parquet file (`parquet_file`).
use anyhow::ensure;
use clap::{Args, ValueEnum};
use server::{Model, Server};
use std::{path::PathBuf, process::ExitCode, time::Duration};

mod answer;
mod appended;
mod arrays;
mod batch;
mod csv;
mod flow;
mod found;
mod out;
mod parquet_file;
mod pictures;
mod request;
mod rows;
mod saving;
mod server;
mod sheet;
mod texts;

pub(crate) use request::lines;

/// Form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs: the server's answer as it is, or a line for each picture or text.
    Json,
}

/// Flags of `xebec infer`.
#[derive(Clone, Debug, Args)]
pub struct InferArgs {
    /// Name of the model.
    pub model: String,
    /// The request: a v2 infer request as JSON, a JSON array, or lines of numbers with commas (for a model with one
    /// input); - is standard input.
    #[arg(long, value_name = "FILE", default_value = "-", conflicts_with_all = ["image", "text", "csv", "parquet"])]
    pub input: PathBuf,
    /// Pictures, or folders of pictures: JPEG, PNG or WebP.
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["text", "csv", "parquet"])]
    pub image: Vec<PathBuf>,
    /// A text, as often as there are texts; - is the lines of standard input.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["csv", "parquet", "out"])]
    pub text: Vec<String>,
    /// Rows of a CSV file with the names of columns in its first line; wants --out FILE.csv.
    #[arg(long, value_name = "FILE", conflicts_with = "parquet", requires = "out")]
    pub csv: Option<PathBuf>,
    /// Rows of a Parquet file; wants --out FILE.parquet or FILE.csv.
    #[arg(long, value_name = "FILE", requires = "out")]
    pub parquet: Option<PathBuf>,
    /// Where rows go with their answers, or what is in pictures (.jsonl or .csv).
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace what is there.
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
    /// Go on with work that was interrupted; begin it if there is none.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// The model's input of BYTES that pictures or texts go to, if it has several.
    #[arg(long, value_name = "NAME")]
    pub input_name: Option<String>,
    /// Outputs that are wanted; all if not given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub outputs: Vec<String>,
    /// Where pictures that come back are saved: a file, or a folder; beside what was sent if not given.
    #[arg(long, value_name = "PATH", requires = "image")]
    pub save: Option<PathBuf>,
    /// Names of the classes, a line each, if the model does not tell them.
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Most labels that are shown of an answer.
    #[arg(long, value_name = "N", default_value = "5", value_parser = most_labels)]
    pub top: usize,
    /// Columns that the model's only input is made of, in order.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "without")]
    pub columns: Vec<String>,
    /// Columns that the model does not get.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub without: Vec<String>,
    /// The number that stands for an empty cell; nan is one.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub empty: Option<f64>,
    /// What is between the cells of a CSV file.
    #[arg(long, value_name = "C", default_value = ",", value_parser = delimiter)]
    pub delimiter: char,
    /// Rows of a request; the model's largest batch if not given.
    #[arg(long, value_name = "N", value_parser = some_rows)]
    pub rows: Option<usize>,
    /// Requests in flight.
    #[arg(long, value_name = "N", default_value = "4", value_parser = lanes)]
    pub in_flight: usize,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Version of the model, by number or label; the newest if not given.
    #[arg(long, value_name = "N")]
    pub model_version: Option<String>,
    /// How long to wait for an answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = crate::bench::some_seconds)]
    pub timeout: f64,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Form,
}

fn between(raw: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = raw.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be {least} to {most}"))
}

fn most_labels(raw: &str) -> Result<usize, String> {
    // More than that the server gives nobody.
    between(raw, 1, 4096)
}

fn some_rows(raw: &str) -> Result<usize, String> {
    between(raw, 1, 1 << 20)
}

fn lanes(raw: &str) -> Result<usize, String> {
    between(raw, 1, 256)
}

fn delimiter(raw: &str) -> Result<char, String> {
    let mut characters = raw.chars();
    match (characters.next(), characters.next()) {
        (Some(only), None) if !only.is_alphanumeric() && !"\"\r\n.-".contains(only) => Ok(only),
        _ => Err("must be one character that is no letter, digit, quote, point or minus, such as ;".into()),
    }
}

/// Sends what is to be sent and shows or writes the answers.
///
/// # Errors
/// The input is not one, the server is not there, or it answered with an error.
pub fn command(args: &InferArgs) -> anyhow::Result<ExitCode> {
    let server = Server::new(&args.url, Duration::from_secs_f64(args.timeout))?;
    ensure!(!args.model.is_empty(), "the name of the model is empty; GET /v2/models lists the names");
    let find = || Model::find(server.clone(), &args.model, args.model_version.as_deref());
    match (&args.csv, &args.parquet) {
        (Some(file), _) => sheet::command(args, &find()?, file),
        (None, Some(file)) => parquet_file::command(args, &find()?, file),
        (None, None) if !args.image.is_empty() => pictures::command(args, &find()?),
        (None, None) if !args.text.is_empty() => texts::command(args, &find()?),
        (None, None) => request::command(args, &server).map(|()| ExitCode::SUCCESS),
    }
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let keeps = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| if keeps(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn flags_that_cannot_be_meant_together_are_refused() {
        let parses = |line: &str| {
            let words = line.split(' ');
            crate::cli::command_line()
                .try_get_matches_from(words)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        for line in [
            "xebec infer m --image a.jpg b --save out --out x.jsonl --resume",
            "xebec infer m --text - --top 3",
            "xebec infer m --csv a.csv --out b.csv --overwrite --without id,fraud --empty -1",
            "xebec infer m --parquet a.parquet --out b.csv --columns a,b --rows 32 --in-flight 8",
        ] {
            assert_eq!(parses(line), Ok(()), "{line}");
        }
        for line in [
            "xebec infer m --image a.jpg --text x",
            "xebec infer m --csv a.csv",
            "xebec infer m --csv a.csv --out b.csv --overwrite --resume",
            "xebec infer m --csv a.csv --out b.csv --delimiter ab",
            "xebec infer m --input a.json --csv a.csv --out b.csv",
            "xebec infer m --top 0 --text x",
        ] {
            assert!(parses(line).is_err(), "{line}");
        }
    }
}
