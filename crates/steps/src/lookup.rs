//! `lookup`: rows of a table by their ids. `labels`: texts by their ids.
use crate::{
    settings::Settings,
    table::{Table, Typed},
    values::{elements, info, made, made_raw, made_texts},
};
use bytes::Bytes;
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

/// See the module's text.
pub(crate) struct Lookup {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 2],
    table: Table,
    /// The id of each row, ascending; an id is the row's number without.
    keys: Option<Typed<i64>>,
    /// Where the numbers of each row begin, and where the last one's end; the table is a list of numbers then.
    offsets: Option<Typed<i64>>,
    missing: Missing,
    most_bytes: usize,
}

/// Bytes of rows or labels where nothing else is said.
const MOST_BYTES: usize = 64 << 20;

/// What of an id that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Error,
    Zero,
}

impl Lookup {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let table = Table::open(settings, "table")?;
        let list = |setting| -> Result<Option<Typed<i64>>, String> {
            let table = Table::open_if_said(settings, setting)?;
            table.map(|table| table.of(setting, Datatype::Int64, 1)).transpose()
        };
        let (keys, offsets) = (list("keys")?, list("offsets")?);
        let rows = match &offsets {
            None => table.rows,
            Some(_) if !table.row.is_empty() => {
                return Err(
                    "setting 'offsets' is for a table of one axis, which holds the rows end to end".into()
                );
            }
            Some(offsets) => check_offsets(offsets.all(), table.rows)?,
        };
        if let Some(keys) = &keys {
            check_keys(keys.all(), rows)?;
        }
        let count = if offsets.is_some() { 1 } else { -1 };
        Ok(Self {
            inputs: [info("ids", Datatype::Int64, &[count])],
            outputs: [table.rows_info("rows"), info("found", Datatype::Bool, &[count])],
            table,
            keys,
            offsets,
            missing: settings.word("missing", &[("error", Missing::Error), ("zero", Missing::Zero)])?,
            most_bytes: settings.number("max_bytes", Some(MOST_BYTES), 1..=1 << 40)?,
        })
    }

    /// The row of an id.
    fn place(&self, id: i64) -> Option<usize> {
        match &self.keys {
            Some(keys) => keys.all().binary_search(&id).ok(),
            None => usize::try_from(id).ok().filter(|row| *row < self.rows()),
        }
    }

    fn rows(&self) -> usize {
        self.offsets.as_ref().map_or(self.table.rows, |offsets| offsets.all().len().saturating_sub(1))
    }

    /// The numbers of a row of a ragged table.
    fn ragged(&self, offsets: &[i64], row: usize) -> Option<Bytes> {
        let (start, end) = (offsets.get(row)?, offsets.get(row + 1)?);
        self.table.slice(usize::try_from(*start).ok()?..usize::try_from(*end).ok()?)
    }

    fn absent(&self, id: i64) -> Unfit {
        Unfit(match &self.keys {
            Some(_) => format!("id {id} is not in the table"),
            None => format!(
                "id {id} is not in the table, which has the ids 0 to {}",
                self.rows().saturating_sub(1)
            ),
        })
    }
}

fn check_offsets(offsets: &[i64], numbers: usize) -> Result<usize, String> {
    let ends = i64::try_from(numbers).ok();
    let right = offsets.first() == Some(&0) && offsets.last().copied() == ends && offsets.is_sorted();
    if right {
        return Ok(offsets.len() - 1);
    }
    Err(format!(
        "setting 'offsets': they must rise from 0 to {numbers}, the numbers in the table, and do not"
    ))
}

fn check_keys(keys: &[i64], rows: usize) -> Result<(), String> {
    if keys.len() != rows {
        return Err(format!("setting 'keys': there are {} for {rows} rows; each row has one", keys.len()));
    }
    match keys.windows(2).position(|two| two[0] >= two[1]) {
        Some(at) => Err(format!(
            "setting 'keys': they must ascend, and {} at {at} is followed by {}; sort the table by its keys",
            keys[at],
            keys[at + 1]
        )),
        None => Ok(()),
    }
}

impl Step for Lookup {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids] = inputs else { return Err(Unfit("it takes ids".into())) };
        let ids = elements::<i64>(ids);
        if ids.len().saturating_mul(self.table.bytes) > self.most_bytes && self.offsets.is_none() {
            return Err(Unfit(format!(
                "the rows of {} ids have more than {} bytes (setting max_bytes)",
                ids.len(),
                self.most_bytes
            )));
        }
        let places: Vec<Option<usize>> = ids.iter().map(|id| self.place(*id)).collect();
        if let (Missing::Error, Some(at)) = (self.missing, places.iter().position(Option::is_none)) {
            return Err(self.absent(ids[at]));
        }
        let found = made(&[places.len()], places.iter().map(|place| u8::from(place.is_some())).collect());
        if let Some(offsets) = &self.offsets {
            let row = places.first().copied().flatten().and_then(|row| self.ragged(offsets.all(), row));
            let row = row.unwrap_or_default();
            let count = row.len() / self.table.bytes.max(1);
            return Ok(vec![made_raw(&[count], row), found]);
        }
        let mut rows = Vec::with_capacity(places.len() * self.table.bytes);
        for place in &places {
            match place.and_then(|row| self.table.get(row)) {
                Some(row) => rows.extend_from_slice(row),
                None => rows.resize(rows.len() + self.table.bytes, 0),
            }
        }
        let shape: Vec<usize> = [places.len()].into_iter().chain(self.table.row.iter().copied()).collect();
        Ok(vec![made_raw(&shape, rows.into()), found])
    }
}

/// `labels`: what people call an id.
pub(crate) struct Labels {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 1],
    /// A line for each id from 0 on; without a file, an id is its own label.
    lines: Option<(Bytes, Vec<usize>)>,
    /// Around the label.
    before: String,
    after: String,
    /// For ids below 0.
    missing: String,
}

/// Most bytes of a template, and of what stands for a label that is not there.
const MOST_TEXT: usize = 1000;

impl Labels {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let lines = match settings.text("file") {
            Some(_) => Some(lines(settings)?),
            None => None,
        };
        let template = settings.text("template").unwrap_or("{}");
        let missing = settings.text("missing").unwrap_or_default();
        if template.len() > MOST_TEXT || missing.len() > MOST_TEXT {
            return Err(format!("settings 'template' and 'missing' have {MOST_TEXT} bytes at most"));
        }
        let (before, after) = template
            .split_once("{}")
            .ok_or_else(|| format!("setting 'template' is '{template}': write {{}} where the label goes"))?;
        Ok(Self {
            inputs: [info("ids", Datatype::Int64, &[-1])],
            outputs: [info("labels", Datatype::Bytes, &[-1])],
            lines,
            before: before.into(),
            after: after.into(),
            missing: missing.into(),
        })
    }

    fn label(&self, id: i64) -> Result<String, Unfit> {
        if id < 0 {
            return Ok(self.missing.clone());
        }
        let Some((text, ends)) = &self.lines else { return Ok(format!("{}{id}{}", self.before, self.after)) };
        let line = usize::try_from(id).ok().filter(|line| *line < ends.len()).ok_or_else(|| {
            Unfit(format!("id {id} has no label: the file has {} lines, for the ids from 0 on", ends.len()))
        })?;
        let start = line.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |end| end + 1);
        let label = text.get(start..ends[line]).unwrap_or_default();
        let label = String::from_utf8_lossy(label);
        Ok(format!("{}{}{}", self.before, label.trim_end_matches('\r'), self.after))
    }
}

/// A text with where each of its lines ends.
fn lines(settings: &Settings<'_>) -> Result<(Bytes, Vec<usize>), String> {
    let (name, text) = settings.file("file")?;
    if std::str::from_utf8(&text).is_err() {
        return Err(format!("setting 'file': '{name}' is no text in UTF-8"));
    }
    let breaks = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut ends: Vec<usize> = breaks.map(|(at, _)| at).collect();
    if ends.last().is_none_or(|last| last + 1 < text.len()) && !text.is_empty() {
        ends.push(text.len());
    }
    Ok((text, ends))
}

impl Step for Labels {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids] = inputs else { return Err(Unfit("it takes ids".into())) };
        let (mut labels, mut bytes) = (Vec::new(), 0);
        for id in elements::<i64>(ids).iter() {
            let label = self.label(*id)?;
            // With what each costs beside its letters.
            bytes += label.len() + 32;
            if bytes > MOST_BYTES {
                return Err(Unfit(format!("the labels have more than {MOST_BYTES} bytes; ask for fewer")));
            }
            labels.push(label);
        }
        Ok(vec![made_texts(labels.iter().map(String::as_bytes))])
    }
}
