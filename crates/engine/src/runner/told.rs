//! Telling of runs in which traced requests were. A run without one costs a look at each of its requests.
use crate::request::Pending;
use std::time::Instant;
use xebec_core::{
    ModelInfo, Timings,
    trace::{RunTrace, SpanContext},
};

/// Tells of a run that began then; gives the span that it has now, if anybody wanted to know.
pub(super) fn tell(
    info: &ModelInfo,
    batch: &[Pending],
    began: Instant,
    timings: Timings,
    failure: Option<String>,
) -> Option<SpanContext> {
    let traced = || batch.iter().filter_map(|pending| pending.trace.as_ref());
    let tracer = &traced().next()?.tracer;
    Some(tracer.run(RunTrace {
        model: info.name.clone(),
        version: info.version,
        rows: batch.iter().map(|pending| u64::from(pending.rows)).sum(),
        requests: batch.len(),
        calls: traced().map(|call| call.span).collect(),
        began,
        timings,
        failure,
    }))
}
