//! From `model_warmup` to requests that are run before a model is ready.
use super::{Misfit, files, shapes::spaced};
use crate::served::Warmup;
use bytes::Bytes;
use std::path::Path;
use xebec_core::{
    Datatype, ModelInfo, Tensor,
    model::TensorInfo,
    model_config::{ModelConfig, ModelWarmup, model_warmup},
    tensor::{check_bytes, element_count},
};

/// Most bytes of one warm-up's inputs.
const MOST_BYTES: usize = 256 << 20;
/// Most runs of all warm-ups of a model.
const MOST_RUNS: u32 = 10_000;

/// Reads every warm-up.
pub(super) fn warmups(
    folder: Option<&Path>,
    config: &ModelConfig,
    info: &ModelInfo,
) -> Result<Vec<Warmup>, Misfit> {
    let all = config.model_warmup.iter().map(|said| warmup(folder, config, said, info));
    let all: Vec<Warmup> = all.collect::<Result<_, _>>()?;
    let runs = all.iter().fold(0u32, |runs, one| runs.saturating_add(one.count));
    if runs > MOST_RUNS {
        return Err(Misfit(format!("model_warmup: {runs} runs in all; write {MOST_RUNS} at most")));
    }
    Ok(all)
}

fn warmup(
    folder: Option<&Path>,
    config: &ModelConfig,
    said: &ModelWarmup,
    info: &ModelInfo,
) -> Result<Warmup, Misfit> {
    let fault = |problem: String| Misfit(format!("model_warmup '{}': {problem}", said.name));
    let rows = match (info.max_batch_size, said.batch_size) {
        (0, 0 | 1) => None,
        (0, rows) => {
            return Err(fault(format!(
                "batch_size is {rows}, but the model has no batch axis; leave it out"
            )));
        }
        (most, rows) if rows > most => {
            return Err(fault(format!("batch_size is {rows}; write max_batch_size ({most}) at most")));
        }
        (_, rows) => Some(i64::from(rows.max(1))),
    };
    let mut inputs = Vec::new();
    let mut room = MOST_BYTES;
    for input in &info.inputs {
        let Some(wanted) = said.inputs.get(&*input.name) else {
            if config.input.iter().any(|known| known.optional && *known.name == *input.name) {
                continue;
            }
            return Err(fault(format!("input '{}' is missing", input.name)));
        };
        let tensor = tensor(folder, wanted, input, rows, room)
            .map_err(|problem| fault(format!("input '{}': {problem}", input.name)))?;
        room = room.saturating_sub(tensor.data.len());
        inputs.push(tensor);
    }
    if let Some(unknown) =
        said.inputs.keys().find(|name| !info.inputs.iter().any(|input| *input.name == ***name))
    {
        return Err(fault(format!("the model has no input '{unknown}'")));
    }
    Ok(Warmup { name: said.name.clone(), count: said.count.max(1), inputs })
}

fn tensor(
    folder: Option<&Path>,
    wanted: &model_warmup::Input,
    input: &TensorInfo,
    rows: Option<i64>,
    room: usize,
) -> Result<Tensor, String> {
    if super::answer::config_type(input.datatype) as i32 != wanted.data_type {
        return Err(format!("write data_type: {}", super::answer::config_type(input.datatype).as_str_name()));
    }
    let shape: Vec<i64> = rows.into_iter().chain(wanted.dims.iter().copied()).collect();
    let count = element_count(&shape).filter(|_| input.accepts(&shape));
    let count = count.ok_or_else(|| {
        format!("dims: {} are none of the model's; write extents in the place of -1", spaced(&wanted.dims))
    })?;
    let size = count.checked_mul(input.datatype.size_bytes().unwrap_or(4)).filter(|size| *size <= room);
    let size = size.ok_or_else(|| format!("more than {MOST_BYTES} bytes of inputs"))?;
    let data = data(folder, wanted, input.datatype, count, size, room)?;
    Ok(Tensor { name: input.name.clone(), datatype: input.datatype, shape, data })
}

fn data(
    folder: Option<&Path>,
    wanted: &model_warmup::Input,
    datatype: Datatype,
    count: usize,
    size: usize,
    room: usize,
) -> Result<Bytes, String> {
    use model_warmup::input::InputDataType as Kind;
    match &wanted.input_data_type {
        // Strings of random data are empty, as Triton's are.
        Some(Kind::RandomData(true)) if datatype != Datatype::Bytes => Ok(random(datatype, count).into()),
        Some(Kind::ZeroData(true) | Kind::RandomData(true)) => Ok(vec![0; size].into()),
        Some(Kind::ZeroData(false) | Kind::RandomData(false)) | None => {
            Err("write zero_data: true, random_data: true or an input_data_file".into())
        }
        Some(Kind::InputDataFile(name)) => {
            let most = if datatype == Datatype::Bytes { room } else { size };
            let path = format!("warmup/{name}");
            let bytes = files::read(folder, "input_data_file", &path, most as u64)
                .map_err(|misfit| misfit.to_string())?;
            if datatype == Datatype::Bytes {
                check_bytes(&bytes, count).map_err(|fault| format!("input_data_file \"{name}\": {fault}"))?;
            } else if bytes.len() != size {
                return Err(format!(
                    "input_data_file \"{name}\" has {} bytes, and {size} are wanted",
                    bytes.len()
                ));
            }
            Ok(bytes.into())
        }
    }
}

/// The same numbers every time, small enough to be an index or a number of any datatype.
fn random(datatype: Datatype, count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(count * datatype.size_bytes().unwrap_or(1));
    for _ in 0..count {
        // xorshift64, Marsaglia 2003.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let byte = u8::try_from(state >> 57).unwrap_or(0);
        let real = f32::from(byte) / 128.0;
        match datatype {
            Datatype::Bool => out.push(byte & 1),
            Datatype::Uint8 | Datatype::Int8 => out.push(byte),
            Datatype::Uint16 | Datatype::Int16 => out.extend_from_slice(&u16::from(byte).to_le_bytes()),
            Datatype::Uint32 | Datatype::Int32 => out.extend_from_slice(&u32::from(byte).to_le_bytes()),
            Datatype::Uint64 | Datatype::Int64 => out.extend_from_slice(&u64::from(byte).to_le_bytes()),
            Datatype::Fp32 => out.extend_from_slice(&real.to_le_bytes()),
            Datatype::Fp64 => out.extend_from_slice(&f64::from(real).to_le_bytes()),
            // The upper half of the same number in 32 bits.
            Datatype::Bf16 => out.extend_from_slice(&((real.to_bits() >> 16) as u16).to_le_bytes()),
            // Numbers from 1 to 2: the exponent of 1 with any fraction.
            Datatype::Fp16 => out.extend_from_slice(&(0x3c00 | u16::from(byte)).to_le_bytes()),
            Datatype::Bytes => (),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::complete::tests::{candidate, planned_in};

    fn read(text: &str, folder: &Path) -> Result<Vec<Warmup>, String> {
        let config = format!("max_batch_size: 8 model_warmup {{ name: \"w\" {text} }}");
        planned_in(candidate(&config), Some(folder), &[-1, 4]).map(|plan| plan.warmups)
    }

    fn input(how: &str) -> String {
        format!("batch_size: 2 inputs {{ key: \"x\" value {{ data_type: TYPE_FP32 dims: [ 4 ] {how} }} }}")
    }

    #[test]
    fn a_warm_up_has_zeros_random_numbers_or_the_bytes_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("warmup")).unwrap();
        std::fs::write(folder.path().join("warmup/x"), [7; 32]).unwrap();
        let zeros = read(&(input("zero_data: true") + " count: 3"), folder.path()).unwrap();
        assert_eq!((zeros[0].count, &zeros[0].inputs[0].shape), (3, &vec![2, 4]));
        assert_eq!(zeros[0].inputs[0].data, [0; 32][..]);
        let file = read(&input("input_data_file: \"x\""), folder.path()).unwrap();
        assert_eq!((file[0].count, &file[0].inputs[0].data), (1, &Bytes::from([7; 32].to_vec())));
        let random = read(&input("random_data: true"), folder.path()).unwrap();
        assert_eq!(random, read(&input("random_data: true"), folder.path()).unwrap());
        assert_ne!(random[0].inputs[0].data, zeros[0].inputs[0].data);
    }

    #[test]
    fn a_warm_up_that_does_not_fit_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("warmup")).unwrap();
        std::fs::write(folder.path().join("warmup/short"), [7; 31]).unwrap();
        std::fs::write(folder.path().join("warmup/long"), [7; 33]).unwrap();
        for (text, says) in [
            (input("input_data_file: \"short\""), "has 31 bytes, and 32 are wanted"),
            (input("input_data_file: \"long\""), "more than the 32 bytes"),
            (input("input_data_file: \"../x\""), "without '..'"),
            (input("input_data_file: \"none\""), "cannot be read"),
            (input("zero_data: false"), "write zero_data: true"),
            ("batch_size: 9".to_owned(), "batch_size is 9"),
            (input("zero_data: true") + " count: 10001", "10001 runs"),
            (input("zero_data: true") + " inputs { key: \"z\" value { zero_data: true } }", "no input 'z'"),
            (String::new(), "input 'x' is missing"),
            (
                "inputs { key: \"x\" value { data_type: TYPE_INT8 dims: [ 4 ] zero_data: true } }".to_owned(),
                "TYPE_FP32",
            ),
            (
                "inputs { key: \"x\" value { data_type: TYPE_FP32 dims: [ -1 ] zero_data: true } }"
                    .to_owned(),
                "write extents",
            ),
        ] {
            let said = read(&text, folder.path()).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn random_numbers_fill_every_datatype() {
        for datatype in [
            Datatype::Bool,
            Datatype::Int8,
            Datatype::Uint16,
            Datatype::Int64,
            Datatype::Fp16,
            Datatype::Bf16,
            Datatype::Fp64,
        ] {
            assert_eq!(random(datatype, 5).len(), 5 * datatype.size_bytes().unwrap());
        }
        assert!(random(Datatype::Bool, 64).iter().all(|bit| *bit <= 1));
    }
}
