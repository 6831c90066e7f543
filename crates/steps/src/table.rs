//! Tables in NumPy's file format, looked at where they lie.
//!
//! # Source
//! NumPy, "A simple file format for NumPy arrays" (NEP 1), versions 1 to 3.
use crate::{settings::Settings, values::info};
use bytemuck::{Pod, try_cast_slice};
use bytes::Bytes;
use std::marker::PhantomData;
use xebec_core::{Datatype, error::dims_text, model::TensorInfo};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Most axes of a table.
const MOST_AXES: usize = 8;

/// Numbers in rows, as a file has them.
pub(crate) struct Table {
    pub(crate) datatype: Datatype,
    pub(crate) rows: usize,
    /// Extents of a row; empty of a list of numbers.
    pub(crate) row: Vec<usize>,
    /// Of a row.
    pub(crate) bytes: usize,
    data: Bytes,
}

impl Table {
    /// Opens the file that a setting names.
    ///
    /// # Errors
    /// There is none, or it is no table in C order of numbers.
    pub(crate) fn open(settings: &Settings<'_>, setting: &'static str) -> Result<Self, String> {
        let (name, data) = settings.file(setting)?;
        Self::read(data).map_err(|why| format!("setting '{setting}': '{name}' {why}"))
    }

    /// The same, if the setting is there.
    pub(crate) fn open_if_said(
        settings: &Settings<'_>,
        setting: &'static str,
    ) -> Result<Option<Self>, String> {
        settings.text(setting).map(|_| Self::open(settings, setting)).transpose()
    }

    pub(crate) fn read(file: Bytes) -> Result<Self, String> {
        let wrong = || "is no table: write it with numpy.save(FILE, array)".to_owned();
        let head = file.strip_prefix(MAGIC.as_slice()).ok_or_else(wrong)?;
        let (version, rest) = head.split_first_chunk::<2>().ok_or_else(wrong)?;
        let (length, rest) = match version[0] {
            1 => {
                let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(wrong)?;
                (usize::from(u16::from_le_bytes(*length)), rest)
            }
            2 | 3 => {
                let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
                (usize::try_from(u32::from_le_bytes(*length)).map_err(|_| wrong())?, rest)
            }
            other => return Err(format!("has version {other} of NumPy's format; 1 to 3 are read")),
        };
        let text = rest.get(..length).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(wrong)?;
        let data = file.slice(file.len() - rest.len() + length..);
        let datatype = datatype(value(text, "descr").ok_or_else(wrong)?)?;
        if value(text, "fortran_order").ok_or_else(wrong)? != "False" {
            return Err("lies in Fortran order; save numpy.ascontiguousarray(array)".into());
        }
        let shape = shape(value(text, "shape").ok_or_else(wrong)?).ok_or_else(wrong)?;
        let Some((&rows, row)) = shape.split_first() else {
            return Err("is one number and no table; a table has rows".into());
        };
        let size = datatype.size_bytes().ok_or_else(wrong)?;
        let bytes = row.iter().try_fold(size, |all, extent| all.checked_mul(*extent)).ok_or_else(wrong)?;
        if bytes.checked_mul(rows) != Some(data.len()) {
            return Err(format!(
                "has {} bytes of numbers, and its shape [{}] of {datatype} is another number; it was cut, or is still written",
                data.len(),
                shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
        Ok(Self { datatype, rows, row: row.to_vec(), bytes, data })
    }

    /// A row by its number.
    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        let start = row.checked_mul(self.bytes)?;
        self.data.get(start..start.checked_add(self.bytes)?).filter(|_| row < self.rows)
    }

    /// Some rows one after the other, without a copy.
    pub(crate) fn slice(&self, rows: std::ops::Range<usize>) -> Option<Bytes> {
        (rows.start <= rows.end && rows.end <= self.rows)
            .then(|| self.data.slice(rows.start * self.bytes..rows.end * self.bytes))
    }

    /// What an input or output is that has a row for each of as many as there are.
    pub(crate) fn rows_info(&self, name: &str) -> TensorInfo {
        let row = self.row.iter().map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX));
        info(name, self.datatype, &[-1].into_iter().chain(row).collect::<Vec<_>>())
    }

    /// The same table, if it is of these numbers and has so many axes.
    pub(crate) fn of<T: Pod>(
        self,
        setting: &str,
        datatype: Datatype,
        axes: usize,
    ) -> Result<Typed<T>, String> {
        let shape: Vec<i64> = self.rows_info("").shape;
        if self.datatype != datatype || shape.len() != axes {
            return Err(format!(
                "setting '{setting}': the table is {} {}, and is to be {datatype} with {axes} axes",
                self.datatype,
                dims_text(&shape)
            ));
        }
        if try_cast_slice::<u8, T>(&self.data).is_err() {
            return Err(format!(
                "setting '{setting}': the numbers of the table do not lie as numbers must; write it with numpy.save"
            ));
        }
        Ok(Typed { table: self, of: PhantomData })
    }
}

/// A table whose numbers are of a type.
pub(crate) struct Typed<T> {
    table: Table,
    of: PhantomData<fn() -> T>,
}

impl<T: Pod> Typed<T> {
    pub(crate) fn all(&self) -> &[T] {
        // It was looked at when it was opened.
        try_cast_slice(&self.table.data).unwrap_or_default()
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.table.row.iter().product()
    }

    pub(crate) fn row(&self, at: i64) -> Option<&[T]> {
        let start = usize::try_from(at).ok()?.checked_mul(self.width())?;
        self.all().get(start..start + self.width())
    }
}

/// The value of a key in the head, which is a dictionary of Python.
fn value<'a>(head: &'a str, key: &str) -> Option<&'a str> {
    let at = [format!("'{key}':"), format!("\"{key}\":")];
    let rest = at.iter().find_map(|key| head.split_once(key.as_str()))?.1.trim_start();
    if let Some(inner) = rest.strip_prefix('(') {
        return inner.split_once(')').map(|(inner, _)| inner);
    }
    let end = rest.find([',', '}'])?;
    Some(rest[..end].trim().trim_matches(['\'', '"']))
}

fn shape(text: &str) -> Option<Vec<usize>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let all: Vec<usize> = parts.map(|part| part.parse().ok()).collect::<Option<_>>()?;
    (all.len() <= MOST_AXES).then_some(all)
}

fn datatype(descr: &str) -> Result<Datatype, String> {
    Ok(match descr {
        "|b1" => Datatype::Bool,
        "|u1" => Datatype::Uint8,
        "|i1" => Datatype::Int8,
        "<u2" => Datatype::Uint16,
        "<i2" => Datatype::Int16,
        "<u4" => Datatype::Uint32,
        "<i4" => Datatype::Int32,
        "<u8" => Datatype::Uint64,
        "<i8" => Datatype::Int64,
        "<f2" => Datatype::Fp16,
        "<f4" => Datatype::Fp32,
        "<f8" => Datatype::Fp64,
        other => {
            return Err(format!(
                "is of {}, which is no little-endian number; save array.astype('<f4') or such",
                crate::settings::shown(other)
            ));
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file as NumPy writes it.
    pub(crate) fn npy(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
        let extents: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
        let mut head = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
        while !(head.len() + 11).is_multiple_of(64) {
            head.push(' ');
        }
        head.push('\n');
        let length = u16::try_from(head.len()).unwrap().to_le_bytes();
        [MAGIC.as_slice(), &[1, 0], &length, head.as_bytes(), data].concat()
    }

    fn fault(file: Vec<u8>) -> String {
        Table::read(file.into()).err().unwrap_or_default()
    }

    #[test]
    fn a_table_has_the_rows_that_its_head_says() {
        let table = Table::read(npy("<i2", &[3, 2], &[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]).into()).unwrap();
        assert_eq!((table.rows, table.row.as_slice(), table.datatype), (3, &[2][..], Datatype::Int16));
        assert_eq!(table.get(1), Some([2, 0, 3, 0].as_slice()));
        assert_eq!(table.get(3), None);
        assert_eq!(table.get(usize::MAX), None);
        assert_eq!(table.slice(1..3).unwrap().as_ref(), [2, 0, 3, 0, 4, 0, 5, 0]);
        assert_eq!(table.slice(2..4), None);
    }

    #[test]
    fn what_is_no_table_says_what_it_is() {
        for (file, word) in [
            (Vec::new(), "numpy.save"),
            (b"PK\x03\x04".to_vec(), "numpy.save"),
            (npy("<f4", &[2, 2], &[0; 12]), "it was cut"),
            (npy("<f4", &[usize::MAX, 2], &[0; 12]), "it was cut"),
            (npy(">f4", &[1], &[0; 4]), "little-endian"),
            (npy("|O", &[1], &[0; 8]), "little-endian"),
            (npy("<f4", &[], &[0; 4]), "one number"),
            (
                String::from_utf8_lossy(&npy("<f4", &[1], b"abcd")).replace("False", "True ").into_bytes(),
                "numpy.save",
            ),
        ] {
            let told = fault(file);
            assert!(told.contains(word), "{word}: {told}");
        }
        let mut fortran = npy("<f4", &[1], &[0; 4]);
        let at = fortran.windows(5).position(|window| window == b"False").unwrap();
        fortran.splice(at..at + 5, *b"True ");
        assert!(fault(fortran).contains("Fortran"));
    }
}
