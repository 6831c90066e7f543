//! Everything that can go wrong between a request and its answer, and the one road from there to a
//! status.
//!
//! The texts are what clients of the Triton dialect match on; what helps a person beyond that is the
//! [`hint`](InferError::hint). Invariant: [`InferError::code`] is exhaustive, and every protocol derives its
//! status from the [`Code`] alone.
//!
//! # Source
//! Triton's status map: INTERNAL 500, NOT_FOUND 404, UNAVAILABLE 503, UNSUPPORTED 501, the rest 400.
use crate::{Datatype, permit::Denied};

/// What kind of failure it was. Status of HTTP and gRPC follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is wrong; sending it again will not help.
    InvalidArgument,
    /// What was named is not there.
    NotFound,
    /// Not now: the same request may work later.
    Unavailable,
    /// Known, but not offered here.
    Unsupported,
    /// The caller went away or gave up.
    Cancelled,
    /// The caller's own time for the call is up.
    DeadlineExceeded,
    /// The caller may not.
    PermissionDenied,
    /// Larger than a limit that the operator set.
    TooLarge,
    /// The method is not for this path.
    MethodNotAllowed,
    /// A fault of ours or of the engine.
    Internal,
}

impl Code {
    /// Status of HTTP.
    pub const fn http(self) -> u16 {
        match self {
            Self::InvalidArgument | Self::Cancelled => 400,
            Self::NotFound => 404,
            Self::Unavailable => 503,
            Self::Unsupported => 501,
            Self::PermissionDenied => 403,
            Self::TooLarge => 413,
            Self::MethodNotAllowed => 405,
            Self::Internal => 500,
            Self::DeadlineExceeded => 504,
        }
    }

    /// Status of gRPC, by number.
    ///
    /// # Source
    /// gRPC, "Status codes and their use in gRPC".
    pub const fn grpc(self) -> u8 {
        match self {
            Self::Cancelled => 1,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::PermissionDenied => 7,
            Self::TooLarge => 8,
            Self::Unsupported | Self::MethodNotAllowed => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
        }
    }
}

/// Seconds after which a refused caller may try again; the value of `Retry-After`.
pub const RETRY_AFTER_SECONDS: u32 = 1;

/// Why a request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// No model of that name is served.
    #[error("Request for unknown model: '{model}' is not found")]
    UnknownModel {
        /** As the caller wrote it. */
        model: String,
    },
    /// The model is known, but nothing of it is loaded.
    #[error("Request for unknown model: '{model}' has no available versions")]
    NoVersions {
        /** Name. */
        model: String,
        /** Why it is not loaded. */
        reason: String,
    },
    /// The model has no such version.
    #[error("Request for unknown model: '{model}' version {version} is not found")]
    UnknownVersion {
        /** Name. */
        model: String,
        /** As the caller wrote it, shortened. */
        version: String,
        /** The versions and labels that it has. */
        known: String,
    },
    /// The version is loading or leaving.
    #[error("Request for unknown model: '{model}' version {version} is not at ready state")]
    VersionNotReady {
        /** Name. */
        model: String,
        /** Which. */
        version: u64,
    },
    /// The model is served, but not in memory. Protocols wake it and ask again: no caller sees this.
    #[error("model '{model}' is not in memory")]
    NotResident {
        /** Name. */
        model: String,
    },
    /// The memory for models is taken by others, which are all in use.
    #[error("there is no memory to load model '{model}'")]
    NoModelMemory {
        /** Name. */
        model: String,
    },
    /// A model could not be loaded on somebody's order.
    #[error("failed to load '{model}', {reason}")]
    LoadFailed {
        /** As the caller wrote it. */
        model: String,
        /** Why. */
        reason: String,
        /** Whose fault it is. */
        code: Code,
    },
    /// A model could not be unloaded on somebody's order.
    #[error("failed to unload '{model}', {reason}")]
    UnloadFailed {
        /** As the caller wrote it. */
        model: String,
        /** Why. */
        reason: String,
    },
    /// The request says something that cannot be, for example in its encoding.
    #[error("{message}")]
    Invalid {
        /** What and where. */
        message: String,
        /** What to do. */
        hint: Option<String>,
    },
    /// Too few or too many inputs.
    #[error(
        "expected {want} inputs but got {got} inputs for model '{model}'. Got inputs {given}, but missing required inputs {missing}. Please provide all required inputs."
    )]
    InputCount {
        /** Name. */
        model: String,
        /** By the model. */
        want: usize,
        /** By the request. */
        got: usize,
        /** As a list. */
        given: String,
        /** As a list. */
        missing: String,
    },
    /// An input that the model does not have.
    #[error("unexpected inference input '{input}' for model '{model}'")]
    UnexpectedInput {
        /** Name of the input. */
        input: String,
        /** Name of the model. */
        model: String,
        /** The names that the model has. */
        known: String,
    },
    /// An output that the model does not have.
    #[error("unexpected inference output '{output}' for model '{model}'")]
    UnexpectedOutput {
        /** Name of the output. */
        output: String,
        /** Name of the model. */
        model: String,
        /** The names that the model has. */
        known: String,
    },
    /// The element type is not the model's.
    #[error("inference input '{input}' data-type is '{got}', but model '{model}' expects '{want}'")]
    WrongDatatype {
        /** Name of the input. */
        input: String,
        /** Name of the model. */
        model: String,
        /** By the request. */
        got: Datatype,
        /** By the model. */
        want: Datatype,
    },
    /// The shape does not fit the model's.
    #[error("unexpected shape for input '{input}' for model '{model}'. Expected {want}, got {got}")]
    WrongShape {
        /** Name of the input. */
        input: String,
        /** Name of the model. */
        model: String,
        /** By the model, for example `[-1,30]`. */
        want: String,
        /** By the request. */
        got: String,
    },
    /// More rows than the model takes at once.
    #[error("inference request batch-size must be <= {limit} for '{model}'")]
    BatchTooLarge {
        /** Rows. */
        limit: u32,
        /** Name of the model. */
        model: String,
    },
    /// A body or message passes the operator's limit.
    #[error("{what} is larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /** What was too large, for example `request body`. */
        what: &'static str,
        /** The limit. */
        limit_bytes: u64,
        /** The flag that sets it. */
        flag: &'static str,
    },
    /// The queue of the model is full.
    #[error("Exceeds maximum queue size")]
    QueueFull {
        /** Name of the model. */
        model: String,
        /** Requests that may wait. */
        limit: usize,
    },
    /// What is being read and what waits fills the memory for requests.
    #[error("the requests being read and waiting fill the memory for them")]
    NoRoom,
    /// The request waited longer than it may.
    #[error("Request timeout expired")]
    Timeout,
    /// The caller went away before the answer.
    #[error("request was cancelled by its caller")]
    Cancelled,
    /// The time that the caller gave the call is up.
    #[error("the deadline that its caller gave the request has passed")]
    DeadlineExceeded,
    /// The server is stopping and takes nothing new.
    #[error("server is draining and takes no new requests")]
    Draining,
    /// The server has not loaded its models.
    #[error("server is not ready: {0}")]
    NotReady(String),
    /// The policy said no.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// A verb, feature or encoding that this server does not offer.
    #[error("{what}")]
    Unsupported {
        /** Its name, in a sentence. */
        what: String,
        /** The way out. */
        hint: Option<String>,
    },
    /// Something that the caller named, and that is not there; its name is not repeated.
    #[error("{what}")]
    Missing {
        /** In a sentence. */
        what: String,
        /** What to do. */
        hint: String,
    },
    /// A path that this server does not have.
    #[error("Not Found")]
    UnknownPath {
        /** As the caller wrote it, shortened. */
        path: String,
    },
    /// A path that has other methods.
    #[error("Method Not Allowed")]
    WrongMethod {
        /** The methods it has. */
        allow: &'static str,
    },
    /// The engine failed on inputs that were well formed.
    #[error("{message}")]
    Engine {
        /** The engine's words. */
        message: String,
        /** Whether the inputs' values were at fault, as an index out of range is. */
        callers_fault: bool,
    },
    /// What the graphs of the process keep between their steps fills the memory for it.
    #[error("the tensors between steps of graphs fill the memory for them")]
    NoGraphMemory,
    /// A step of a graph failed, or what it is of is not there.
    #[error("in ensemble '{graph}', {error}")]
    InGraph {
        /** Name of the graph. */
        graph: String,
        /** Of the step. */
        error: Box<InferError>,
    },
    /// Something of ours broke.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a request counts as failed in `nv_inference_request_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// Refused before it ran.
    Rejected,
    /// Its caller went away.
    Canceled,
    /// The engine failed.
    Backend,
    /// Anything else.
    Other,
}

impl InferError {
    /// An [`InferError::Invalid`] without a hint.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: None }
    }

    /// An [`InferError::Invalid`] that says what to do.
    pub fn invalid_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), hint: Some(hint.into()) }
    }

    /// The only road to a status. Exhaustive on purpose: a new variant must choose.
    pub fn code(&self) -> Code {
        match self {
            Self::InGraph { error, .. } => error.code(),
            Self::UnknownModel { .. }
            | Self::UnknownVersion { .. }
            | Self::Missing { .. }
            | Self::UnknownPath { .. }
            | Self::UnloadFailed { .. } => Code::NotFound,
            Self::LoadFailed { code, .. } => *code,
            Self::NoVersions { .. }
            | Self::NotResident { .. }
            | Self::NoModelMemory { .. }
            | Self::VersionNotReady { .. }
            | Self::QueueFull { .. }
            | Self::NoRoom
            | Self::NoGraphMemory
            | Self::Timeout
            | Self::Draining
            | Self::NotReady(_) => Code::Unavailable,
            Self::Invalid { .. }
            | Self::InputCount { .. }
            | Self::UnexpectedInput { .. }
            | Self::UnexpectedOutput { .. }
            | Self::WrongDatatype { .. }
            | Self::WrongShape { .. }
            | Self::BatchTooLarge { .. }
            | Self::Engine { callers_fault: true, .. } => Code::InvalidArgument,
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Cancelled => Code::Cancelled,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Denied(_) => Code::PermissionDenied,
            Self::Unsupported { .. } => Code::Unsupported,
            Self::WrongMethod { .. } => Code::MethodNotAllowed,
            Self::Engine { callers_fault: false, .. } | Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether the same request may work in a moment, so that `Retry-After` is sent.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self.code() {
            Code::Unavailable => Some(RETRY_AFTER_SECONDS),
            _ => None,
        }
    }

    /// The label under which the failure is counted.
    pub fn failure_reason(&self) -> FailureReason {
        match self {
            Self::InGraph { error, .. } => error.failure_reason(),
            Self::QueueFull { .. }
            | Self::NoRoom
            | Self::NoGraphMemory
            | Self::NoModelMemory { .. }
            | Self::Timeout
            | Self::Draining
            | Self::NotReady(_) => FailureReason::Rejected,
            Self::Cancelled | Self::DeadlineExceeded => FailureReason::Canceled,
            Self::Engine { .. } => FailureReason::Backend,
            _ => FailureReason::Other,
        }
    }

    /// What the caller can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InGraph { error, .. } => error.hint(),
            Self::Invalid { hint, .. } | Self::Unsupported { hint, .. } => hint.clone(),
            Self::NoVersions { reason, .. } => Some(reason.clone()),
            Self::Missing { hint, .. } => Some(hint.clone()),
            Self::UnknownModel { .. } => Some("the served models are listed at GET /v2/models".into()),
            Self::UnknownVersion { known, .. } => Some(format!("the model has {known}")),
            Self::UnexpectedInput { known, .. } => Some(format!("the model's inputs are {known}")),
            Self::UnexpectedOutput { known, .. } => Some(format!("the model's outputs are {known}")),
            // Only where the batch axis is what is missing: an extent that is wrong speaks for itself.
            Self::WrongShape { want, got, .. } if want.starts_with("[-1") && axes(got) + 1 == axes(want) => {
                Some("the first axis is the batch: one row has extent 1 there".into())
            }
            Self::BatchTooLarge { limit, .. } => Some(format!("send at most {limit} rows a request")),
            Self::TooLarge { flag, .. } => Some(format!("the operator can raise the limit with {flag}")),
            Self::QueueFull { limit, .. } => {
                Some(format!("{limit} requests wait already; try again after {RETRY_AFTER_SECONDS} s"))
            }
            Self::NoRoom => Some(
                "try again in a moment; the operator can raise the limit with --max-buffered-bytes".into(),
            ),
            Self::NoModelMemory { .. } => Some(
                "try again in a moment; the operator can raise the limit with --model-memory-budget".into(),
            ),
            Self::NoGraphMemory => {
                Some("try again in a moment; the operator can raise the limit with --graph-memory".into())
            }
            Self::UnknownPath { path } => {
                Some(format!("'{path}' is not a path of this server; GET /v2 tells what is"))
            }
            Self::WrongMethod { allow } => Some(format!("this path takes {allow}")),
            _ => None,
        }
    }

    /// The text for the caller, with Triton's prefix for errors of one request.
    pub fn message_for(&self, request_id: &str) -> String {
        let id = if request_id.is_empty() { "<id_unknown>" } else { request_id };
        match self {
            Self::InGraph { graph, error } => {
                format!("in ensemble '{graph}', {}", error.message_for(request_id))
            }
            Self::InputCount { .. }
            | Self::UnexpectedInput { .. }
            | Self::WrongDatatype { .. }
            | Self::WrongShape { .. }
            | Self::BatchTooLarge { .. }
            | Self::QueueFull { .. }
            | Self::Timeout => format!("[request id: {id}] {self}"),
            _ => self.to_string(),
        }
    }
}

/// Writes extents as Triton does: `[-1,30]`.
pub fn dims_text(dims: &[i64]) -> String {
    let inner: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("[{}]", inner.join(","))
}

/// How many extents a text of [`dims_text`] has.
fn axes(dims: &str) -> usize {
    dims.split(',').filter(|extent| !extent.trim_matches(['[', ']']).is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_unavailable_with_retry_after_and_tritons_words() {
        let error = InferError::QueueFull { model: "m".into(), limit: 4 };
        assert_eq!(
            (error.code().http(), error.code().grpc(), error.retry_after_seconds()),
            (503, 14, Some(1))
        );
        assert_eq!(error.message_for("7"), "[request id: 7] Exceeds maximum queue size");
    }

    #[test]
    fn a_request_without_an_id_is_called_unknown() {
        let error = InferError::WrongShape {
            input: "x".into(),
            model: "m".into(),
            want: dims_text(&[-1, 30]),
            got: dims_text(&[30]),
        };
        assert_eq!(
            error.message_for(""),
            "[request id: <id_unknown>] unexpected shape for input 'x' for model 'm'. Expected [-1,30], got [30]"
        );
    }

    #[test]
    fn the_batch_axis_is_hinted_at_only_where_it_is_missing() {
        let hint = |got: &[i64]| {
            let (input, model) = ("x".into(), "m".into());
            InferError::WrongShape { input, model, want: dims_text(&[-1, 30]), got: dims_text(got) }.hint()
        };
        assert!(hint(&[30]).unwrap().contains("batch"));
        assert_eq!((hint(&[1, 31]), hint(&[]), hint(&[1, 1, 30])), (None, None, None));
    }
}
