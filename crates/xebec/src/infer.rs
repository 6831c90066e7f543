//! `xebec infer`: one request from the shell.
use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Number, Value, json};
use std::{io::Read as _, path::PathBuf, time::Duration};

/// Largest answer that is read.
const ANSWER_BYTES: u64 = 1 << 30;

/// Form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// The server's answer as it is.
    Json,
}

/// Flags of `xebec infer`.
#[derive(Clone, Debug, Args)]
pub struct InferArgs {
    /// Name of the model.
    pub model: String,
    /// The request: a v2 infer request as JSON, a JSON array, or lines of numbers with commas (for a model with one
    /// input); - is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub input: PathBuf,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Version of the model, by number or label; the newest if not given.
    #[arg(long, value_name = "N")]
    pub model_version: Option<String>,
    /// How long to wait for the answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = crate::bench::some_seconds)]
    pub timeout: f64,
    /// Form of the answer.
    #[arg(long, value_enum, default_value_t)]
    pub output: Form,
}

/// Sends the request and prints the answer.
///
/// # Errors
/// The input is not one, the server is not there, or it answered with an error.
pub fn command(args: &InferArgs) -> anyhow::Result<()> {
    ensure!(args.url.starts_with("http://"), "{}: write http://host:port", args.url);
    ensure!(!args.model.is_empty(), "the name of the model is empty; GET /v2/models lists the names");
    let text = read(args)?;
    let server =
        Server { url: args.url.trim_end_matches('/'), patience: Duration::from_secs_f64(args.timeout) };
    let version = args.model_version.as_deref().map(|version| format!("/versions/{}", segment(version)));
    let path = format!("/v2/models/{}{}", segment(&args.model), version.unwrap_or_default());
    let request = request(&text, || Ok(server.get(&path)?.1))?;
    let (text, answer) = server.post(&format!("{path}/infer"), &request)?;
    let shown = match args.output {
        Form::Json => text,
        Form::Table => table(&answer)?,
    };
    crate::cli::show(format!("{shown}\n").as_bytes())?;
    Ok(())
}

/// A name as one segment of a path.
pub(crate) fn segment(name: &str) -> String {
    let keeps = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes()
        .map(|byte| if keeps(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn read(args: &InferArgs) -> anyhow::Result<String> {
    let mut text = String::new();
    if args.input.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).context("cannot read standard input")?;
    } else {
        text = std::fs::read_to_string(&args.input)
            .with_context(|| format!("cannot read {}", args.input.display()))?;
    }
    ensure!(
        !text.trim().is_empty(),
        "the input is empty; give a v2 request, a JSON array or lines of numbers"
    );
    Ok(text)
}

/// Makes a v2 request of what was given.
fn request(text: &str, metadata: impl FnOnce() -> anyhow::Result<Value>) -> anyhow::Result<String> {
    let trimmed = text.trim_start();
    if trimmed.starts_with('{') {
        // Sent as it is: the server's own message about a fault is the best one.
        return Ok(text.to_owned());
    }
    let data = if trimmed.starts_with('[') {
        serde_json::from_str(text).context("the input is not a JSON array")?
    } else {
        lines(text)?
    };
    let metadata = metadata()?;
    let inputs = metadata["inputs"].as_array().cloned().unwrap_or_default();
    let [input] = inputs.as_slice() else {
        bail!("the model has {} inputs; give a whole v2 request", inputs.len());
    };
    let shape = shape(&data, input)?;
    let input = json!({"name": input["name"], "datatype": input["datatype"], "shape": shape, "data": data});
    Ok(json!({"inputs": [input]}).to_string())
}

/// Lines of numbers with commas; a first line without a number is a head.
pub(crate) fn lines(text: &str) -> anyhow::Result<Value> {
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match line.split(',').map(|cell| cell_value(cell.trim())).collect::<Option<Vec<Number>>>() {
            Some(cells) => rows.push(cells),
            None if number == 0 => (),
            None => bail!("line {} is not finite numbers with commas", number + 1),
        }
    }
    ensure!(
        !rows.is_empty(),
        "the input has no numbers; give a v2 request, a JSON array or lines of numbers with commas"
    );
    Ok(json!(rows))
}

/// A number as it was written: a whole one stays whole, because a model may take nothing else.
fn cell_value(cell: &str) -> Option<Number> {
    cell.parse().ok().or_else(|| Number::from_f64(cell.parse().ok()?))
}

/// The extents of a nested array; a flat one becomes one row if the model wants rows, and a single number a scalar if
/// the model wants that.
fn shape(data: &Value, input: &Value) -> anyhow::Result<Vec<usize>> {
    let mut shape = Vec::new();
    let mut level = data;
    while let Value::Array(values) = level {
        shape.push(values.len());
        match values.first() {
            Some(first) => level = first,
            None => break,
        }
    }
    let rank = input["shape"].as_array().map_or(shape.len(), Vec::len);
    if shape.len() + 1 == rank {
        shape.insert(0, 1);
    }
    if rank == 0 && shape.iter().all(|extent| *extent == 1) {
        shape.clear();
    }
    ensure!(shape.len() == rank, "the data has {} axes, but the model takes {}", shape.len(), input["shape"]);
    Ok(shape)
}

/// Where to ask, and for how long.
struct Server<'a> {
    url: &'a str,
    patience: Duration,
}

impl Server<'_> {
    fn get(&self, path: &str) -> anyhow::Result<(String, Value)> {
        let get = ureq::get(format!("{}{path}", self.url)).config();
        self.answer(get.timeout_global(Some(self.patience)).http_status_as_error(false).build().call())
    }

    fn post(&self, path: &str, request: &str) -> anyhow::Result<(String, Value)> {
        let post = ureq::post(format!("{}{path}", self.url)).config();
        let post = post.timeout_global(Some(self.patience)).http_status_as_error(false).build();
        self.answer(post.content_type("application/json").send(request))
    }

    /// What the server answered, as it is and read, if it is an answer and no fault.
    fn answer(
        &self,
        sent: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<(String, Value)> {
        let late = || format!("no answer from {} within {} s", self.url, self.patience.as_secs_f64());
        let mut answer = match sent {
            Err(ureq::Error::Timeout(_)) => bail!(late()),
            sent => sent.with_context(|| {
                format!("no answer from {}; is the server running? (xebec up DIR)", self.url)
            })?,
        };
        let status = answer.status().as_u16();
        let text = match answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string() {
            Err(ureq::Error::Timeout(_)) => bail!(late()),
            text => text?,
        };
        let body = serde_json::from_str(&text).or_else(|_| serde_json::from_str(&with_strings(&text)));
        let body =
            body.with_context(|| format!("status {status}, and the answer is not JSON: {text:.200}"))?;
        fault(status, &body)?;
        Ok((text, body))
    }
}

/// An answer with its bare NaN and Infinity as strings: servers of the protocol write them, and JSON has no such numbers.
fn with_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(first) = rest.chars().next() {
        let bare =
            ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !quoted && rest.starts_with(word));
        let taken = match bare {
            Some(word) => {
                out.push_str(&format!("\"{word}\""));
                word.len()
            }
            None => {
                // An escaped quote ends no string.
                let length = if quoted && first == '\\' {
                    rest.chars().take(2).map(char::len_utf8).sum()
                } else {
                    first.len_utf8()
                };
                quoted ^= first == '"';
                out.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[taken..];
    }
    out
}

fn fault(status: u16, body: &Value) -> anyhow::Result<()> {
    if status == 200 {
        return Ok(());
    }
    let error = body["error"].as_str().unwrap_or("no reason given");
    match body["hint"].as_str() {
        Some(hint) => bail!("status {status}: {error}\n  hint: {hint}"),
        None => bail!("status {status}: {error}"),
    }
}

/// A row per row of the first axis, a column per output.
fn table(answer: &Value) -> anyhow::Result<String> {
    let outputs = answer["outputs"].as_array().context("the answer has no outputs")?;
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let title = |output: &Value| {
        format!(
            "{} {} {}",
            output["name"].as_str().unwrap_or(""),
            output["datatype"].as_str().unwrap_or(""),
            output["shape"]
        )
    };
    table.set_header(outputs.iter().map(title));
    let columns: Vec<Vec<String>> = outputs.iter().map(rows).collect();
    let most = columns.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..most {
        table.add_row(columns.iter().map(|column| column.get(row).cloned().unwrap_or_default()));
    }
    let model = format!(
        "{} version {}",
        answer["model_name"].as_str().unwrap_or(""),
        answer["model_version"].as_str().unwrap_or("")
    );
    Ok(format!("{model}\n{table}"))
}

/// The elements of an output, a text per row of its first axis.
fn rows(output: &Value) -> Vec<String> {
    let data = output["data"].as_array().cloned().unwrap_or_default();
    let count = output["shape"]
        .as_array()
        .and_then(|shape| shape.first()?.as_u64())
        .and_then(|rows| usize::try_from(rows).ok());
    let width = data.len().checked_div(count.unwrap_or(1)).unwrap_or(0).max(1);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |row: &[Value]| {
        row.iter().take(16).map(text).collect::<Vec<_>>().join("  ")
            + if row.len() > 16 { "  ..." } else { "" }
    };
    data.chunks(width).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_input() -> anyhow::Result<Value> {
        Ok(json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}))
    }

    #[test]
    fn arrays_and_lines_become_requests_by_the_models_metadata() {
        let want =
            json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]});
        let got: Value = serde_json::from_str(&request("[1.0, 2.0]", one_input).unwrap()).unwrap();
        assert_eq!(got, want);
        let got: Value = serde_json::from_str(&request("a,b\n1,2\n3,4\n", one_input).unwrap()).unwrap();
        assert_eq!(got["inputs"][0]["shape"], json!([2, 2]));
        let whole = r#"{"inputs": []}"#;
        assert_eq!(request(whole, one_input).unwrap(), whole);
    }

    #[test]
    fn what_is_no_input_is_refused_with_its_place() {
        let error = request("1,2\n3,x\n", one_input).unwrap_err();
        assert!(error.to_string().starts_with("line 2 is not finite numbers"), "{error}");
        let error = request("[[[1]]]", one_input).unwrap_err();
        assert!(error.to_string().contains("3 axes"), "{error}");
    }

    #[test]
    fn a_number_is_sent_as_it_was_written() {
        let data =
            |text| request(text, one_input).unwrap().split("\"data\":").nth(1).unwrap()[..7].to_owned();
        assert_eq!(data("1,2\n"), "[[1,2]]");
        assert_eq!(data("9,.5\n"), "[[9,0.5");
        assert!(request("1,nan\n3,4\n5,inf\n", one_input).unwrap_err().to_string().contains("line 3"));
        assert!(request("hello\n", one_input).unwrap_err().to_string().contains("no numbers"));
    }

    #[test]
    fn a_single_number_is_a_scalar_for_a_model_that_takes_one() {
        let scalar = || Ok(json!({"inputs": [{"name": "x", "datatype": "INT64", "shape": []}]}));
        let got: Value = serde_json::from_str(&request("5", scalar).unwrap()).unwrap();
        assert_eq!(got["inputs"][0]["shape"], json!([]));
    }

    #[test]
    fn numbers_that_json_has_not_are_read_outside_of_strings_alone() {
        let text = r#"{"a": [NaN, -Infinity, Infinity, 1], "b": "NaN \" NaN \\", "c": NaN}"#;
        let value: Value = serde_json::from_str(&with_strings(text)).unwrap();
        assert_eq!(value["a"], json!(["NaN", "-Infinity", "Infinity", 1]));
        assert_eq!((&value["b"], &value["c"]), (&json!("NaN \" NaN \\"), &json!("NaN")));
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }
}
