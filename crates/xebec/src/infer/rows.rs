//! Which columns of a table go into which input of a model, and how many rows into a request.
//!
//! By their names: a column called as an input, or columns `NAME_0`, `NAME_1` and so on where a row of the input has several
//! values. A model with one input also takes all columns of numbers, in their order.
//!
//! Not here: where the rows come from (`sheet`, `parquet_file`).
use crate::inputs::Slot;
use anyhow::{Context as _, bail, ensure};
use half::{bf16, f16};
use std::fmt;
use xebec_core::{Datatype, Tensor};

/// What the cells of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
    /// Several numbers in each row.
    List,
    /// What no model takes.
    Other,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// Which columns somebody chose.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Choice<'a> {
    /// These, in this order; empty for all.
    pub(super) columns: &'a [String],
    /// All but these.
    pub(super) without: &'a [String],
}

/// An input and the columns that it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    /// By their places in the table.
    pub(super) columns: Vec<usize>,
    /// Extents of a row, of which one may be free.
    row: Vec<i64>,
    /// There is an axis of rows before them.
    batched: bool,
}

/// All inputs of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) fields: Vec<Field>,
    /// Rows of a request.
    pub(super) rows: usize,
}

impl Plan {
    /// Finds the columns of each input. `rows` is what somebody wants as rows of a request, `most` the model's limit, 0
    /// where it has no batch axis.
    ///
    /// # Errors
    /// A column is missing, or it cannot be said which are meant.
    pub(super) fn new(
        inputs: &[Slot],
        table: &[Column],
        choice: Choice<'_>,
        most: usize,
        rows: Option<usize>,
    ) -> anyhow::Result<Self> {
        let chosen = chosen(table, choice)?;
        let fields = match (inputs, by_name(inputs, table, &chosen, most)) {
            // Who names columns means their order too.
            ([only], _) if !choice.columns.is_empty() => vec![in_order(only, table, &chosen, choice, most)?],
            (_, Ok(fields)) => fields,
            ([only], Err(_)) => vec![in_order(only, table, &chosen, choice, most)?],
            (_, Err(missing)) => return Err(missing),
        };
        ensure!(!fields.is_empty(), "the model takes nothing that a table could hold");
        let batched = fields.iter().all(|field| field.batched);
        let limit = if batched { most } else { 1 };
        if let Some(rows) = rows {
            ensure!(
                batched || rows == 1,
                "--rows {rows}: the model has no axis of rows; it takes one a request"
            );
            ensure!(
                limit == 0 || rows <= limit,
                "--rows {rows}: the model takes at most {limit} rows a request"
            );
        }
        Ok(Self { fields, rows: rows.unwrap_or(limit).max(1) })
    }
}

/// The places of the columns that may be used, in order.
fn chosen(table: &[Column], choice: Choice<'_>) -> anyhow::Result<Vec<usize>> {
    let place = |name: &String| {
        let place = table.iter().position(|column| column.name == *name);
        place.with_context(|| format!("there is no column '{name}'; the columns are {}", names(table)))
    };
    if !choice.columns.is_empty() {
        return choice.columns.iter().map(place).collect();
    }
    let without = choice.without.iter().map(place).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((0..table.len()).filter(|place| !without.contains(place)).collect())
}

fn names(table: &[Column]) -> String {
    const MOST: usize = 40;
    let names: Vec<&str> = table.iter().take(MOST).map(|column| column.name.as_str()).collect();
    names.join(", ") + if table.len() > MOST { ", ..." } else { "" }
}

/// Every input by columns with its name.
fn by_name(inputs: &[Slot], table: &[Column], chosen: &[usize], most: usize) -> anyhow::Result<Vec<Field>> {
    let find = |name: &str| {
        let is_it = |place: &&usize| table.get(**place).is_some_and(|column| column.name == name);
        chosen.iter().find(is_it).copied()
    };
    let field = |slot: &Slot| {
        let mut field = Field::new(slot, most);
        let width = field.width();
        if let Some(place) = find(&slot.name) {
            let list = table.get(place).is_some_and(|column| column.kind == Kind::List);
            if list || width.is_none_or(|width| width == 1) {
                field.columns = vec![place];
                return Ok(field);
            }
        }
        let numbered = |index: usize| find(&format!("{}_{index}", slot.name));
        field.columns = match width {
            Some(width) => (0..width).map_while(numbered).collect(),
            None => (0..).map_while(numbered).collect(),
        };
        let (first, name) = (field.columns.is_empty(), &slot.name);
        let wanted = match width {
            Some(1) => format!("'{name}'"),
            Some(width) if first => format!("'{name}_0' to '{name}_{}'", width - 1),
            None if first => format!("'{name}_0' and so on"),
            _ => format!("'{name}_{}'", field.columns.len()),
        };
        let whole = !first && width.is_none_or(|width| width == field.columns.len());
        ensure!(
            whole,
            "there is no column {wanted} for input '{name}' of the model; the columns are {}",
            names(table)
        );
        Ok(field)
    };
    inputs.iter().map(field).collect()
}

/// The only input, by the columns in their order.
fn in_order(
    slot: &Slot,
    table: &[Column],
    chosen: &[usize],
    choice: Choice<'_>,
    most: usize,
) -> anyhow::Result<Field> {
    let mut field = Field::new(slot, most);
    let of_kind = |wanted: &[Kind]| {
        let is_it = |place: &usize| table.get(*place).is_some_and(|column| wanted.contains(&column.kind));
        chosen.iter().copied().filter(is_it).collect::<Vec<usize>>()
    };
    let name = &slot.name;
    if slot.datatype == Datatype::Bytes {
        field.columns = if choice.columns.is_empty() { of_kind(&[Kind::Text]) } else { chosen.to_vec() };
        let width = field.width().unwrap_or(1);
        ensure!(
            field.columns.len() == width,
            "input '{name}' takes {width} texts a row, and the table has {} columns of text; name those that are meant \
             with --columns; the columns are {}",
            field.columns.len(),
            names(table)
        );
        return Ok(field);
    }
    // Who names columns means them, whatever is in them.
    field.columns = if choice.columns.is_empty() { of_kind(&[Kind::Number]) } else { chosen.to_vec() };
    let lists = of_kind(&[Kind::List]);
    if choice.columns.is_empty() && field.columns.len() != field.width().unwrap_or(0) && lists.len() == 1 {
        field.columns = lists;
        return Ok(field);
    }
    let is_list = |place: &usize| table.get(*place).is_some_and(|column| column.kind == Kind::List);
    if field.columns.len() == 1 && field.columns.iter().all(is_list) {
        return Ok(field);
    }
    let (got, wanted) = (field.columns.len(), field.width());
    if got == 0 {
        bail!("no column has numbers for input '{name}'; the columns are {}", names(table));
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != got) {
        let last = field.columns.last().and_then(|place| table.get(*place)).map_or("", |column| &column.name);
        bail!(
            "a row of input '{name}' has {wanted} numbers, and there are {got} columns of numbers, the last of which is \
             '{last}'; name those that are meant with --columns, or those that are not with --without"
        );
    }
    Ok(field)
}

impl Field {
    fn new(slot: &Slot, most: usize) -> Self {
        let batched = most > 0 || slot.shape.first() == Some(&-1);
        let row = slot.shape.iter().skip(usize::from(batched)).copied().collect();
        Self { name: slot.name.clone(), datatype: slot.datatype, columns: Vec::new(), row, batched }
    }

    /// Values of a row; `None` if the model takes any number of them.
    fn width(&self) -> Option<usize> {
        let free = self.row.iter().any(|extent| *extent < 0);
        let count = xebec_core::tensor::element_count(&self.row);
        if free { None } else { count }
    }

    /// The tensor of so many rows of so many values each.
    ///
    /// # Errors
    /// That many values are no row.
    pub(super) fn tensor(&self, rows: usize, width: usize, data: Vec<u8>) -> anyhow::Result<Tensor> {
        let known: i64 = self.row.iter().filter(|extent| **extent >= 0).product();
        let mut shape = self.row.clone();
        let count = i64::try_from(width)?;
        match shape.iter_mut().filter(|extent| **extent < 0).collect::<Vec<_>>().as_mut_slice() {
            [] => (),
            [free] if known > 0 && count % known == 0 => **free = count / known,
            _ => bail!("input '{}' takes {:?} a row, which {width} values are not", self.name, self.row),
        }
        ensure!(
            xebec_core::tensor::element_count(&shape) == Some(width),
            "input '{}' takes {:?} a row, and {width} values are given",
            self.name,
            self.row
        );
        if self.batched {
            shape.insert(0, i64::try_from(rows)?);
        }
        Ok(Tensor { name: self.name.as_str().into(), datatype: self.datatype, shape, data: data.into() })
    }
}

/// A number of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    Real(f64),
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
        }
    }
}

impl Number {
    fn real(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "the nearest is what is wanted")]
            Self::Whole(number) => number as f64,
            Self::Real(number) => number,
        }
    }

    /// A whole number, also where it was written with a point: tables write a column with gaps so.
    fn whole(self) -> Option<i128> {
        match self {
            Self::Whole(number) => Some(number),
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
            Self::Real(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i128),
            Self::Real(_) => None,
        }
    }
}

/// Appends a number as an element of a datatype; `None` if it is none.
pub(super) fn push(datatype: Datatype, number: Number, out: &mut Vec<u8>) -> Option<()> {
    macro_rules! whole {
        ($kind:ty) => {
            out.extend_from_slice(&<$kind>::try_from(number.whole()?).ok()?.to_le_bytes())
        };
    }
    macro_rules! real {
        ($real:expr) => {{
            let real = $real;
            // A number that is finite and is not there is too large; NaN and infinity are what they are.
            if number.real().is_finite() && !real.is_finite() {
                return None;
            }
            out.extend_from_slice(&real.to_le_bytes())
        }};
    }
    match datatype {
        Datatype::Bool => match number.whole()? {
            flag @ (0 | 1) => out.push(u8::from(flag == 1)),
            _ => return None,
        },
        Datatype::Uint8 => whole!(u8),
        Datatype::Uint16 => whole!(u16),
        Datatype::Uint32 => whole!(u32),
        Datatype::Uint64 => whole!(u64),
        Datatype::Int8 => whole!(i8),
        Datatype::Int16 => whole!(i16),
        Datatype::Int32 => whole!(i32),
        Datatype::Int64 => whole!(i64),
        Datatype::Fp16 => real!(f16::from_f64(number.real())),
        Datatype::Bf16 => real!(bf16::from_f64(number.real())),
        #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is wanted")]
        Datatype::Fp32 => real!(number.real() as f32),
        Datatype::Fp64 => real!(number.real()),
        Datatype::Bytes => return None,
    }
    Some(())
}

/// Appends a text as an element of BYTES; `None` if it is longer than one may be.
pub(super) fn push_text(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
    out.extend_from_slice(text);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str, datatype: Datatype, shape: &[i64]) -> Slot {
        Slot { name: name.into(), datatype, shape: shape.to_vec() }
    }

    fn table(columns: &[(&str, Kind)]) -> Vec<Column> {
        columns.iter().map(|(name, kind)| Column { name: (*name).into(), kind: *kind }).collect()
    }

    fn numbers(names: &[&str]) -> Vec<Column> {
        table(&names.iter().map(|name| (*name, Kind::Number)).collect::<Vec<_>>())
    }

    fn places(plan: &Plan) -> Vec<Vec<usize>> {
        plan.fields.iter().map(|field| field.columns.clone()).collect()
    }

    #[test]
    fn columns_are_found_by_the_names_of_the_inputs() {
        let inputs = [slot("a", Datatype::Fp32, &[-1]), slot("b", Datatype::Int64, &[-1, 2])];
        let columns = numbers(&["b_1", "id", "a", "b_0"]);
        let plan = Plan::new(&inputs, &columns, Choice::default(), 8, None).unwrap();
        assert_eq!((places(&plan), plan.rows), (vec![vec![2], vec![3, 0]], 8));
        let said = |columns: &[&str]| {
            Plan::new(&inputs, &numbers(columns), Choice::default(), 8, None).unwrap_err().to_string()
        };
        let want = "there is no column 'b_1' for input 'b' of the model; the columns are a, b_0";
        assert_eq!(said(&["a", "b_0"]), want);
        assert!(said(&["b_0", "b_1"]).starts_with("there is no column 'a' for input 'a'"));
    }

    #[test]
    fn the_only_input_takes_the_columns_of_numbers_in_their_order() {
        let inputs = [slot("x", Datatype::Fp32, &[-1, 2])];
        let columns =
            table(&[("id", Kind::Text), ("p", Kind::Number), ("q", Kind::Number), ("r", Kind::Number)]);
        let (q, p) = (["q".to_owned(), "p".to_owned()], ["p".to_owned()]);
        let error = Plan::new(&inputs, &columns, Choice::default(), 8, None).unwrap_err().to_string();
        assert!(error.contains("has 2 numbers, and there are 3") && error.contains("'r'"), "{error}");
        let columns_of = |choice| places(&Plan::new(&inputs, &columns, choice, 8, None).unwrap());
        assert_eq!(columns_of(Choice { without: &p, ..Choice::default() }), [[2, 3]]);
        assert_eq!(columns_of(Choice { columns: &q, ..Choice::default() }), [[2, 1]]);
        let unknown = ["s".to_owned()];
        let choice = Choice { columns: &unknown, without: &[] };
        let error = Plan::new(&inputs, &columns, choice, 8, None).unwrap_err().to_string();
        assert_eq!(error, "there is no column 's'; the columns are id, p, q, r");
    }

    #[test]
    fn a_text_or_a_list_goes_to_the_only_input_that_takes_one() {
        let columns = table(&[("id", Kind::Number), ("said", Kind::Text), ("v", Kind::List)]);
        let one = |slot: Slot| places(&Plan::new(&[slot], &columns, Choice::default(), 0, None).unwrap());
        assert_eq!(one(slot("text", Datatype::Bytes, &[-1])), [[1]]);
        assert_eq!(one(slot("query", Datatype::Fp32, &[-1, 384])), [[2]]);
    }

    #[test]
    fn rows_of_a_request_are_the_models_limit_or_what_somebody_wants_below_it() {
        let columns = numbers(&["x"]);
        let rows = |shape: &[i64], most, rows| {
            let plan =
                Plan::new(&[slot("x", Datatype::Fp32, shape)], &columns, Choice::default(), most, rows);
            plan.map(|plan| plan.rows).map_err(|error| error.to_string())
        };
        assert_eq!(rows(&[-1, 1], 64, None), Ok(64));
        assert_eq!(rows(&[-1, 1], 64, Some(7)), Ok(7));
        assert_eq!(rows(&[-1, 1], 0, None), Ok(1), "an axis that is free need not be one of rows");
        assert_eq!(rows(&[-1, 1], 0, Some(9)), Ok(9));
        assert_eq!(rows(&[], 0, None), Ok(1));
        assert!(rows(&[-1, 1], 64, Some(65)).unwrap_err().contains("at most 64"));
        assert!(rows(&[], 0, Some(2)).unwrap_err().contains("no axis of rows"));
    }

    #[test]
    fn a_free_extent_is_what_the_values_fill_and_others_must_fit() {
        let field = |shape: &[i64]| Field::new(&slot("x", Datatype::Uint8, shape), 8);
        assert_eq!(field(&[-1, 2, -1]).tensor(3, 4, vec![]).unwrap().shape, [3, 2, 2]);
        assert_eq!(field(&[-1]).tensor(3, 1, vec![]).unwrap().shape, [3]);
        assert!(field(&[-1, 2, -1]).tensor(3, 5, vec![]).is_err());
        assert!(field(&[-1, 2]).tensor(3, 4, vec![]).is_err());
    }

    #[test]
    fn a_number_becomes_an_element_if_the_datatype_has_it() {
        let bytes = |datatype, number| {
            let mut out = Vec::new();
            push(datatype, number, &mut out).map(|()| out)
        };
        assert_eq!(bytes(Datatype::Uint8, Number::Whole(255)), Some(vec![255]));
        assert_eq!(bytes(Datatype::Uint8, Number::Whole(256)), None);
        assert_eq!(bytes(Datatype::Int16, Number::Real(-2.0)), Some(vec![254, 255]));
        assert_eq!(bytes(Datatype::Int16, Number::Real(0.5)), None);
        assert_eq!(bytes(Datatype::Fp32, Number::Whole(1)), Some(1f32.to_le_bytes().to_vec()));
        assert_eq!(bytes(Datatype::Fp32, Number::Real(1e39)), None);
        assert_eq!(bytes(Datatype::Fp16, Number::Real(1e5)), None);
        assert!(bytes(Datatype::Fp16, Number::Real(f64::NAN)).is_some());
        assert_eq!(bytes(Datatype::Bool, Number::Whole(2)), None);
        assert_eq!(bytes(Datatype::Bytes, Number::Whole(2)), None);
    }
}
