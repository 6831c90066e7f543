//! Telling of runs in which traced requests were. A run without one costs a look at each of its requests.
use crate::request::Pending;
use std::time::Instant;
use xebec_core::{
    ModelInfo, Timings,
    trace::{RunTrace, SpanContext, Traced},
};

/// Tells of a run that began then; gives the span that it has now, if anybody wanted to know.
pub(super) fn tell(
    info: &ModelInfo,
    batch: &[Pending],
    began: Instant,
    timings: Timings,
    failure: Option<String>,
) -> Option<SpanContext> {
    let first = batch.iter().find_map(|pending| pending.trace.as_ref())?;
    Some(tell_of(first, info, batch, began, timings, failure))
}

// Few runs come here: it lies apart from what all do.
#[cold]
fn tell_of(
    first: &Traced,
    info: &ModelInfo,
    batch: &[Pending],
    began: Instant,
    timings: Timings,
    failure: Option<String>,
) -> SpanContext {
    first.tracer.run(RunTrace {
        model: info.name.clone(),
        version: info.version,
        rows: batch.iter().map(|pending| u64::from(pending.rows)).sum(),
        requests: batch.len(),
        calls: batch.iter().filter_map(|pending| pending.trace.as_ref()).map(|call| call.span).collect(),
        began,
        timings,
        failure,
    })
}
