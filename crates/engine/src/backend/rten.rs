//! The built-in engine: pure Rust, so that a bare build serves with nothing installed.
//!
//! It computes in 32-bit floats and integers and in 8-bit integers; INT64 and BOOL are converted at the edge, and a
//! number that does not fit is refused. Fewer operators than ONNX Runtime; a missing one is refused by name.
//!
//! Not here: when it is chosen ([`choose`](super::choose)).
use super::options::Tuning;
use super::{
    Backend, BatchInput, LoadError, LoadOptions, Model, OutputView, RunError, Signature, Slot, Stream,
};
use crate::onnx::{self, Dim, ValueInfo, ValueKind};
use rten::{NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::{AsView as _, Layout as _};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use xebec_core::{Datatype, port::EngineReport, resource::Objective, tensor::element_count};

const NAME: &str = "rten";
const VERSION: &str = "0.27.0";
const USE_ONNX_RUNTIME: &str =
    "run it with ONNX Runtime: `make engine`, or name the library with --onnxruntime-library FILE";

/// The built-in engine.
pub struct RtenBackend {
    report: EngineReport,
}

impl RtenBackend {
    /// The engine, chosen for `reason`.
    pub fn new(reason: String) -> Self {
        Self { report: EngineReport { name: NAME, version: VERSION.into(), reason } }
    }
}

impl Backend for RtenBackend {
    fn report(&self) -> EngineReport {
        self.report.clone()
    }

    fn load(
        &self,
        path: &Path,
        graph: &onnx::Model,
        options: LoadOptions,
    ) -> Result<Arc<dyn Model>, LoadError> {
        refuse_settings(&options)?;
        let signature = Signature { inputs: slots(graph.inputs())?, outputs: slots(graph.outputs())? };
        let model = rten::Model::load_file(path).map_err(|error| explain(path, &error.to_string()))?;
        let find = |slot: &Slot| {
            model.node_id(&slot.name).map_err(|error| LoadError::Engine {
                path: path.to_owned(),
                engine: NAME,
                message: error.to_string(),
            })
        };
        let inputs = signature.inputs.iter().map(find).collect::<Result<_, _>>()?;
        let outputs = signature.outputs.iter().map(find).collect::<Result<_, _>>()?;
        let threads = match (options.threads, options.objective) {
            (Some(threads), _) => usize::try_from(threads).unwrap_or(1).max(1),
            (None, Objective::Throughput) => 1,
            (None, Objective::Latency) => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(Arc::new(RtenModel(Arc::new(Shared { model, signature, inputs, outputs, threads }))))
    }
}

/// Threads are all that can be set here.
fn refuse_settings(options: &LoadOptions) -> Result<(), LoadError> {
    if let Some(accelerator) = options.accelerators().first() {
        return Err(LoadError::Provider {
            provider: accelerator.kind.name(),
            engine: NAME,
            message: "the built-in engine runs on the CPU alone".into(),
            hint: USE_ONNX_RUNTIME.into(),
        });
    }
    if let Some(slot) = options.optional.first() {
        return Err(LoadError::Setting {
            what: format!("the optional input '{}'", slot.name),
            engine: NAME,
            hint: USE_ONNX_RUNTIME.into(),
        });
    }
    if options.tuning != Tuning::default() {
        return Err(LoadError::Setting {
            what: "optimization and ONNX Runtime's parameters of config.pbtxt".into(),
            engine: NAME,
            hint: USE_ONNX_RUNTIME.into(),
        });
    }
    Ok(())
}

fn explain(path: &Path, message: &str) -> LoadError {
    let missing = message.split_once("operator ").and_then(|(_, rest)| rest.split_once(" is not available"));
    let named = message.split_once("name: \"").and_then(|(_, rest)| rest.split_once('"'));
    let unavailable = message.contains("not supported")
        || message.contains("not available")
        || message.contains("not enabled");
    match missing.or(named).filter(|_| unavailable || missing.is_some()) {
        Some((operator, _)) => LoadError::UnsupportedOperator {
            operator: operator.to_owned(),
            engine: NAME,
            hint: USE_ONNX_RUNTIME.into(),
        },
        None => LoadError::Engine {
            path: path.to_owned(),
            engine: NAME,
            message: format!("{message}; {USE_ONNX_RUNTIME}"),
        },
    }
}

/// The types come from the file: the engine itself has forgotten which of its integers were INT64 or BOOL.
fn slots(values: &[ValueInfo]) -> Result<Vec<Slot>, LoadError> {
    values.iter().map(slot).collect()
}

fn slot(value: &ValueInfo) -> Result<Slot, LoadError> {
    let unsupported = |what: String| LoadError::UnsupportedType {
        slot: value.name.clone(),
        what,
        engine: NAME,
        hint: USE_ONNX_RUNTIME.into(),
    };
    let ValueKind::Tensor { elem, shape } = &value.kind else {
        return Err(unsupported("not a tensor".into()));
    };
    let datatype = elem.datatype().filter(|datatype| is_known(*datatype));
    let datatype = datatype.ok_or_else(|| unsupported(format!("a tensor of {elem}")))?;
    let extent = |dim: &Dim| if let Dim::Fixed(extent) = dim { *extent } else { -1 };
    let dims = shape.as_ref().map(|shape| shape.iter().map(extent).collect());
    Ok(Slot { name: value.name.as_str().into(), datatype, dims })
}

fn is_known(datatype: Datatype) -> bool {
    use Datatype as D;
    matches!(datatype, D::Fp32 | D::Int32 | D::Int64 | D::Bool | D::Int8 | D::Uint8)
}

struct Shared {
    model: rten::Model,
    signature: Signature,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    threads: usize,
}

struct RtenModel(Arc<Shared>);

impl Model for RtenModel {
    fn signature(&self) -> &Signature {
        &self.0.signature
    }

    fn shared_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        let outputs = self.0.outputs.iter().map(|_| Output::default()).collect();
        let pool = Arc::new(ThreadPool::with_num_threads(self.0.threads));
        Ok(Box::new(RtenStream { shared: Arc::clone(&self.0), pool, outputs }))
    }

    // A run borrows the graph and has its own buffers and threads, so a stream is all that could be its own.
    fn own_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        self.shared_stream()
    }
}

#[derive(Default)]
struct Output {
    shape: Vec<i64>,
    data: Vec<u8>,
}

struct RtenStream {
    shared: Arc<Shared>,
    pool: Arc<ThreadPool>,
    outputs: Vec<Output>,
}

impl Stream for RtenStream {
    fn run(&mut self, batch: &[BatchInput<'_>]) -> Result<Duration, RunError> {
        let began = Instant::now();
        let shared = &self.shared;
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(batch.len());
        for ((input, slot), id) in batch.iter().zip(&shared.signature.inputs).zip(&shared.inputs) {
            inputs.push((*id, value(input, slot)?.into()));
        }
        let gathered = began.elapsed();
        let mut options = RunOptions::default();
        options.thread_pool = Some(Arc::clone(&self.pool));
        let values = shared.model.run(inputs, &shared.outputs, Some(options)).map_err(|error| RunError {
            callers_fault: matches!(error.kind(), rten::RunErrorKind::InvalidInput),
            message: error.to_string(),
        })?;
        for ((value, slot), output) in values.iter().zip(&shared.signature.outputs).zip(&mut self.outputs) {
            output.take(value, slot)?;
        }
        Ok(gathered)
    }

    fn output(&self, index: usize) -> OutputView<'_> {
        self.outputs
            .get(index)
            .map(|output| OutputView { shape: &output.shape, data: &output.data })
            .unwrap_or_default()
    }
}

fn refuse(message: String) -> RunError {
    RunError { message, callers_fault: true }
}

fn value(input: &BatchInput<'_>, slot: &Slot) -> Result<Value, RunError> {
    let shape: Option<Vec<usize>> = input.shape.iter().map(|extent| usize::try_from(*extent).ok()).collect();
    let wrong = || refuse(format!("input '{}' has bytes that are not what its shape says", slot.name));
    let (shape, count) = shape.zip(element_count(input.shape)).ok_or_else(wrong)?;
    match slot.datatype {
        Datatype::Fp32 => made(&shape, elements(input, count, f32::from_le_bytes).ok_or_else(wrong)?),
        Datatype::Int32 => made(&shape, elements(input, count, i32::from_le_bytes).ok_or_else(wrong)?),
        Datatype::Int8 => made(&shape, elements(input, count, i8::from_le_bytes).ok_or_else(wrong)?),
        Datatype::Uint8 => made(&shape, elements(input, count, u8::from_le_bytes).ok_or_else(wrong)?),
        Datatype::Int64 => {
            let wide = elements(input, count, i64::from_le_bytes).ok_or_else(wrong)?;
            let narrow: Result<Vec<i32>, i64> =
                wide.into_iter().map(|wide| i32::try_from(wide).map_err(|_| wide)).collect();
            made(&shape, narrow.map_err(|wide| too_wide(&slot.name, wide))?)
        }
        Datatype::Bool => {
            let flags = elements(input, count, u8::from_le_bytes).ok_or_else(wrong)?;
            if flags.iter().any(|flag| *flag > 1) {
                return Err(refuse("a BOOL element is neither 0 nor 1".into()));
            }
            made(&shape, flags.into_iter().map(i32::from).collect::<Vec<_>>())
        }
        other => {
            return Err(refuse(format!("input '{}' is {other}, which {NAME} does not compute", slot.name)));
        }
    }
    .ok_or_else(wrong)
}

fn made<T>(shape: &[usize], elements: Vec<T>) -> Option<Value>
where
    Value: From<rten_tensor::Tensor<T>>,
{
    rten_tensor::Tensor::try_from_data(shape, elements).ok().map(Value::from)
}

fn too_wide(name: &str, wide: i64) -> RunError {
    refuse(format!(
        "input '{name}' has {wide}, but the built-in engine computes in 32 bits; {USE_ONNX_RUNTIME}"
    ))
}

/// All elements of all parts; `None` if they are not `count`.
fn elements<const N: usize, T>(
    input: &BatchInput<'_>,
    count: usize,
    convert: impl Fn([u8; N]) -> T,
) -> Option<Vec<T>> {
    let mut all = Vec::with_capacity(count);
    for part in input.parts {
        let (chunks, rest) = part.as_chunks::<N>();
        if !rest.is_empty() {
            return None;
        }
        all.extend(chunks.iter().map(|chunk| convert(*chunk)));
    }
    (all.len() == count).then_some(all)
}

impl Output {
    fn take(&mut self, value: &Value, slot: &Slot) -> Result<(), RunError> {
        self.data.clear();
        let mismatch = || RunError {
            message: format!("output '{}' is not of {} as the graph says", slot.name, slot.datatype),
            callers_fault: false,
        };
        match (value, slot.datatype) {
            (Value::FloatTensor(tensor), Datatype::Fp32) => {
                self.fill(tensor.shape().as_ref(), tensor.iter(), |x| x.to_le_bytes())
            }
            (Value::Int32Tensor(tensor), Datatype::Int32) => {
                self.fill(tensor.shape().as_ref(), tensor.iter(), |x| x.to_le_bytes())
            }
            (Value::Int32Tensor(tensor), Datatype::Int64) => {
                self.fill(tensor.shape().as_ref(), tensor.iter(), |x| i64::from(*x).to_le_bytes());
            }
            (Value::Int32Tensor(tensor), Datatype::Bool) => {
                self.fill(tensor.shape().as_ref(), tensor.iter(), |x| [u8::from(*x != 0)]);
            }
            (Value::Int8Tensor(tensor), Datatype::Int8) => {
                self.fill(tensor.shape().as_ref(), tensor.iter(), |x| x.to_le_bytes())
            }
            (Value::UInt8Tensor(tensor), Datatype::Uint8) => {
                self.fill(tensor.shape().as_ref(), tensor.iter(), |x| x.to_le_bytes())
            }
            _ => return Err(mismatch()),
        }
        Ok(())
    }

    fn fill<'a, T: 'a, const N: usize>(
        &mut self,
        shape: &[usize],
        elements: impl Iterator<Item = &'a T>,
        bytes: impl Fn(&T) -> [u8; N],
    ) {
        self.shape = shape.iter().map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX)).collect();
        elements.for_each(|element| self.data.extend_from_slice(&bytes(element)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_built_in_engine_cannot_be_told_is_refused() {
        let said = |options: LoadOptions| refuse_settings(&options).map_err(|error| error.to_string());
        assert_eq!(said(LoadOptions { threads: Some(2), ..LoadOptions::default() }), Ok(()));
        let on_gpu = LoadOptions { provider: xebec_core::resource::Provider::Cuda, ..LoadOptions::default() };
        assert!(said(on_gpu).unwrap_err().starts_with("CUDA cannot be had from rten"));
        let tuning = Tuning { parallel: Some(true), ..Tuning::default() };
        let said = said(LoadOptions { tuning, ..LoadOptions::default() }).unwrap_err();
        assert!(said.starts_with("rten has no setting for"), "{said}");
    }
}
