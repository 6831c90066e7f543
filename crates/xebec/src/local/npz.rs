//! NumPy's `.npz`, as `numpy.savez` writes it: a zip archive of uncompressed `.npy` arrays.
//!
//! Invariant: no input makes this panic or reserve more than the file has. Compressed archives and arrays of Python
//! objects or text are refused by name.
//!
//! # Source
//! NumPy, `numpy.lib.format`; PKWARE, "APPNOTE.TXT", 4.3.7, 4.3.12 and 4.3.16.
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use xebec_core::{Datatype, Tensor, tensor::element_count};

const END: &[u8; 4] = b"PK\x05\x06";
const ENTRY: &[u8; 4] = b"PK\x01\x02";
const LOCAL: &[u8; 4] = b"PK\x03\x04";
/// The end of the archive with the longest comment.
const LONGEST_END: usize = 22 + 65_535;

/// The arrays of an archive.
pub(super) fn read(bytes: &[u8]) -> anyhow::Result<Vec<Tensor>> {
    let whole = Bytes::copy_from_slice(bytes);
    let tail = bytes.len().saturating_sub(LONGEST_END);
    let end = bytes.get(tail..).and_then(|tail| tail.windows(4).rposition(|window| window == END));
    let end = tail + end.context("the file is not an .npz archive")?;
    let count = short(bytes, end + 10).context("the archive ends early")?;
    let mut at = long(bytes, end + 16).context("the archive ends early")?;
    let mut arrays = Vec::new();
    for _ in 0..count {
        let (array, next) = entry(&whole, at)?;
        arrays.push(array);
        at = next;
    }
    Ok(arrays)
}

/// The array of a directory entry, and where the next entry begins.
fn entry(bytes: &Bytes, at: usize) -> anyhow::Result<(Tensor, usize)> {
    let early = "the archive ends early";
    ensure!(bytes.get(at..at + 4) == Some(ENTRY), "the archive's directory is damaged");
    let field = |offset| short(bytes, at + offset).context(early);
    let (name_length, extra, comment) = (field(28)?, field(30)?, field(32)?);
    let name = bytes.get(at + 46..at + 46 + name_length).context(early)?;
    let name = String::from_utf8_lossy(name).into_owned();
    ensure!(field(10)? == 0, "'{name}' is compressed: write the file with numpy.savez, not savez_compressed");
    let (size, local) = (long(bytes, at + 24).context(early)?, long(bytes, at + 42).context(early)?);
    ensure!(size != 0xffff_ffff && local != 0xffff_ffff, "'{name}' has 4 GiB or more");
    ensure!(bytes.get(local..local + 4) == Some(LOCAL), "'{name}' is not where the directory says");
    let head = |offset| short(bytes, local + offset).context(early);
    let begin = local + 30 + head(26)? + head(28)?;
    ensure!(begin.checked_add(size).is_some_and(|end| end <= bytes.len()), "{early}");
    let label = name.strip_suffix(".npy").unwrap_or(&name);
    let tensor =
        array(label, &bytes.slice(begin..begin + size)).with_context(|| format!("array '{label}'"))?;
    Ok((tensor, at + 46 + name_length + extra + comment))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes).map(usize::from)
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)?;
    usize::try_from(four).ok()
}

/// One `.npy` array.
fn array(name: &str, bytes: &Bytes) -> anyhow::Result<Tensor> {
    ensure!(bytes.starts_with(b"\x93NUMPY"), "it is not in .npy format");
    let (length, begin) = match bytes.get(6) {
        Some(1) => (short(bytes, 8), 10),
        Some(2 | 3) => (long(bytes, 8), 12),
        _ => bail!("its version of the .npy format is not known"),
    };
    let begin_data = length.and_then(|length| length.checked_add(begin)).context("it ends early")?;
    let head = bytes.get(begin..begin_data).context("it ends early")?;
    let head = std::str::from_utf8(head).context("its head is not text")?;
    let value = |key: &str| {
        let (_, rest) = head.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let descr = value("descr").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next());
    let descr = descr.context("it has no simple element type")?;
    let datatype = datatype(descr)?;
    ensure!(
        value("fortran_order").is_some_and(|rest| rest.starts_with("False")),
        "it is in Fortran order: write numpy.ascontiguousarray(array)"
    );
    let shape = value("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
    let extents = shape.context("it has no shape")?.split(',').map(str::trim).filter(|text| !text.is_empty());
    let shape =
        extents.map(str::parse).collect::<Result<Vec<i64>, _>>().context("its shape is not numbers")?;
    let data = bytes.slice(begin_data..);
    let size = datatype.size_bytes().unwrap_or(1);
    ensure!(
        element_count(&shape).and_then(|count| count.checked_mul(size)) == Some(data.len()),
        "it has {} bytes, which its shape and type do not say",
        data.len()
    );
    Ok(Tensor { name: name.into(), datatype, shape, data })
}

fn datatype(descr: &str) -> anyhow::Result<Datatype> {
    Ok(match descr {
        "|b1" => Datatype::Bool,
        "|u1" => Datatype::Uint8,
        "<u2" => Datatype::Uint16,
        "<u4" => Datatype::Uint32,
        "<u8" => Datatype::Uint64,
        "|i1" => Datatype::Int8,
        "<i2" => Datatype::Int16,
        "<i4" => Datatype::Int32,
        "<i8" => Datatype::Int64,
        "<f2" => Datatype::Fp16,
        "<f4" => Datatype::Fp32,
        "<f8" => Datatype::Fp64,
        other => bail!("its elements are '{other}': numbers of NumPy are taken; give text as JSON"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let head = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let length = u16::try_from(head.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, head.as_bytes(), data].concat()
    }

    /// An archive of one entry.
    fn zip(name: &str, method: u8, data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        let length = u8::try_from(name.len()).unwrap();
        let mut local = [LOCAL.as_slice(), &[0; 26]].concat();
        local[26] = length;
        let body = [&local, name.as_bytes(), data].concat();
        let mut directory = [ENTRY.as_slice(), &[0; 42]].concat();
        (directory[10], directory[28]) = (method, length);
        directory[24..28].copy_from_slice(&size);
        directory.extend_from_slice(name.as_bytes());
        let mut end = [END.as_slice(), &[0; 18]].concat();
        end[10] = 1;
        end[16..20].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        [body, directory, end].concat()
    }

    #[test]
    fn an_array_is_read_with_type_and_shape() {
        let bytes = zip("x.npy", 0, &npy("<i2", "False", "(2, 1)", &[1, 0, 2, 0]));
        let arrays = read(&bytes).unwrap();
        assert_eq!((&*arrays[0].name, arrays[0].datatype), ("x", Datatype::Int16));
        assert_eq!((arrays[0].shape.as_slice(), &arrays[0].data[..]), ([2, 1].as_slice(), &[1, 0, 2, 0][..]));
    }

    #[test]
    fn what_is_not_taken_is_named() {
        let said = |bytes: &[u8]| format!("{:#}", read(bytes).unwrap_err());
        assert!(said(&zip("x.npy", 8, b"")).contains("not savez_compressed"));
        assert!(said(&zip("x.npy", 0, &npy("|O", "False", "(1,)", b""))).contains("'|O'"));
        assert!(said(&zip("x.npy", 0, &npy("<f4", "True", "(1,)", &[0; 4]))).contains("Fortran"));
        assert!(said(&zip("x.npy", 0, &npy("<f4", "False", "(9,)", &[0; 4]))).contains("shape and type"));
        assert!(said(b"hello").contains("not an .npz"));
    }

    #[test]
    fn no_cut_and_no_flipped_byte_makes_the_reader_panic() {
        let bytes = zip("x.npy", 0, &npy("<f4", "False", "(2,)", &[0; 8]));
        for at in 0..bytes.len() {
            let _ = read(&bytes[..at]);
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let _ = read(&flipped);
            }
        }
    }
}
