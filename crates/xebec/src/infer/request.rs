//! One request as it was written, and its answer as the server gave it.
use super::{Form, InferArgs, server};
use anyhow::{Context as _, bail, ensure};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Number, Value, json};
use std::io::Read as _;

/// Sends the request and prints the answer.
pub(super) fn command(args: &InferArgs, server: &server::Server) -> anyhow::Result<()> {
    let text = read(args)?;
    let path = server::path(&args.model, args.model_version.as_deref());
    let request = request(&text, || Ok(server.get(&path)?.1))?;
    let (text, answer) = server.post(&format!("{path}/infer"), &request)?;
    let shown = match args.output {
        Form::Json => text,
        Form::Table => table(&answer)?,
    };
    crate::cli::show(format!("{shown}\n").as_bytes())?;
    Ok(())
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

/// A row per row of the first axis, a column per output.
pub(super) fn table(answer: &Value) -> anyhow::Result<String> {
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
}
