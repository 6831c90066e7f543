//! ONNX Runtime, from a library that is loaded at start.
//!
//! Sessions are built by the safe `ort` crate; runs go through `raw`. A stream keeps a buffer and a value per shape
//! for each input and output, so that a run of a known shape allocates nothing.
//!
//! # Source
//! ONNX Runtime's C API documentation; concurrent `Run` on one session is allowed there.
use super::{
    Backend, BatchInput, LoadError, LoadOptions, Model, OutputView, RunError, Signature, Slot, Stream,
};
use crate::onnx;
use ort::{
    environment::Environment,
    session::Session,
    value::{TensorElementType, ValueType},
};
use raw::{Bound, Call, Fault, Memory, Names, RunSettings, Value};
use session::{build, environment};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use xebec_core::{Datatype, port::EngineReport, tensor::element_count};

mod raw;
mod session;

const NAME: &str = "onnxruntime";

/// A part this large is used where it lies; copying a smaller one into a buffer with a known value is cheaper than
/// making a value for it.
const IN_PLACE_BYTES: usize = 16 << 10;

/// A larger output is made by the engine, which can say that it has no room for it.
const GUESSED_BYTES: usize = 16 << 20;

/// ONNX Runtime in this process.
pub struct OrtBackend {
    environment: Environment,
    report: EngineReport,
}

impl OrtBackend {
    /// Loads the library. A process can do so once.
    ///
    /// # Errors
    /// The loader's words, or that the library is too old.
    pub fn start(library: &Path, found_by: String) -> Result<Self, String> {
        // ort would find and load any path that dlopen takes; a folder or a missing file deserve clearer words.
        if !library.is_file() {
            return Err("there is no such file".into());
        }
        let environment = environment(library)?;
        let reason = format!("{} {found_by}", library.display());
        Ok(Self { environment, report: EngineReport { name: NAME, version: version(library), reason } })
    }
}

/// From the file's name, `libonnxruntime.so.1.31.1`; a file named otherwise tells its build at least.
fn version(library: &Path) -> String {
    let resolved = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    let name = resolved.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let by_name = name.split_once(".so.").map(|(_, version)| version).filter(|version| version.contains('.'));
    by_name.map_or_else(|| ort::info().trim_start_matches("ORT Build Info: ").to_owned(), str::to_owned)
}

/// Finds the operator that is missing in the engine's words.
fn explain(path: &Path, message: String) -> LoadError {
    let operator = between(&message, "No Op registered for ", " ")
        .or_else(|| between(&message, "Could not find an implementation for ", " "))
        .or_else(|| between(&message, "Fatal error: ", " is not a registered function/op"));
    match operator {
        Some(operator) => LoadError::UnsupportedOperator {
            operator: operator.to_owned(),
            engine: NAME,
            hint: "export the model with operators of ONNX's own domain, or use a newer library".into(),
        },
        None => LoadError::Engine { path: path.to_owned(), engine: NAME, message },
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after).map_or(rest, |(found, _)| found))
}

impl Backend for OrtBackend {
    fn leaves_threads_to_the_nursery(&self) -> bool {
        true
    }

    fn report(&self) -> EngineReport {
        self.report.clone()
    }

    fn load(
        &self,
        path: &Path,
        graph: &onnx::Model,
        options: LoadOptions,
    ) -> Result<Arc<dyn Model>, LoadError> {
        if let Some(node) = graph.trap() {
            return Err(LoadError::UnsupportedOperator {
                operator: format!("Mod of integers that is safe with a divisor of the caller's (node '{node}')"),
                engine: NAME,
                hint: "make the divisor a constant of the graph other than -1, or compute in real numbers with fmod=1"
                    .into(),
            });
        }
        let session = build(&self.environment, path, &options)?;
        let signature = Signature {
            inputs: {
                let mut inputs =
                    slots(session.inputs().iter().map(|outlet| (outlet.name(), outlet.dtype())))?;
                inputs.extend(options.optional.iter().cloned());
                inputs
            },
            outputs: slots(session.outputs().iter().map(|outlet| (outlet.name(), outlet.dtype())))?,
        };
        let broken = |message: &str| LoadError::Engine {
            path: path.to_owned(),
            engine: NAME,
            message: message.into(),
        };
        let names = |slots: &[Slot]| {
            Names::new(slots.iter().map(|slot| &*slot.name)).ok_or_else(|| broken("a name holds a NUL byte"))
        };
        let shared = Arc::new(Shared {
            input_names: names(&signature.inputs)?,
            output_names: names(&signature.outputs)?,
            routes: routes(&signature),
            signature,
            memory: Memory::new().map_err(|fault| broken(&fault.message))?,
            settings: match &options.tuning.shrinkage {
                Some(arenas) => Some(RunSettings::shrinking(arenas).map_err(|fault| broken(&fault.message))?),
                None => None,
            },
        });
        Ok(Arc::new(OrtModel {
            session: Arc::new(session),
            session_lent: AtomicBool::new(false),
            shared,
            environment: self.environment.clone(),
            path: path.to_owned(),
            options,
        }))
    }
}

fn slots<'a>(outlets: impl Iterator<Item = (&'a str, &'a ValueType)>) -> Result<Vec<Slot>, LoadError> {
    outlets.map(|(name, kind)| slot(name, kind)).collect()
}

fn slot(name: &str, kind: &ValueType) -> Result<Slot, LoadError> {
    let unsupported = |what: String, hint: &str| LoadError::UnsupportedType {
        slot: name.to_owned(),
        what,
        engine: NAME,
        hint: hint.to_owned(),
    };
    let ValueType::Tensor { ty, shape, .. } = kind else {
        let hint = "export the model with tensors as inputs and outputs (for scikit-learn: zipmap=False)";
        return Err(unsupported("not a tensor".into(), hint));
    };
    let datatype = datatype(*ty).ok_or_else(|| {
        unsupported(format!("a tensor of {ty}"), "cast it to a datatype of the protocol in the graph")
    })?;
    Ok(Slot { name: name.into(), datatype, dims: Some(shape.iter().copied().collect()) })
}

fn datatype(kind: TensorElementType) -> Option<Datatype> {
    use TensorElementType as T;
    Some(match kind {
        T::Bool => Datatype::Bool,
        T::Uint8 => Datatype::Uint8,
        T::Uint16 => Datatype::Uint16,
        T::Uint32 => Datatype::Uint32,
        T::Uint64 => Datatype::Uint64,
        T::Int8 => Datatype::Int8,
        T::Int16 => Datatype::Int16,
        T::Int32 => Datatype::Int32,
        T::Int64 => Datatype::Int64,
        T::Float16 => Datatype::Fp16,
        T::Bfloat16 => Datatype::Bf16,
        T::Float32 => Datatype::Fp32,
        T::Float64 => Datatype::Fp64,
        T::String => Datatype::Bytes,
        _ => return None,
    })
}

/// How an output comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// An operator writes it.
    Computed,
    /// It is an input, which ONNX Runtime hands back as it is: the value lies over the input's bytes and is copied
    /// while they are there.
    PassedThrough,
    /// It stands twice among the outputs, and ONNX Runtime fills only one of the places.
    Repeated,
}

fn routes(signature: &Signature) -> Vec<Route> {
    let route = |output: &Slot| match () {
        () if signature.inputs.iter().any(|input| input.name == output.name) => Route::PassedThrough,
        () if signature.outputs.iter().filter(|other| other.name == output.name).count() > 1 => {
            Route::Repeated
        }
        () => Route::Computed,
    };
    signature.outputs.iter().map(route).collect()
}

/// What all streams of a model use.
struct Shared {
    signature: Signature,
    routes: Vec<Route>,
    input_names: Names,
    output_names: Names,
    memory: Memory,
    settings: Option<RunSettings>,
}

struct OrtModel {
    session: Arc<Session>,
    session_lent: AtomicBool,
    shared: Arc<Shared>,
    environment: Environment,
    path: PathBuf,
    options: LoadOptions,
}

impl Model for OrtModel {
    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn shared_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        self.session_lent.store(true, SeqCst);
        Ok(Box::new(OrtStream::new(Arc::clone(&self.session), Arc::clone(&self.shared))))
    }

    fn own_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        let session = if self.session_lent.swap(true, SeqCst) {
            Arc::new(build(&self.environment, &self.path, &self.options)?)
        } else {
            Arc::clone(&self.session)
        };
        Ok(Box::new(OrtStream::new(session, Arc::clone(&self.shared))))
    }
}

/// One input of the run at hand.
enum Given<'a> {
    /// In the input's buffer, as the value of this number.
    Bound(usize),
    /// A value of its own.
    Value(Value<'a>),
    /// The graph's own default.
    Default,
}

/// One output: where it was written, and its shape and size after a run.
#[derive(Default)]
struct Output {
    bound: Bound,
    number: Option<usize>,
    made: Option<Value<'static>>,
    /// Strings, and what lies over an input's bytes.
    copied: Option<Vec<u8>>,
    shape: Vec<i64>,
    len: usize,
}

struct OrtStream {
    shared: Arc<Shared>,
    call: Call,
    inputs: Vec<Bound>,
    outputs: Vec<Output>,
    made: Vec<Option<Value<'static>>>,
    /// Whether outputs are written to buffers of ours; off once a graph's outputs were not what its signature says.
    predict: bool,
    // Dropped last: values of its making are gone by then.
    session: Arc<Session>,
}

impl OrtStream {
    fn new(session: Arc<Session>, shared: Arc<Shared>) -> Self {
        let inputs = shared.signature.inputs.iter().map(|_| Bound::default()).collect();
        let outputs = shared.signature.outputs.iter().map(|_| Output::default()).collect();
        Self { session, shared, call: Call::default(), inputs, outputs, made: Vec::new(), predict: true }
    }

    fn attempt(&mut self, batch: &[BatchInput<'_>], predict: bool) -> Result<Duration, Fault> {
        let started = Instant::now();
        let shared = Arc::clone(&self.shared);
        let slots = &shared.signature.inputs;
        let mut given = Vec::with_capacity(batch.len());
        for ((input, slot), bound) in batch.iter().zip(slots).zip(&mut self.inputs) {
            given.push(give(&shared.memory, input, slot.datatype, bound)?);
        }
        let rows = common_leading(batch);
        let slots = shared.signature.outputs.iter().zip(&shared.routes);
        for (output, (slot, route)) in self.outputs.iter_mut().zip(slots.clone()) {
            (output.made, output.copied) = (None, None);
            let known = predict && *route == Route::Computed;
            output.number = if known { output.predict(&shared.memory, slot, rows)? } else { None };
        }
        let inputs = given.iter().zip(&self.inputs).map(|(given, bound)| match given {
            Given::Bound(number) => bound.handle(*number),
            Given::Value(value) => Some(value.handle()),
            Given::Default => None,
        });
        let outputs =
            self.outputs.iter().map(|output| output.number.and_then(|number| output.bound.handle(number)));
        let names = (&shared.input_names, &shared.output_names);
        let gathered = started.elapsed();
        self.call.run(&self.session, shared.settings.as_ref(), names, inputs, outputs, &mut self.made)?;
        for ((output, made), (slot, route)) in self.outputs.iter_mut().zip(&mut self.made).zip(slots) {
            output.take(made.take(), slot.datatype, *route)?;
        }
        Ok(gathered)
    }
}

impl Stream for OrtStream {
    fn run(&mut self, batch: &[BatchInput<'_>]) -> Result<Duration, RunError> {
        let first = self.attempt(batch, self.predict);
        let outcome = match first {
            // The guess at an output's shape was wrong: this graph's outputs are never guessed again.
            Err(fault) if self.predict && is_wrong_guess(&fault.message) => {
                self.predict = false;
                self.attempt(batch, false)
            }
            outcome => outcome,
        };
        outcome.map_err(|fault| RunError {
            callers_fault: fault.invalid_argument || is_about_values(&fault.message),
            message: fault.message,
        })
    }

    fn output(&self, index: usize) -> OutputView<'_> {
        self.outputs.get(index).map(Output::view).unwrap_or_default()
    }
}

/// What ONNX Runtime says if a given output has not the shape that the run makes; which of the two depends on where it
/// notices.
fn is_wrong_guess(message: &str) -> bool {
    message.contains("shape verification failed") || message.contains("supply unallocated output OrtValues")
}

/// Kernels report an index out of range or shapes that do not broadcast with the general code, because they cannot
/// know whose fault it is; with a graph that has run before it is the values'.
fn is_about_values(message: &str) -> bool {
    let telling = [
        "out of data bounds",
        "out of bounds",
        "idx=",
        "must be within the inclusive range",
        "invalid dimension",
        "Integer division by zero",
        "Integer modulo by zero",
    ];
    let shapes = [
        "axis == 1 || axis == largest was false",
        "cannot broadcast",
        "Got invalid dimensions",
        "dimension mismatch",
    ];
    telling.iter().chain(&shapes).any(|words| message.contains(words))
}

/// The extent of axis 0 that all inputs share.
fn common_leading(batch: &[BatchInput<'_>]) -> Option<i64> {
    let given = batch.iter().filter(|input| !input.parts.is_empty());
    let mut leading = given.map(|input| input.shape.first().copied());
    let first = leading.next()??;
    leading.all(|extent| extent == Some(first)).then_some(first)
}

fn give<'a>(
    memory: &Memory,
    input: &BatchInput<'a>,
    datatype: Datatype,
    bound: &mut Bound,
) -> Result<Given<'a>, Fault> {
    if input.parts.is_empty() {
        return Ok(Given::Default);
    }
    let Some(size) = datatype.size_bytes() else {
        return Value::strings(input.parts, input.shape).map(Given::Value);
    };
    if datatype == Datatype::Bool && input.parts.iter().any(|part| part.iter().any(|byte| *byte > 1)) {
        return Err(Fault { message: "a BOOL element is neither 0 nor 1".into(), invalid_argument: true });
    }
    let len: usize = input.parts.iter().map(|part| part.len()).sum();
    if element_count(input.shape).and_then(|count| count.checked_mul(size)) != Some(len) {
        return Err(Fault {
            message: "an input's bytes are not what its shape says".into(),
            invalid_argument: true,
        });
    }
    if let [part] = input.parts
        && len >= IN_PLACE_BYTES
        && part.as_ptr().align_offset(size) == 0
    {
        return Value::over(memory, part, datatype, input.shape).map(Given::Value);
    }
    let mut room = bound.room(len)?;
    for part in input.parts {
        if let Some((place, rest)) = std::mem::take(&mut room).split_at_mut_checked(part.len()) {
            place.copy_from_slice(part);
            room = rest;
        }
    }
    bound.prepare(memory, datatype, input.shape, len).map(Given::Bound)
}

impl Output {
    /// Prepares the buffer if the shape follows from the signature and the batch's rows.
    fn predict(&mut self, memory: &Memory, slot: &Slot, rows: Option<i64>) -> Result<Option<usize>, Fault> {
        let (Some(size), Some(dims)) = (slot.datatype.size_bytes(), slot.dims.as_deref()) else {
            return Ok(None);
        };
        self.shape.clear();
        self.shape.extend_from_slice(dims);
        if let (Some(first), Some(rows)) = (self.shape.first_mut(), rows)
            && *first == -1
        {
            *first = rows;
        }
        let len = element_count(&self.shape).and_then(|count| count.checked_mul(size));
        let Some(len) = len.filter(|len| *len <= GUESSED_BYTES) else { return Ok(None) };
        self.len = len;
        self.bound.prepare(memory, slot.datatype, &self.shape, len).map(Some)
    }

    /// Notes what a run left.
    fn take(&mut self, made: Option<Value<'static>>, datatype: Datatype, route: Route) -> Result<(), Fault> {
        let Some(value) = made else { return Ok(()) };
        self.shape = value.describe()?;
        let count = element_count(&self.shape).unwrap_or(0);
        match datatype.size_bytes() {
            None => self.copied = Some(value.wire_strings(count)?),
            Some(size) if route == Route::PassedThrough => {
                self.copied = Some(value.bytes(count * size)?.to_vec());
            }
            Some(size) => {
                self.len = count * size;
                self.made = Some(value);
            }
        }
        Ok(())
    }

    fn view(&self) -> OutputView<'_> {
        let data = match (&self.copied, &self.made, self.number) {
            (Some(bytes), _, _) => Some(bytes.as_slice()),
            (None, Some(value), _) => value.bytes(self.len).ok(),
            (None, None, Some(_)) => Some(self.bound.bytes(self.len)),
            (None, None, None) => None,
        };
        OutputView { shape: &self.shape, data: data.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_operator_is_found_in_the_engines_words() {
        let message = "Load model from x.onnx failed:Fatal error: Frobnicate is not a registered function/op"
            .to_owned();
        assert!(
            matches!(explain(Path::new("x"), message), LoadError::UnsupportedOperator { operator, .. } if operator == "Frobnicate")
        );
        let message =
            "Failed to find kernel: Could not find an implementation for Einsum(12) node".to_owned();
        assert!(
            matches!(explain(Path::new("x"), message), LoadError::UnsupportedOperator { operator, .. } if operator == "Einsum(12)")
        );
    }

    #[test]
    fn inputs_that_disagree_about_axis_0_have_no_common_rows() {
        let input = |shape| BatchInput { shape, parts: &[&[]] };
        assert_eq!(common_leading(&[input(&[4, 2]), input(&[4])]), Some(4));
        assert_eq!(common_leading(&[input(&[4, 2]), input(&[5])]), None);
        assert_eq!(common_leading(&[input(&[])]), None);
        assert_eq!(common_leading(&[]), None);
    }
}
