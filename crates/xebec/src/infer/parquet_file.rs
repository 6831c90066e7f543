//! A Parquet file in, the same rows with the answers as further columns out, as Parquet or as CSV.
//!
//! Parquet cannot be appended to: until it is whole, an output of Parquet is a stream of Apache Arrow, which can.
//!
//! # Source
//! Apache Parquet Format; Apache Arrow, "IPC Streaming Format".
use super::{
    InferArgs,
    answer::Answer,
    appended::{self, appended},
    arrays,
    batch::{self, Batch, Convert, Mark, Step},
    csv,
    out::{Out, Piece},
    rows::{self, Choice, Column, Field as Input, Kind, Number, Plan},
    server::{Model, wanted},
};
use anyhow::{Context as _, anyhow, bail, ensure};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use arrow_schema::{Field, Schema, SchemaRef};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Compression,
    file::properties::WriterProperties,
};
use serde_json::json;
use std::{
    fs::File,
    io::{BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
    process::ExitCode,
    sync::Arc,
};
use xebec_core::{Datatype, Tensor};

/// Rows that are read at once, at least.
const ROWS_READ: usize = 1024;
/// Of the end of a file, where Parquet says what is where: by it a file is known again.
const KNOWN_BY_BYTES: u64 = 64 << 10;

/// What the rows are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Parquet,
    Csv(char),
}

/// Sends the rows of a file.
///
/// # Errors
/// The file is none of Parquet, or does not fit the model; as [`Batch::run`].
pub(super) fn command(args: &InferArgs, model: &Model, file: &Path) -> anyhow::Result<ExitCode> {
    let named = || format!("in {}", file.display());
    let target =
        args.out.as_deref().context("--parquet needs --out FILE: where the rows go with their answers")?;
    let form = form(target, args.delimiter)?;
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let known = known_by(&opened).with_context(named)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(opened)
        .map_err(|error| anyhow!("{} is no Parquet file that can be read: {error}", file.display()))?;
    let (schema, rows) = (Arc::clone(builder.schema()), builder.metadata().file_metadata().num_rows());
    let rows = u64::try_from(rows)?;
    ensure!(rows > 0, "{} has no rows", file.display());
    let columns: Vec<Column> = schema.fields().iter().map(column).collect();
    let choice = Choice { columns: &args.columns, without: &args.without };
    let plan =
        Plan::new(&model.inputs, &columns, choice, model.max_batch_size, args.rows).with_context(named)?;
    let outputs = wanted(model, &args.outputs)?;
    let work = json!({
        "model": model.name(), "source": file, "content": known,
        "outputs": args.outputs, "inputs": plan.fields.iter().map(|f| (&f.name, &f.columns)).collect::<Vec<_>>(),
        "empty cells": args.empty.map(|empty| empty.to_string()),
    });
    let Some(out) = Out::open(target, &work, batch::how(args))? else { return batch::whole_already(target) };
    let done = out.done().items;
    let at_once = plan.rows * ROWS_READ.div_ceil(plan.rows);
    let reader = builder.with_batch_size(at_once).with_offset(usize::try_from(done)?).build()?;
    let batches = reader.map(|batch| batch.map_err(|error| anyhow!("{}: {error}", file.display())));
    let chunks = Chunks { batches, left: None, plan: &plan, empty: args.empty, row: done };
    let mut sheet =
        Sheet { schema, form, writer: None, begun: done > 0, columns: out.done().columns.clone() };
    let batch = Batch::new(args, rows, "rows")?;
    let convert: Option<Convert> = (form == Form::Parquet).then_some(to_parquet);
    batch.run(
        out,
        chunks.map(|chunk| chunk.with_context(named)),
        |chunk| {
            let answer = model.ask_patiently(&chunk.tensors, &outputs, &batch.stop);
            let place = || format!("{}, rows {} to {}", file.display(), chunk.first, chunk.last());
            Ok((answer.with_context(place)?, chunk))
        },
        |(answer, chunk)| sheet.add(&answer, &chunk),
        convert,
    )
}

fn form(target: &Path, delimiter: char) -> anyhow::Result<Form> {
    match target.extension().and_then(|ending| ending.to_str()) {
        Some("parquet") => Ok(Form::Parquet),
        Some("csv") => Ok(Form::Csv(delimiter)),
        _ => bail!("--out {}: rows of a Parquet file go to a .parquet or a .csv file", target.display()),
    }
}

fn column(field: &Arc<Field>) -> Column {
    Column { name: field.name().clone(), kind: arrays::kind(field.data_type()) }
}

/// What a file is known by: its length, and a sum over its end.
fn known_by(mut file: &File) -> anyhow::Result<String> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(KNOWN_BY_BYTES)))?;
    let (mut end, mut mark) = (Vec::new(), Mark::new());
    file.take(KNOWN_BY_BYTES).read_to_end(&mut end)?;
    mark.take(&end);
    Ok(format!("{length} bytes, {}", mark.text()))
}

/// Rows for one request.
struct Chunk {
    tensors: Vec<Tensor>,
    rows: RecordBatch,
    /// Number of the first row, from 1.
    first: u64,
}

impl Chunk {
    fn last(&self) -> u64 {
        self.first + self.rows.num_rows() as u64 - 1
    }
}

struct Chunks<'a, B> {
    batches: B,
    /// Of a batch, what is not sent yet.
    left: Option<RecordBatch>,
    plan: &'a Plan,
    empty: Option<f64>,
    /// Rows before the next one.
    row: u64,
}

impl<B: Iterator<Item = anyhow::Result<RecordBatch>>> Chunks<'_, B> {
    fn chunk(&mut self) -> anyhow::Result<Option<Chunk>> {
        let Some(batch) = self.left.take().map(Ok).or_else(|| self.batches.next()).transpose()? else {
            return Ok(None);
        };
        let count = batch.num_rows().min(self.plan.rows);
        let rows = batch.slice(0, count);
        self.left = (count < batch.num_rows()).then(|| batch.slice(count, batch.num_rows() - count));
        let first = self.row + 1;
        self.row += count as u64;
        let tensor = |input: &Input| tensor(input, &rows, self.empty, first);
        let tensors = self.plan.fields.iter().map(tensor).collect::<anyhow::Result<_>>()?;
        Ok(Some(Chunk { tensors, rows, first }))
    }
}

impl<B: Iterator<Item = anyhow::Result<RecordBatch>>> Iterator for Chunks<'_, B> {
    type Item = anyhow::Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chunk().transpose()
    }
}

/// The tensor of an input, of the columns that it is made of.
fn tensor(input: &Input, rows: &RecordBatch, empty: Option<f64>, first: u64) -> anyhow::Result<Tensor> {
    let columns = input.columns.iter().map(|place| column_of(input.datatype, rows, *place));
    let columns: Vec<Values> = columns.collect::<anyhow::Result<_>>()?;
    let (mut data, mut width) = (Vec::new(), None);
    for row in 0..rows.num_rows() {
        let mut count = 0;
        for (values, place) in columns.iter().zip(&input.columns) {
            let placed =
                || format!("row {}, column '{}'", first + row as u64, rows.schema().field(*place).name());
            count += values.push(row, input.datatype, empty, &mut data).with_context(placed)?;
        }
        ensure!(
            *width.get_or_insert(count) == count,
            "row {} has {count} values for input '{}', and the rows before it {}; --rows 1 sends them one by one",
            first + row as u64,
            input.name,
            width.unwrap_or(0)
        );
    }
    input.tensor(rows.num_rows(), width.unwrap_or(0), data)
}

fn column_of(datatype: Datatype, rows: &RecordBatch, place: usize) -> anyhow::Result<Values> {
    let array = rows.column(place);
    let values = match (datatype, arrays::kind(array.data_type())) {
        (Datatype::Bytes, Kind::Text) => arrays::bytes(array).map(Values::Texts),
        (Datatype::Bytes, _) | (_, Kind::Text | Kind::Other) => None,
        (_, Kind::Number) => arrays::numbers(array).map(Values::Numbers),
        (_, Kind::List) => arrays::lists(array).map(Values::Lists),
    };
    values.with_context(|| {
        format!(
            "column '{}' is {}, of which no {datatype} is made",
            rows.schema().field(place).name(),
            array.data_type()
        )
    })
}

/// A column that goes into an input.
enum Values {
    Numbers(Vec<Option<Number>>),
    Lists(Vec<Option<Vec<Option<Number>>>>),
    Texts(Vec<Option<Vec<u8>>>),
}

impl Values {
    /// Appends a row's elements and returns how many they are.
    fn push(
        &self,
        row: usize,
        datatype: Datatype,
        empty: Option<f64>,
        out: &mut Vec<u8>,
    ) -> anyhow::Result<usize> {
        let none = || anyhow!("there is no value");
        match self {
            Self::Numbers(numbers) => {
                number(numbers.get(row).copied().flatten(), datatype, empty, out).map(|()| 1)
            }
            Self::Lists(lists) => {
                let list = lists.get(row).and_then(Option::as_ref).ok_or_else(none)?;
                list.iter().try_for_each(|value| number(*value, datatype, empty, out)).map(|()| list.len())
            }
            Self::Texts(texts) => {
                let text = texts.get(row).and_then(Option::as_ref).ok_or_else(none)?;
                rows::push_text(text, out).context("the text is too long").map(|()| 1)
            }
        }
    }
}

fn number(
    value: Option<Number>,
    datatype: Datatype,
    empty: Option<f64>,
    out: &mut Vec<u8>,
) -> anyhow::Result<()> {
    let is_gap = |number: &Number| matches!(number, Number::Real(real) if real.is_nan());
    let value = value.filter(|number| !is_gap(number)).or(empty.map(Number::Real));
    let value = value.context("there is no value; --empty NUMBER says which stands for that")?;
    rows::push(datatype, value, out).with_context(|| format!("{value} does not fit {datatype}"))
}

/// The rows as they are written.
struct Sheet {
    schema: SchemaRef,
    form: Form,
    writer: Option<StreamWriter<Vec<u8>>>,
    /// The part has a beginning.
    begun: bool,
    /// What answers append; empty before the first.
    columns: Vec<String>,
}

impl Sheet {
    fn add(&mut self, answer: &Answer, chunk: &Chunk) -> anyhow::Result<Step> {
        let count = chunk.rows.num_rows();
        let taken: Vec<String> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let appended = appended(answer, count, &taken)?;
        let (bytes, columns) = match self.form {
            Form::Csv(delimiter) => self.csv(&appended, chunk, delimiter)?,
            Form::Parquet => self.stream(&appended, chunk)?,
        };
        self.begun = true;
        let items = count as u64;
        self.columns = columns.clone();
        let mark = chunk.last().to_string();
        Ok((Piece { bytes, items, mark, version: answer.version.clone(), columns }, chunk.last()))
    }

    fn csv(
        &self,
        appended: &[appended::Appended<'_>],
        chunk: &Chunk,
        delimiter: char,
    ) -> anyhow::Result<(Vec<u8>, Vec<String>)> {
        let names = appended::names(appended);
        appended::same(&self.columns, &names)?;
        let fields = self.schema.fields().iter();
        let cells = fields.clone().zip(chunk.rows.columns()).map(|(field, array)| {
            arrays::cells(array).with_context(|| {
                let (name, datatype) = (field.name(), field.data_type());
                format!("column '{name}' is {datatype}, which has no form in CSV; write to a .parquet file")
            })
        });
        let cells: Vec<Vec<String>> = cells.collect::<anyhow::Result<_>>()?;
        let mut text = String::new();
        if !self.begun {
            let head = fields.map(|field| field.name().as_str()).chain(names.iter().map(String::as_str));
            text.push_str(&(csv::row(head, delimiter) + "\n"));
        }
        for (row, added) in appended::rows(appended, chunk.rows.num_rows())?.iter().enumerate() {
            let kept = cells.iter().map(|column| column.get(row).map_or("", String::as_str));
            text.push_str(&(csv::row(kept.chain(added.iter().map(String::as_str)), delimiter) + "\n"));
        }
        Ok((text.into_bytes(), names))
    }

    fn stream(
        &mut self,
        appended: &[appended::Appended<'_>],
        chunk: &Chunk,
    ) -> anyhow::Result<(Vec<u8>, Vec<String>)> {
        let added = appended.iter().map(arrays::column).collect::<anyhow::Result<Vec<_>>>()?;
        let columns: Vec<String> =
            added.iter().map(|(field, _)| format!("{} {}", field.name(), field.data_type())).collect();
        appended::same(&self.columns, &columns)?;
        let (fields, arrays): (Vec<Field>, Vec<_>) = added.into_iter().unzip();
        let fields = self.schema.fields().iter().cloned().chain(fields.into_iter().map(Arc::new));
        let schema =
            Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), self.schema.metadata().clone()));
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
                // A part that is gone on with has the schema already.
                if self.begun {
                    writer.get_mut().clear();
                }
                self.writer.insert(writer)
            }
        };
        let all = chunk.rows.columns().iter().cloned().chain(arrays).collect();
        writer.write(&RecordBatch::try_new(schema, all)?)?;
        Ok((std::mem::take(writer.get_mut()), columns))
    }
}

/// Makes the Parquet file of a stream of Arrow.
fn to_parquet(part: &Path, new: &Path) -> anyhow::Result<()> {
    let named = || format!("cannot write {}", new.display());
    let reader = StreamReader::try_new(BufReader::new(File::open(part).with_context(named)?), None)?;
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = File::create(new).with_context(named)?;
    let mut writer = ArrowWriter::try_new(file, reader.schema(), Some(properties))?;
    for batch in reader {
        writer.write(&batch?).with_context(named)?;
    }
    writer.close().with_context(named)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::answer::tests::{answer, reals},
        *,
    };
    use crate::inputs::Slot;
    use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray};

    fn table(rows: i64) -> RecordBatch {
        let numbers = || (0..rows).map(|row| i32::try_from(row).unwrap());
        let columns: [(&str, ArrayRef); 3] = [
            ("id", Arc::new(StringArray::from_iter_values(numbers().map(|row| format!("r{row}"))))),
            ("a", Arc::new(Float64Array::from_iter_values(numbers().map(f64::from)))),
            ("b", Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row * 10)))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn plan(rows: &RecordBatch, per_request: usize) -> Plan {
        let inputs = [Slot { name: "x".into(), datatype: Datatype::Fp32, shape: vec![-1, 2] }];
        let columns: Vec<Column> = rows.schema().fields().iter().map(column).collect();
        Plan::new(&inputs, &columns, Choice::default(), 64, Some(per_request)).unwrap()
    }

    fn chunks<'a>(
        rows: &RecordBatch,
        plan: &'a Plan,
        row: u64,
    ) -> Chunks<'a, impl Iterator<Item = anyhow::Result<RecordBatch>> + use<'a>> {
        Chunks { batches: vec![Ok(rows.clone())].into_iter(), left: None, plan, empty: None, row }
    }

    fn sheet(rows: &RecordBatch, form: Form) -> Sheet {
        Sheet { schema: rows.schema(), form, writer: None, begun: false, columns: vec![] }
    }

    /// An answer to a chunk: the number of each of its rows.
    fn numbered(chunk: &Chunk) -> Answer {
        #[expect(clippy::cast_precision_loss, reason = "a few rows")]
        let values: Vec<f32> = (chunk.first..=chunk.last()).map(|row| row as f32).collect();
        answer(vec![reals("y", &[i64::try_from(values.len()).unwrap()], &values)])
    }

    #[test]
    fn rows_go_into_requests_and_their_answers_into_csv() {
        let rows = table(3);
        let plan = plan(&rows, 2);
        let mut sheet = sheet(&rows, Form::Csv(','));
        let mut text = String::new();
        for chunk in chunks(&rows, &plan, 0) {
            let chunk = chunk.unwrap();
            let (piece, last) = sheet.add(&numbered(&chunk), &chunk).unwrap();
            assert_eq!((piece.items, piece.mark), (chunk.rows.num_rows() as u64, last.to_string()));
            text.push_str(&String::from_utf8(piece.bytes).unwrap());
            let first = chunk.tensors[0].data[..4].try_into().unwrap();
            assert_eq!(f32::from_le_bytes(first) as u64, chunk.first - 1);
        }
        assert_eq!(text, "id,a,b,y\nr0,0,0,1\nr1,1,10,2\nr2,2,20,3\n");
    }

    #[test]
    fn a_stream_that_was_interrupted_goes_on_and_becomes_one_parquet_file() {
        let folder = tempfile::tempdir().unwrap();
        let (part, new) = (folder.path().join("part"), folder.path().join("new.parquet"));
        let rows = table(5);
        let plan = plan(&rows, 2);
        let mut first = sheet(&rows, Form::Parquet);
        let mut bytes = Vec::new();
        let chunk = chunks(&rows, &plan, 0).next().unwrap().unwrap();
        bytes.extend(first.add(&numbered(&chunk), &chunk).unwrap().0.bytes);
        let columns = first.columns;
        assert_eq!(columns, ["y Float32"]);
        // Another process.
        let mut second = Sheet { begun: true, columns, ..sheet(&rows, Form::Parquet) };
        for chunk in chunks(&rows.slice(2, 3), &plan, 2) {
            let chunk = chunk.unwrap();
            bytes.extend(second.add(&numbered(&chunk), &chunk).unwrap().0.bytes);
        }
        std::fs::write(&part, bytes).unwrap();
        to_parquet(&part, &new).unwrap();
        let read = ParquetRecordBatchReaderBuilder::try_new(File::open(&new).unwrap()).unwrap();
        let read: Vec<RecordBatch> = read.build().unwrap().map(Result::unwrap).collect();
        let [read] = read.as_slice() else { panic!("{}", read.len()) };
        let cells: Vec<Vec<String>> =
            read.columns().iter().map(|array| arrays::cells(array).unwrap()).collect();
        assert_eq!(cells[0], ["r0", "r1", "r2", "r3", "r4"]);
        assert_eq!(cells[3], ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn what_does_not_fit_is_told_with_row_and_column() {
        let gap: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None]));
        let word: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_from_iter([("a", gap.clone()), ("b", gap)]).unwrap();
        let plan = plan(&rows, 2);
        let error = format!("{:#}", chunks(&rows, &plan, 6).next().unwrap().err().unwrap());
        assert_eq!(error, "row 8, column 'a': there is no value; --empty NUMBER says which stands for that");
        let filled = Chunks { empty: Some(0.5), ..chunks(&rows, &plan, 0) }.next().unwrap().unwrap();
        assert_eq!(filled.tensors[0].data[8..12], 0.5f32.to_le_bytes());
        let rows = RecordBatch::try_from_iter([("a", word.clone()), ("b", word)]).unwrap();
        let error = chunks(&rows, &plan, 0).next().unwrap().err().unwrap().to_string();
        assert_eq!(error, "column 'a' is Utf8, of which no FP32 is made");
    }

    #[test]
    fn a_file_is_known_by_its_length_and_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let known = |text: &str| {
            let path = folder.path().join("x");
            std::fs::write(&path, text).unwrap();
            known_by(&File::open(&path).unwrap()).unwrap()
        };
        assert_eq!(known("one"), known("one"));
        assert_ne!(known("one"), known("two"));
    }
}
