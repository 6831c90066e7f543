//! A CSV file in, the same rows with the answers behind them out.
use super::{
    InferArgs,
    answer::Answer,
    appended::{self, appended},
    batch::{self, Batch, Mark, Step},
    csv::{self, Reader, Row},
    out::{Out, Piece},
    rows::{self, Choice, Column, Field, Kind, Number, Plan},
    server::{Model, wanted},
};
use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::json;
use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::ExitCode,
};
use xebec_core::{Datatype, Tensor};

/// Sends the rows of a file.
///
/// # Errors
/// The file does not fit the model; a cell is no number; as [`Batch::run`].
pub(super) fn command(args: &InferArgs, model: &Model, file: &Path) -> anyhow::Result<ExitCode> {
    let named = || format!("in {}", file.display());
    let target =
        args.out.as_deref().context("--csv needs --out FILE: where the rows go with their answers")?;
    ensure!(
        target.extension().is_some_and(|extension| extension == "csv"),
        "--out {}: rows of a CSV file go to a .csv file",
        target.display()
    );
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let whole = opened.metadata()?.len();
    let mut reader = Reader::new(BufReader::new(opened), args.delimiter);
    let (header, first) = begin(&mut reader, args.delimiter).with_context(named)?;
    let columns: Vec<Column> = header.cells.iter().zip(&first.cells).map(column).collect();
    let choice = Choice { columns: &args.columns, without: &args.without };
    let plan =
        Plan::new(&model.inputs, &columns, choice, model.max_batch_size, args.rows).with_context(named)?;
    let outputs = wanted(model, &args.outputs)?;
    let work = json!({
        "model": model.name(), "source": file, "columns": header.cells,
        "outputs": args.outputs, "inputs": plan.fields.iter().map(|f| (&f.name, &f.columns)).collect::<Vec<_>>(),
        "empty cells": args.empty.map(|empty| empty.to_string()), "delimiter": args.delimiter,
    });
    let Some(out) = Out::open(target, &work, batch::how(args))? else { return batch::whole_already(target) };
    let mut chunks = Chunks {
        reader,
        first: Some(first),
        plan: &plan,
        header: &header.cells,
        empty: args.empty,
        mark: Mark::new(),
    };
    chunks.mark.take(header.raw.as_bytes());
    chunks.skip_to(out.done().items, &out.done().mark).with_context(named)?;
    let batch = Batch::new(args, whole, "rows")?;
    let mut sheet = Sheet { header: &header, delimiter: args.delimiter, columns: out.done().columns.clone() };
    batch.run(
        out,
        chunks.map(|chunk| chunk.with_context(named)),
        |chunk| {
            let answer = model.ask_patiently(&chunk.tensors, &outputs, &batch.stop);
            let lines = || format!("{}, lines {} to {}", file.display(), chunk.lines.0, chunk.lines.1);
            Ok((answer.with_context(lines)?, chunk))
        },
        |(answer, chunk)| sheet.add(&answer, chunk),
        None,
    )
}

/// The head and the first row.
fn begin<R: BufRead>(reader: &mut Reader<R>, delimiter: char) -> anyhow::Result<(Row, Row)> {
    let header = reader.next().context("the file is empty; it needs a line with the names of columns")??;
    let numbers = |cell: &String| cell.trim().parse::<f64>().is_ok();
    ensure!(
        !header.cells.iter().all(numbers),
        "line {} has numbers where the names of columns should be; put a line with names before it",
        header.line
    );
    let mut seen = HashSet::new();
    if let Some(twice) = header.cells.iter().find(|name| !seen.insert(name.as_str())) {
        bail!("line {}: column '{twice}' is there twice", header.line);
    }
    let others = [';', '\t', ','].into_iter().filter(|other| *other != delimiter);
    if let ([only], Some(other)) =
        (header.cells.as_slice(), { others }.find(|other| header.raw.contains(*other)))
    {
        let other = if other == '\t' { "$'\\t'".to_owned() } else { format!("'{other}'") };
        bail!("line {}: '{only}' is one column; if others divide it, say --delimiter {other}", header.line);
    }
    let first = reader.next().context("there are no rows behind the names of the columns")??;
    as_wide(&first, &header.cells)?;
    Ok((header, first))
}

fn as_wide(row: &Row, header: &[String]) -> anyhow::Result<()> {
    ensure!(
        row.cells.len() == header.len(),
        "line {} has {} cells, and there are {} columns",
        row.line,
        row.cells.len(),
        header.len()
    );
    Ok(())
}

/// What a column holds, by the cell of the first row.
fn column((name, cell): (&String, &String)) -> Column {
    let number = is_gap(cell) || number(cell).is_some();
    Column { name: name.clone(), kind: if number { Kind::Number } else { Kind::Text } }
}

/// Whether a cell says that there is no value.
fn is_gap(cell: &str) -> bool {
    matches!(cell.trim(), "" | "nan" | "NaN" | "NAN")
}

fn number(cell: &str) -> Option<Number> {
    let cell = cell.trim();
    if let Ok(whole) = cell.parse() {
        return Some(Number::Whole(whole));
    }
    match cell {
        "true" | "True" | "TRUE" => Some(Number::Whole(1)),
        "false" | "False" | "FALSE" => Some(Number::Whole(0)),
        cell => cell.parse().ok().filter(|real: &f64| real.is_finite()).map(Number::Real),
    }
}

/// Appends a cell as an element of a datatype.
///
/// # Errors
/// What is wrong with it, and what to do.
fn push(datatype: Datatype, cell: &str, empty: Option<f64>, out: &mut Vec<u8>) -> anyhow::Result<()> {
    if datatype == Datatype::Bytes {
        return rows::push_text(cell.as_bytes(), out).context("the text is too long");
    }
    let number = match empty {
        Some(empty) if is_gap(cell) => Number::Real(empty),
        None if is_gap(cell) => bail!("the cell is empty; --empty VALUE says which number stands for that"),
        _ => number(cell).with_context(|| format!("'{cell:.40}' is not a number"))?,
    };
    // As it is written, and not rounded twice.
    if let (Datatype::Fp32, Ok(real)) = (datatype, cell.trim().parse::<f32>())
        && real.is_finite()
    {
        out.extend_from_slice(&real.to_le_bytes());
        return Ok(());
    }
    rows::push(datatype, number, out).with_context(|| format!("'{cell:.40}' does not fit {datatype}"))
}

/// Rows for one request.
struct Chunk {
    tensors: Vec<Tensor>,
    raw: Vec<String>,
    /// The first and the last.
    lines: (u64, u64),
    mark: String,
    /// How far the file is read.
    position: u64,
}

struct Chunks<'a, R> {
    reader: Reader<R>,
    /// Read already.
    first: Option<Row>,
    plan: &'a Plan,
    header: &'a [String],
    empty: Option<f64>,
    mark: Mark,
}

impl<R: BufRead> Chunks<'_, R> {
    fn row(&mut self) -> anyhow::Result<Option<Row>> {
        let row = match self.first.take() {
            Some(first) => Some(first),
            None => self.reader.next().transpose()?,
        };
        if let Some(row) = &row {
            as_wide(row, self.header)?;
        }
        Ok(row)
    }

    /// Passes over rows that are done, and checks that they are still what they were.
    fn skip_to(&mut self, done: u64, mark: &str) -> anyhow::Result<()> {
        for _ in 0..done {
            let row = self
                .row()?
                .with_context(|| format!("--resume: {done} rows were done, and there are fewer now"))?;
            self.take(&row);
        }
        ensure!(
            done == 0 || self.mark.text() == mark,
            "--resume: the {done} rows that were done are not the same any more; --overwrite begins anew"
        );
        Ok(())
    }

    fn take(&mut self, row: &Row) {
        self.mark.take(b"\n");
        self.mark.take(row.raw.as_bytes());
    }

    fn chunk(&mut self) -> anyhow::Result<Option<Chunk>> {
        let mut table = Vec::new();
        while table.len() < self.plan.rows
            && let Some(row) = self.row()?
        {
            self.take(&row);
            table.push(row);
        }
        let (Some(first), Some(last)) = (table.first(), table.last()) else { return Ok(None) };
        let lines = (first.line, last.line);
        let fields = self.plan.fields.iter();
        let tensors = fields.map(|field| self.tensor(field, &table)).collect::<anyhow::Result<_>>()?;
        let raw = table.into_iter().map(|row| row.raw).collect();
        Ok(Some(Chunk { tensors, raw, lines, mark: self.mark.text(), position: self.reader.bytes() }))
    }

    fn tensor(&self, field: &Field, table: &[Row]) -> anyhow::Result<Tensor> {
        let mut data = Vec::new();
        for row in table {
            for place in &field.columns {
                let (name, cell) = (self.header.get(*place), row.cells.get(*place));
                let cell = cell.map_or("", String::as_str);
                push(field.datatype, cell, self.empty, &mut data).with_context(|| {
                    format!("line {}, column '{}'", row.line, name.map_or("", String::as_str))
                })?;
            }
        }
        field.tensor(table.len(), field.columns.len(), data)
    }
}

impl<R: BufRead> Iterator for Chunks<'_, R> {
    type Item = anyhow::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunk().transpose()
    }
}

/// The rows as they are written.
struct Sheet<'a> {
    header: &'a Row,
    delimiter: char,
    /// What answers append; empty before the first.
    columns: Vec<String>,
}

impl Sheet<'_> {
    fn add(&mut self, answer: &Answer, chunk: Chunk) -> anyhow::Result<Step> {
        let count = chunk.raw.len();
        let appended = appended(answer, count, &self.header.cells)?;
        let names = appended::names(&appended);
        appended::same(&self.columns, &names)?;
        let mut text = String::new();
        let mut line = |raw: &str, cells: &[String]| {
            let cells = csv::row(cells.iter().map(String::as_str), self.delimiter);
            text.push_str(raw);
            text.push(self.delimiter);
            text.push_str(&cells);
            text.push('\n');
        };
        if self.columns.is_empty() {
            line(&self.header.raw, &names);
        }
        let rows = appended::rows(&appended, count)?;
        chunk.raw.iter().zip(&rows).for_each(|(raw, cells)| line(raw, cells));
        self.columns = names;
        let items = u64::try_from(count).map_err(|_| anyhow!("too many rows"))?;
        let (version, columns) = (answer.version.clone(), self.columns.clone());
        let piece = Piece { bytes: text.into(), items, mark: chunk.mark, version, columns };
        Ok((piece, chunk.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::Slot;

    fn opened(text: &str) -> anyhow::Result<(Reader<&[u8]>, Row, Row)> {
        let mut reader = Reader::new(text.as_bytes(), ',');
        let (header, first) = begin(&mut reader, ',')?;
        Ok((reader, header, first))
    }

    fn chunks(text: &str, inputs: &[Slot], rows: usize, empty: Option<f64>) -> anyhow::Result<Vec<Chunk>> {
        let (reader, header, first) = opened(text)?;
        let columns: Vec<Column> = header.cells.iter().zip(&first.cells).map(column).collect();
        let plan = Plan::new(inputs, &columns, Choice::default(), 64, Some(rows))?;
        let header = &header.cells;
        Chunks { reader, first: Some(first), plan: &plan, header, empty, mark: Mark::new() }.collect()
    }

    fn slot(name: &str, datatype: Datatype, shape: &[i64]) -> Slot {
        Slot { name: name.into(), datatype, shape: shape.to_vec() }
    }

    #[test]
    fn rows_go_into_requests_in_their_order_and_stay_as_they_were_written() {
        let inputs = [slot("x", Datatype::Fp32, &[-1, 2])];
        let text = "id,a,b\n\"one, two\",1,2\nx,3,4\ny,5,1e1\n";
        let all = chunks(text, &inputs, 2, None).unwrap();
        let shapes: Vec<_> = all.iter().map(|chunk| (chunk.tensors[0].shape.clone(), chunk.lines)).collect();
        assert_eq!(shapes, [(vec![2, 2], (2, 3)), (vec![1, 2], (4, 4))]);
        assert_eq!(all[0].raw, ["\"one, two\",1,2", "x,3,4"]);
        assert_eq!(all[1].tensors[0].data[..], [5f32.to_le_bytes(), 10f32.to_le_bytes()].concat());
        assert_eq!(all[1].position, text.len() as u64);
        assert_ne!(all[0].mark, all[1].mark);
    }

    #[test]
    fn texts_and_flags_and_whole_numbers_go_to_inputs_of_their_names() {
        let inputs = [
            slot("said", Datatype::Bytes, &[-1, 1]),
            slot("flag", Datatype::Bool, &[-1]),
            slot("n", Datatype::Int64, &[-1]),
        ];
        let all = chunks("n,said,flag\n3.0,7,true\n", &inputs, 8, None).unwrap();
        let data: Vec<&[u8]> = all[0].tensors.iter().map(|tensor| &tensor.data[..]).collect();
        assert_eq!(data, [&[1, 0, 0, 0, b'7'][..], &[1], &3i64.to_le_bytes()]);
    }

    #[test]
    fn a_cell_that_does_not_fit_is_told_with_line_and_column() {
        let wide = [slot("x", Datatype::Fp32, &[-1, 2])];
        let said = |text: &str| format!("{:#}", chunks(text, &wide, 8, None).err().unwrap());
        assert_eq!(said("a,b\n1,2\n3,four\n"), "line 3, column 'b': 'four' is not a number");
        assert_eq!(said("a,b\n1,2\n3\n"), "line 3 has 1 cells, and there are 2 columns");
        assert!(said("a,b\n1,2\n3,\n").starts_with("line 3, column 'b': the cell is empty; --empty"));
        assert_eq!(said("a,b\n1,1e39\n"), "line 2, column 'b': '1e39' does not fit FP32");
        let small = [slot("x", Datatype::Uint8, &[-1])];
        let error = format!("{:#}", chunks("x\n300\n", &small, 8, None).err().unwrap());
        assert_eq!(error, "line 2, column 'x': '300' does not fit UINT8");
        let filled = chunks("a,b\n1,nan\n", &wide, 8, Some(-1.0)).unwrap();
        assert_eq!(filled[0].tensors[0].data[4..], (-1f32).to_le_bytes());
    }

    #[test]
    fn what_is_no_table_is_refused_with_what_to_do() {
        let said = |text: &str| format!("{:#}", opened(text).err().unwrap());
        assert!(said("").contains("the file is empty"));
        assert!(said("1,2\n3,4\n").contains("numbers where the names"));
        assert!(said("a,b\n").contains("no rows"));
        assert!(said("a,a\n1,2\n").contains("'a' is there twice"));
        assert!(said("a;b\n1;2\n").contains("--delimiter ';'"));
    }

    #[test]
    fn rows_that_are_done_are_passed_over_and_must_be_what_they_were() {
        let text = "x\n1\n2\n3\n";
        let inputs = [slot("x", Datatype::Fp32, &[-1])];
        let columns = [Column { name: "x".into(), kind: Kind::Number }];
        let plan = Plan::new(&inputs, &columns, Choice::default(), 8, Some(2)).unwrap();
        let done = chunks(text, &inputs, 2, None).unwrap()[0].mark.clone();
        let skip = |text: &str, done: u64, mark: &str| {
            let (reader, header, first) = opened(text).unwrap();
            let header = header.cells;
            let mut rest = Chunks {
                reader,
                first: Some(first),
                plan: &plan,
                header: &header,
                empty: None,
                mark: Mark::new(),
            };
            rest.skip_to(done, mark).map(|()| rest.next().unwrap().unwrap().raw)
        };
        assert_eq!(skip(text, 2, &done).unwrap(), ["3"]);
        assert_eq!(skip("x\n1\n2\n4\n", 2, &done).unwrap(), ["4"], "what comes may have been corrected");
        assert!(skip("x\n1\n7\n3\n", 2, &done).unwrap_err().to_string().contains("not the same any more"));
        assert!(skip("x\n1\n", 2, &done).unwrap_err().to_string().contains("fewer now"));
    }

    #[test]
    fn answers_are_appended_to_the_rows_as_they_were() {
        let header = Row { line: 1, raw: "a".into(), cells: vec!["a".into()] };
        let mut sheet = Sheet { header: &header, delimiter: ',', columns: vec![] };
        let answer = super::super::answer::tests::answer(vec![super::super::answer::tests::words(
            "y",
            &[2],
            &[b"plain", b"a, b"],
        )]);
        let chunk = || Chunk {
            tensors: vec![],
            raw: vec!["1".into(), "\"2\"".into()],
            lines: (2, 3),
            mark: "m".into(),
            position: 9,
        };
        let (piece, position) = sheet.add(&answer, chunk()).unwrap();
        assert_eq!(String::from_utf8(piece.bytes).unwrap(), "a,y\n1,plain\n\"2\",\"a, b\"\n");
        assert_eq!((piece.items, position), (2, 9));
        let (piece, _) = sheet.add(&answer, chunk()).unwrap();
        assert!(piece.bytes.starts_with(b"1,plain"), "the head comes once");
    }
}
