//! Inputs of a model as people write them or as chance makes them, and the bytes they become.
//!
//! Not here: where they are sent (`bench`, `tune`, `quantize`).
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::path::Path;
use xebec_core::{Datatype, Tensor, tensor::element_count};

/// One input.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<i64>,
    /// Row-major, flat.
    pub(crate) values: Vec<Value>,
}

/// Reads the inputs of a v2 infer request.
pub(crate) fn from_file(file: &Path) -> anyhow::Result<Vec<Input>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let body: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    of_request(&body).with_context(|| format!("in {}", file.display()))
}

/// The inputs of a v2 infer request.
pub(crate) fn of_request(body: &Value) -> anyhow::Result<Vec<Input>> {
    let inputs = body.get("inputs").and_then(Value::as_array).context("a request has no list 'inputs'")?;
    inputs.iter().map(one).collect()
}

/// One input, or output, of a v2 request or answer.
pub(crate) fn one(input: &Value) -> anyhow::Result<Input> {
    let text = |key: &str| {
        input.get(key).and_then(Value::as_str).with_context(|| format!("an input has no '{key}'"))
    };
    let name = text("name")?.to_owned();
    let datatype = text("datatype")?.parse()?;
    let shape: Vec<i64> = serde_json::from_value(input.get("shape").cloned().unwrap_or_default())
        .with_context(|| format!("input '{name}' has no 'shape'"))?;
    let mut values = Vec::new();
    flatten(input.get("data").with_context(|| format!("input '{name}' has no 'data'"))?, &mut values);
    Ok(Input { name, datatype, shape, values })
}

fn flatten(value: &Value, into: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, into)),
        other => into.push(other.clone()),
    }
}

/// What a model takes.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    /// -1 where free.
    pub(crate) shape: Vec<i64>,
}

/// Makes inputs by what a model takes: numbers between 0 and 1, whole numbers 0 and 1, short strings. The values mean
/// nothing, and the same seed gives the same ones.
pub(crate) fn random(slots: &[Slot], rows: i64, free: i64, seed: u64) -> anyhow::Result<Vec<Input>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut inputs = Vec::new();
    for slot in slots {
        let datatype = slot.datatype;
        let place = |(axis, extent): (usize, &i64)| match (*extent, axis) {
            (-1, 0) => rows,
            (-1, _) => free,
            (extent, _) => extent,
        };
        let shape: Vec<i64> = slot.shape.iter().enumerate().map(place).collect();
        let count = element_count(&shape)
            .filter(|count| *count <= 64 << 20)
            .context("the model's inputs are too large")?;
        #[expect(clippy::cast_precision_loss, reason = "any number between 0 and 1 will do")]
        let mut value = || match datatype {
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
                json!(((next() >> 40) as f64 / (1u64 << 24) as f64) as f32)
            }
            Datatype::Bool => json!(next() % 2 == 0),
            Datatype::Bytes => json!(format!("text {}", next() % 1000)),
            _ => json!(next() % 2),
        };
        let values = (0..count).map(|_| value()).collect();
        inputs.push(Input { name: slot.name.clone(), datatype, shape, values });
    }
    Ok(inputs)
}

impl Input {
    /// The elements as they go over the wire.
    ///
    /// # Errors
    /// A value that is none of the datatype, or too few or many of them.
    pub(crate) fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::new();
        for value in &self.values {
            self.push(value, &mut out)
                .with_context(|| format!("input '{}': {value} is not {}", self.name, self.datatype))?;
        }
        ensure!(
            element_count(&self.shape) == Some(self.values.len()),
            "input '{}' has {} values where its shape says otherwise",
            self.name,
            self.values.len()
        );
        Ok(out)
    }

    /// The tensor that it is.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub(crate) fn tensor(&self) -> anyhow::Result<Tensor> {
        let (name, data) = (self.name.as_str().into(), self.bytes()?.into());
        Ok(Tensor { name, datatype: self.datatype, shape: self.shape.clone(), data })
    }

    fn push(&self, value: &Value, out: &mut Vec<u8>) -> Option<()> {
        macro_rules! whole {
            ($kind:ty) => {{
                let wide = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))?;
                out.extend_from_slice(&<$kind>::try_from(wide).ok()?.to_le_bytes())
            }};
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is wanted")]
        match self.datatype {
            Datatype::Bool => out.push(u8::from(value.as_bool().or_else(|| value.as_u64().map(|n| n != 0))?)),
            Datatype::Uint8 => whole!(u8),
            Datatype::Uint16 => whole!(u16),
            Datatype::Uint32 => whole!(u32),
            Datatype::Uint64 => whole!(u64),
            Datatype::Int8 => whole!(i8),
            Datatype::Int16 => whole!(i16),
            Datatype::Int32 => whole!(i32),
            Datatype::Int64 => whole!(i64),
            // The upper half of a 32-bit float is a bfloat16, and near enough for a load.
            Datatype::Bf16 => out.extend_from_slice(&(value.as_f64()? as f32).to_le_bytes()[2..]),
            Datatype::Fp16 => out.extend_from_slice(&half(value.as_f64()? as f32).to_le_bytes()),
            Datatype::Fp32 => out.extend_from_slice(&(value.as_f64()? as f32).to_le_bytes()),
            Datatype::Fp64 => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
            Datatype::Bytes => {
                let text = value.as_str()?;
                out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        Some(())
    }
}

fn half(value: f32) -> u16 {
    ::half::f16::from_f32(value).to_bits()
}
