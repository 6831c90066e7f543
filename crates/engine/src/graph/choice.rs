//! A graph that takes one of several ways: a switch by what a request says, a splitter by chance.
//!
//! Each way is a graph of one step, under the same name. Invariants: every way makes the same outputs; a request takes one
//! way and no other.
use super::Graph;
use crate::{check::check, repository::complete::Misfit};
use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    str::FromStr as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use xebec_core::{
    Datatype, InferError, InferRequest, ModelInfo, Permit, Tensor,
    error::dims_text,
    metrics::ModelMetrics,
    model::TensorInfo,
    model_config::ModelConfig,
    port::{Extent, Reply, Upstream},
    resource::{Condition, Setting},
    tensor::bytes_elements,
};

/// Ways that are served under one name.
pub(crate) struct Choice {
    info: ModelInfo,
    config: ModelConfig,
    metrics: Arc<ModelMetrics>,
    headers: Vec<Box<str>>,
    ways: Vec<Way>,
    by: By,
}

/// One of them.
pub(crate) struct Way {
    pub(crate) label: String,
    pub(crate) graph: Graph,
    /// What has to hold; nothing if `None`.
    pub(crate) when: Option<Test>,
    /// In hundredths.
    pub(crate) weight: u32,
}

/// How one is chosen.
pub(crate) enum By {
    /// The first whose condition holds.
    Condition,
    /// By weight.
    Chance(Chance),
}

/// Numbers without an order that anybody could use.
///
/// # Source
/// Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators": SplitMix64.
pub(crate) struct Chance(AtomicU64);

impl Chance {
    /// A new row of numbers.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one(0_u8)))
    }

    /// A number below 100.
    fn hundredth(&self) -> u32 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut number = self.0.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^= number >> 31;
        // The upper half of a product: no number is likelier than another by more than one in 2^57.
        u32::try_from((u128::from(number) * 100) >> 64).unwrap_or(0)
    }
}

/// A condition that was read.
pub(crate) struct Test {
    what: What,
    equals: Option<Setting>,
    at_least: Option<f64>,
    below: Option<f64>,
}

enum What {
    Tensor(TensorInfo),
    Header(Box<str>),
}

impl Test {
    /// Reads a condition. `inputs` are those that a step takes.
    ///
    /// # Errors
    /// What is missing or too much in it.
    pub(crate) fn read(condition: &Condition, inputs: &[TensorInfo]) -> Result<Self, Misfit> {
        let Condition { tensor, datatype, header, equals, at_least, below } = condition.clone();
        if equals.is_none() && at_least.is_none() && below.is_none() {
            return Err(Misfit::new("`when` says nothing of it: write equals, atLeast or below".into()));
        }
        let what = match (tensor, header) {
            (Some(name), None) => {
                let known = inputs.iter().find(|input| *input.name == *name).cloned();
                What::Tensor(match known {
                    Some(known) => known,
                    None => TensorInfo {
                        datatype: said(&name, datatype.as_deref(), equals.as_ref())?,
                        name: name.into(),
                        shape: vec![-1],
                    },
                })
            }
            (None, Some(name)) => What::Header(header_name(&name)?),
            _ => return Err(Misfit::new("`when` is of a tensor or of a header: write one of them".into())),
        };
        let mut test = Self { what, equals, at_least, below };
        if let What::Tensor(TensorInfo { datatype: Datatype::Fp32, .. }) = &test.what {
            // A number of 32 bits is compared with what its owner's number is in 32 bits.
            #[expect(clippy::cast_possible_truncation, reason = "that is the rounding")]
            let rounded = |number: f64| f64::from(number as f32);
            test.at_least = test.at_least.map(rounded);
            test.below = test.below.map(rounded);
            if let Some(Setting::Real(number)) = &mut test.equals {
                *number = rounded(*number);
            }
        }
        test.check()?;
        Ok(test)
    }

    /// What is compared is of a kind.
    fn check(&self) -> Result<(), Misfit> {
        let (name, is_text, is_flag) = match &self.what {
            What::Header(name) => (&**name, true, false),
            What::Tensor(info) => {
                (&*info.name, info.datatype == Datatype::Bytes, info.datatype == Datatype::Bool)
            }
        };
        let fits = match &self.equals {
            None => true,
            Some(Setting::Flag(_)) => is_flag || is_text,
            Some(Setting::Whole(_) | Setting::Real(_)) => !is_flag,
            Some(Setting::Text(_)) => is_text,
        };
        if !fits || (is_flag && (self.at_least.is_some() || self.below.is_some())) {
            return Err(Misfit::new(format!(
                "`when` compares '{name}' with what it cannot be; a BOOL is true or false, a number is a number"
            )));
        }
        if let What::Tensor(TensorInfo { datatype: Datatype::Fp16 | Datatype::Bf16, .. }) = &self.what {
            return Err(Misfit::new(format!("`when` cannot compare '{name}' of 16 bits; make it FP32")));
        }
        Ok(())
    }

    /// Whether it holds.
    fn holds(&self, request: &InferRequest) -> Result<bool, InferError> {
        let value = match &self.what {
            What::Header(name) => {
                let found = request.headers.iter().find(|(header, _)| header == name);
                let Some((_, text)) = found else { return Ok(false) };
                Setting::Text(text.to_string())
            }
            What::Tensor(info) => {
                let tensor = request.inputs.iter().find(|tensor| tensor.name == info.name);
                let value = tensor.and_then(first);
                value.ok_or_else(|| {
                    InferError::invalid(format!(
                        "input '{}' has no element, and the first decides",
                        info.name
                    ))
                })?
            }
        };
        let number = number(&value);
        let equal = match &self.equals {
            None => true,
            Some(Setting::Flag(flag)) => {
                value == Setting::Flag(*flag) || value == Setting::Text(flag.to_string())
            }
            Some(Setting::Text(text)) => value == Setting::Text(text.clone()),
            Some(Setting::Whole(whole)) if matches!(value, Setting::Whole(_)) => {
                value == Setting::Whole(*whole)
            }
            Some(wanted) => number.is_some() && number == self::number(wanted),
        };
        let above = self.at_least.is_none_or(|least| number.is_some_and(|number| number >= least));
        let below = self.below.is_none_or(|most| number.is_some_and(|number| number < most));
        Ok(equal && above && below)
    }
}

/// The datatype of a tensor that no step takes.
fn said(name: &str, datatype: Option<&str>, equals: Option<&Setting>) -> Result<Datatype, Misfit> {
    match (datatype, equals) {
        (Some(text), _) => Datatype::from_str(text).map_err(|_| {
            Misfit::new(format!("datatype '{text}' of '{name}' is none; write for example FP32"))
        }),
        (None, Some(Setting::Flag(_))) => Ok(Datatype::Bool),
        (None, Some(Setting::Text(_))) => Ok(Datatype::Bytes),
        (None, _) => Err(Misfit::new(format!(
            "`when` looks at '{name}', which no step takes; write its datatype, for example datatype: FP32"
        ))),
    }
}

/// A header's name as requests have it.
fn header_name(name: &str) -> Result<Box<str>, Misfit> {
    let is_token =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !is_token || name.len() > 64 {
        return Err(Misfit::new(format!(
            "`when` names header '{name}', which is no name of a header: 1 to 64 letters, digits, '-', '_' and '.'"
        )));
    }
    let name = name.to_ascii_lowercase();
    if ["authorization", "proxy-authorization", "cookie"].contains(&name.as_str()) {
        return Err(Misfit::new(format!("`when` may not look at header '{name}': it is a secret")));
    }
    Ok(name.into())
}

/// The first element of a tensor.
fn first(tensor: &Tensor) -> Option<Setting> {
    fn of<const N: usize>(data: &[u8]) -> Option<[u8; N]> {
        data.first_chunk::<N>().copied()
    }
    let data = &tensor.data;
    let whole = |number: i64| Setting::Whole(number);
    Some(match tensor.datatype {
        Datatype::Bool => Setting::Flag(*data.first()? != 0),
        Datatype::Uint8 => whole((*data.first()?).into()),
        Datatype::Int8 => whole(i8::from_le_bytes(of(data)?).into()),
        Datatype::Uint16 => whole(u16::from_le_bytes(of(data)?).into()),
        Datatype::Int16 => whole(i16::from_le_bytes(of(data)?).into()),
        Datatype::Uint32 => whole(u32::from_le_bytes(of(data)?).into()),
        Datatype::Int32 => whole(i32::from_le_bytes(of(data)?).into()),
        Datatype::Uint64 => {
            let number = u64::from_le_bytes(of(data)?);
            #[expect(clippy::cast_precision_loss, reason = "above 2^63 only the size counts")]
            i64::try_from(number).map_or(Setting::Real(number as f64), whole)
        }
        Datatype::Int64 => whole(i64::from_le_bytes(of(data)?)),
        Datatype::Fp32 => Setting::Real(f32::from_le_bytes(of(data)?).into()),
        Datatype::Fp64 => Setting::Real(f64::from_le_bytes(of(data)?)),
        Datatype::Bytes => {
            Setting::Text(String::from_utf8_lossy(bytes_elements(data).next()?.ok()?).into_owned())
        }
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

#[expect(clippy::cast_precision_loss, reason = "bounds are written as numbers with a point")]
fn number(value: &Setting) -> Option<f64> {
    match value {
        Setting::Flag(_) => None,
        Setting::Whole(number) => Some(*number as f64),
        Setting::Real(number) => Some(*number),
        Setting::Text(text) => text.trim().parse().ok(),
    }
}

impl Choice {
    /// Brings ways together.
    ///
    /// # Errors
    /// They do not take or make the same.
    pub(crate) fn new(
        ways: Vec<Way>,
        by: By,
        metrics: Arc<ModelMetrics>,
        config: impl FnOnce(&ModelInfo) -> ModelConfig,
    ) -> Result<Self, Misfit> {
        let Some(first) = ways.first() else { return Err(Misfit::new("it has no steps".into())) };
        let mut info = first.graph.info().clone();
        for way in &ways[1..] {
            let other = way.graph.info();
            for input in &other.inputs {
                take(&mut info.inputs, input, &way.label)?;
            }
            same_outputs(&mut info.outputs, &other.outputs, &first.label, &way.label)?;
        }
        let tests = || ways.iter().filter_map(|way| Some((way, way.when.as_ref()?)));
        let mut headers: Vec<Box<str>> = Vec::new();
        for (way, test) in tests() {
            match &test.what {
                What::Tensor(tensor) => take(&mut info.inputs, tensor, &way.label)?,
                What::Header(header) if headers.contains(header) => {}
                What::Header(header) => headers.push(header.clone()),
            }
        }
        for way in &ways {
            for header in way.graph.headers() {
                if !headers.contains(header) {
                    headers.push(header.clone());
                }
            }
        }
        Ok(Self { config: config(&info), info, metrics, headers, ways, by })
    }

    fn choose(&self, request: &InferRequest) -> Result<&Way, InferError> {
        match &self.by {
            By::Condition => {
                for way in &self.ways {
                    if way.when.as_ref().map_or(Ok(true), |test| test.holds(request))? {
                        return Ok(way);
                    }
                }
                Err(InferError::invalid_hint(
                    format!(
                        "no step of '{}' is for this request: none of its conditions holds",
                        self.info.name
                    ),
                    "its owner may add a last step without `when`",
                ))
            }
            By::Chance(chance) => {
                let mut left = chance.hundredth();
                for way in &self.ways {
                    if left < way.weight {
                        return Ok(way);
                    }
                    left -= way.weight;
                }
                Err(InferError::Internal("the weights of a splitter are not 100".into()))
            }
        }
    }
}

/// Takes in what a way is given beside the others.
fn take(inputs: &mut Vec<TensorInfo>, input: &TensorInfo, whose: &str) -> Result<(), Misfit> {
    let Some(known) = inputs.iter_mut().find(|known| known.name == input.name) else {
        inputs.push(input.clone());
        return Ok(());
    };
    meet(known, input).ok_or_else(|| {
        Misfit::new(format!(
            "input '{}' is {} {} for a step before '{whose}', and {} {} for it; give one of them another name by inputs",
            known.name,
            known.datatype,
            dims_text(&known.shape),
            input.datatype,
            dims_text(&input.shape)
        ))
    })
}

/// Whether two are of the same kind; extents that differ are open then.
fn meet(known: &mut TensorInfo, other: &TensorInfo) -> Option<()> {
    (known.datatype == other.datatype && known.shape.len() == other.shape.len()).then(|| {
        for (known, other) in known.shape.iter_mut().zip(&other.shape) {
            if known != other {
                *known = -1;
            }
        }
    })
}

fn same_outputs(
    known: &mut [TensorInfo],
    other: &[TensorInfo],
    first: &str,
    second: &str,
) -> Result<(), Misfit> {
    let differs = |what: String| {
        Misfit::new(format!(
            "steps '{first}' and '{second}' do not answer with the same: {what}; name what both make in the node's outputs"
        ))
    };
    if let Some(extra) = other.iter().find(|output| !known.iter().any(|known| known.name == output.name)) {
        return Err(differs(format!("only '{second}' makes '{}'", extra.name)));
    }
    for known in known {
        let Some(output) = other.iter().find(|output| output.name == known.name) else {
            return Err(differs(format!("only '{first}' makes '{}'", known.name)));
        };
        let told = format!(
            "'{}' is {} {} of one and {} {} of the other",
            known.name,
            known.datatype,
            dims_text(&known.shape),
            output.datatype,
            dims_text(&output.shape)
        );
        meet(known, output).ok_or_else(|| differs(told))?;
    }
    Ok(())
}

impl Upstream for Choice {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn labels(&self, output: &str) -> &[Box<str>] {
        // Whose labels an answer has must not depend on the way that it took.
        self.ways.first().map(|way| way.graph.labels(output)).unwrap_or_default()
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    fn headers(&self) -> &[Box<str>] {
        &self.headers
    }

    fn extent(&self) -> Extent {
        let all = self.ways.iter().map(|way| way.graph.extent());
        all.fold(Extent { depth: 1, runs: 1 }, |most, one| Extent {
            depth: most.depth.max(one.depth),
            runs: most.runs.max(one.runs),
        })
    }

    fn submit(&self, permit: &Permit, mut request: InferRequest, reply: Reply) {
        if let Err(error) = check(&self.info, None, &mut request) {
            return reply.send(Err(error));
        }
        match self.choose(&request) {
            Ok(way) => {
                let taken = &way.graph.info().inputs;
                request.inputs.retain(|tensor| taken.iter().any(|input| input.name == tensor.name));
                if request.outputs.is_empty() {
                    request.outputs =
                        self.info.outputs.iter().map(|output| output.name.to_string()).collect();
                }
                way.graph.submit(permit, request, reply);
            }
            Err(error) => reply.send(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_as_likely_as_it_says() {
        let chance = Chance::new();
        let mut seen = [0_u32; 100];
        for _ in 0..100_000 {
            seen[chance.hundredth() as usize] += 1;
        }
        // 1000 of each, with a deviation of 31: seven of those are never seen.
        assert!(seen.iter().all(|count| (780..1220).contains(count)), "{seen:?}");
    }
}
