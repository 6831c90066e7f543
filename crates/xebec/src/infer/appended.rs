//! What an answer adds to the rows of a table: a column per value of a row.
use super::answer::{Answer, Cell, cells};
use anyhow::{Context as _, ensure};
use xebec_core::{Tensor, tensor::element_count};

/// An output as columns.
#[derive(Clone, Debug)]
pub(super) struct Appended<'a> {
    pub(super) tensor: &'a Tensor,
    /// Of a column, or of each where a row has several values.
    pub(super) name: String,
    /// Values of a row.
    pub(super) width: usize,
}

/// The outputs of an answer to so many rows. A name that the table has already gets the model's name before it.
///
/// # Errors
/// An output is not of so many rows.
pub(super) fn appended<'a>(
    answer: &'a Answer,
    rows: usize,
    taken: &[String],
) -> anyhow::Result<Vec<Appended<'a>>> {
    let one = |tensor: &'a Tensor| {
        let count = element_count(&tensor.shape).context("an output's shape cannot be")?;
        let of_rows = tensor.shape.first().is_some_and(|extent| usize::try_from(*extent) == Ok(rows));
        ensure!(
            rows == 1 || of_rows,
            "output '{}' has shape {:?} for {rows} rows; --rows 1 sends them one by one, and --outputs names those that \
             are wanted",
            tensor.name,
            tensor.shape
        );
        let name = tensor.name.to_string();
        let name = if taken.contains(&name) { format!("{}.{name}", answer.model) } else { name };
        Ok(Appended { tensor, name, width: count.checked_div(rows).unwrap_or(0) })
    };
    answer.outputs.iter().map(one).collect()
}

/// The names of the columns.
pub(super) fn names(appended: &[Appended<'_>]) -> Vec<String> {
    let of = |output: &Appended<'_>| match output.width {
        1 => vec![output.name.clone()],
        width => (0..width).map(|index| format!("{}_{index}", output.name)).collect(),
    };
    appended.iter().flat_map(of).collect()
}

/// The cells of each row, as text.
///
/// # Errors
/// An output is no text.
pub(super) fn rows(appended: &[Appended<'_>], rows: usize) -> anyhow::Result<Vec<Vec<String>>> {
    let mut table = vec![Vec::new(); rows];
    for output in appended {
        let cells = cells(output.tensor);
        ensure!(
            !cells.iter().any(|cell| matches!(cell, Cell::Bytes(_))),
            "output '{}' is no text; name the outputs that are wanted with --outputs",
            output.tensor.name
        );
        for (row, cells) in table.iter_mut().zip(cells.chunks(output.width.max(1))) {
            row.extend(cells.iter().map(Cell::shown));
        }
    }
    Ok(table)
}

/// Refuses an answer whose columns are not those of the answers before.
pub(super) fn same(was: &[String], is: &[String]) -> anyhow::Result<()> {
    let first = was.iter().zip(is).find(|(was, is)| was != is);
    ensure!(
        was.is_empty() || was == is,
        "an answer has {} values a row, and those before had {}{}; rows of different lengths do not go into one table",
        is.len(),
        was.len(),
        first.map(|(was, is)| format!(" ('{is}' and not '{was}')")).unwrap_or_default()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::answer::tests::{answer, reals, wholes, words},
        *,
    };

    #[test]
    fn an_output_is_a_column_for_each_value_of_a_row() {
        let answer = answer(vec![reals("p", &[2, 2], &[0.1, 0.9, 0.5, 0.25]), wholes("label", &[1, 0])]);
        let added = appended(&answer, 2, &["label".to_owned()]).unwrap();
        assert_eq!(names(&added), ["p_0", "p_1", "m.label"]);
        assert_eq!(rows(&added, 2).unwrap(), [["0.1", "0.9", "1"], ["0.5", "0.25", "0"]]);
        let error = appended(&answer, 3, &[]).unwrap_err().to_string();
        assert!(error.contains("'p' has shape [2, 2] for 3 rows"), "{error}");
        assert_eq!(
            names(&appended(&answer, 1, &[]).unwrap()).len(),
            6,
            "an answer to one row is all of that row"
        );
    }

    #[test]
    fn pictures_and_answers_of_another_width_are_no_columns() {
        let answer = answer(vec![words("image", &[1], &[&[0xff, 0xd8]])]);
        let error = rows(&appended(&answer, 1, &[]).unwrap(), 1).unwrap_err().to_string();
        assert!(error.contains("'image' is no text"), "{error}");
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(same(&[], &names(&["a"])).is_ok() && same(&names(&["a"]), &names(&["a"])).is_ok());
        assert!(
            same(&names(&["a_0", "a_1"]), &names(&["a"])).unwrap_err().to_string().contains("1 values a row")
        );
    }
}
