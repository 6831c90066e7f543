//! One inference request and its answer, the same for every protocol.
//!
//! Not here: the wire (`xebec-serve`), queues and runs (`xebec-engine`).
use crate::{
    tensor::Tensor,
    trace::{SpanContext, Traced},
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// A decoded request. Its tensors may be views on the received bytes.
#[derive(Clone, Debug)]
pub struct InferRequest {
    /// The caller's own mark, echoed; empty if there was none.
    pub id: String,
    /// Inputs in the caller's order; checked against the model by the upstream.
    pub inputs: Vec<Tensor>,
    /// Names of the wanted outputs; empty means all.
    pub outputs: Vec<String>,
    /// How long the request may wait in a queue; `None` leaves it to the model's own policy.
    pub timeout: Option<Duration>,
    /// How urgent it is, among the model's levels: 1 is the most urgent, 0 leaves it to the model.
    pub priority: u64,
    /// Its place in a sequence, for a stateful model.
    pub sequence: Option<SequenceMark>,
    /// Whether it is a message of a stream.
    pub streamed: bool,
    /// Headers that [`crate::port::Upstream::headers`] named, as far as the caller sent them: name in lower case, value.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// When the server had read the request whole.
    pub received: Instant,
    /// Its trace, if it is traced.
    pub trace: Option<Arc<Traced>>,
}

/// A request's place in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceMark {
    /// Which sequence.
    pub id: CorrelationId,
    /// It is the first.
    pub start: bool,
    /// It is the last.
    pub end: bool,
}

/// The caller's name of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CorrelationId {
    /// Not 0.
    Number(u64),
    /// Not empty.
    Text(Arc<str>),
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The answer of one request.
#[derive(Debug)]
pub struct InferResponse {
    /// Wanted outputs, in the order asked for (the model's own order if all were).
    pub outputs: Vec<Tensor>,
    /// Where the time went.
    pub timings: Timings,
}

/// Where the time of one request went inside the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission until its batch was formed.
    pub queue: Duration,
    /// Gathering the inputs of its batch.
    pub compute_input: Duration,
    /// The engine's run of its batch.
    pub compute_infer: Duration,
    /// Cutting the outputs of its batch.
    pub compute_output: Duration,
    /// Whether the answer was kept from another request, so that nothing ran and nothing waited for a run.
    pub cached: bool,
    /// When the run of its batch began; `None` if nothing ran.
    pub began: Option<Instant>,
    /// The span of that run, if a request in it is traced.
    pub run: Option<SpanContext>,
}
