//! The names of everything on the metrics page, with helps and labels.
//!
//! The `nv_*` names are Triton's, to the letter, so that its dashboards work. Our own read
//! `xebec_<role>_<noun>_<unit>[_total]`. Docs and the golden metrics page are checked against this list.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, sum and count.
    Histogram,
}

/// One metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name, as printed.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
}

macro_rules! families {
    ($($(#[$doc:meta])* $constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help]
        pub const $constant: Family =
            Family { name: $name, help: $help, kind: Kind::$kind, labels: &[$($label),*] };)*
        /// Every family, in the order of the page.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    REQUEST_SUCCESS = Counter "nv_inference_request_success" ["model", "version"] "Number of successful inference requests, all batch sizes";
    REQUEST_FAILURE = Counter "nv_inference_request_failure" ["model", "version", "reason"] "Number of failed inference requests, all batch sizes";
    INFERENCE_COUNT = Counter "nv_inference_count" ["model", "version"] "Number of inferences performed (does not include cached requests)";
    EXEC_COUNT = Counter "nv_inference_exec_count" ["model", "version"] "Number of model executions performed (does not include cached requests)";
    REQUEST_US = Counter "nv_inference_request_duration_us" ["model", "version"] "Cumulative inference request duration in microseconds (includes cached requests)";
    QUEUE_US = Counter "nv_inference_queue_duration_us" ["model", "version"] "Cumulative inference queuing duration in microseconds (includes cached requests)";
    COMPUTE_INPUT_US = Counter "nv_inference_compute_input_duration_us" ["model", "version"] "Cumulative compute input duration in microseconds (does not include cached requests)";
    COMPUTE_INFER_US = Counter "nv_inference_compute_infer_duration_us" ["model", "version"] "Cumulative compute inference duration in microseconds (does not include cached requests)";
    COMPUTE_OUTPUT_US = Counter "nv_inference_compute_output_duration_us" ["model", "version"] "Cumulative inference compute output duration in microseconds (does not include cached requests)";
    PENDING = Gauge "nv_inference_pending_request_count" ["model", "version"] "Instantaneous number of pending requests awaiting execution per-model.";
    LOAD_SECONDS = Gauge "nv_model_load_duration_secs" ["model", "version"] "Model load time in seconds";
    CACHE_HITS = Counter "nv_cache_num_hits_per_model" ["model", "version"] "Number of cache hits per model";
    CACHE_MISSES = Counter "nv_cache_num_misses_per_model" ["model", "version"] "Number of cache misses per model";
    CACHE_HIT_US = Counter "nv_cache_hit_duration_per_model" ["model", "version"] "Total cache hit duration per model, in microseconds";
    CACHE_MISS_US = Counter "nv_cache_miss_duration_per_model" ["model", "version"] "Total cache miss duration per model, in microseconds";
    CPU_UTILIZATION = Gauge "nv_cpu_utilization" [] "CPU utilization rate [0.0 - 1.0]";
    CPU_MEMORY_TOTAL = Gauge "nv_cpu_memory_total_bytes" [] "CPU total memory (RAM), in bytes";
    CPU_MEMORY_USED = Gauge "nv_cpu_memory_used_bytes" [] "CPU used memory (RAM), in bytes";
    DECODE_SECONDS = Histogram "xebec_serve_decode_duration_seconds" ["tenant", "model", "version"] "Time to turn a request's bytes into tensors";
    WAIT_SECONDS = Histogram "xebec_serve_queue_duration_seconds" ["tenant", "model", "version"] "Time a request waited for its batch";
    COMPUTE_SECONDS = Histogram "xebec_serve_compute_duration_seconds" ["tenant", "model", "version"] "Time of the batch a request was in: gathering inputs, the engine's run, cutting outputs";
    ENCODE_SECONDS = Histogram "xebec_serve_encode_duration_seconds" ["tenant", "model", "version"] "Time to turn tensors into an answer's bytes";
    TOTAL_SECONDS = Histogram "xebec_serve_request_duration_seconds" ["tenant", "model", "version"] "Time from the last byte of a request to its answer";
    TENANT_REQUESTS = Counter "xebec_serve_requests_total" ["tenant", "model", "version", "outcome"] "Requests by tenant and outcome (success, rejected, canceled, backend, other)";
    UNROUTED_REQUESTS = Counter "xebec_serve_unrouted_requests_total" ["code"] "Requests that failed before a model was found, by status code of HTTP";
    MODEL_LOADS = Counter "xebec_engine_model_loads_total" ["outcome"] "Model versions loaded, or not, at start and since";
    MODEL_EVICTIONS = Counter "xebec_engine_model_evictions_total" [] "Models sent out of memory to make room for others";
    MODEL_MEMORY = Gauge "xebec_engine_model_memory_bytes" [] "Memory that models take, by the size of their files for each session; only with a limit";
    MODEL_MEMORY_LIMIT = Gauge "xebec_engine_model_memory_limit_bytes" [] "Memory that all models together may take; only with a limit";
    GRAPH_MEMORY = Gauge "xebec_engine_graph_memory_bytes" [] "Memory of the tensors that graphs keep between their steps";
    CACHE_BYTES = Gauge "xebec_engine_response_cache_bytes" [] "Memory of the answers that are kept";
    CACHE_ENTRIES = Gauge "xebec_engine_response_cache_entries" [] "Answers that are kept";
    CACHE_EVICTIONS = Counter "xebec_engine_response_cache_evictions_total" [] "Answers that went to make room for others";
    TRACES = Counter "xebec_serve_traces_total" ["outcome"] "Calls and runs that were traced, by what became of them (exported, dropped for want of room, failed at the collector)";
    LOG_LINES_LOST = Counter "xebec_serve_log_lines_lost_total" ["log"] "Lines of a log (server, access) that were lost because nobody read them in time or they could not be written";
    PANICS = Counter "xebec_serve_panics_total" [] "Requests that ended in a panic of ours, answered with an internal error";
    CONNECTIONS = Gauge "xebec_net_connections" ["listener"] "Open connections";
    CONNECTIONS_REFUSED = Counter "xebec_net_connections_refused_total" ["listener"] "Connections closed at once because the limit was reached";
    FOREIGN = Counter "xebec_net_foreign_requests_total" ["listener"] "Requests refused because they are for another host or come from a web page of one";
    READY = Gauge "xebec_serve_ready" [] "1 if every model that should serve does and the server is not draining";
    ENGINE = Gauge "xebec_engine_info" ["engine", "version", "reason"] "Which engine runs the models, and why; always 1";
    BUILD = Gauge "xebec_build_info" ["version"] "The version of xebec; always 1";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "Processor time of this process, user and system";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" [] "Resident memory of this process";
    PROCESS_START = Gauge "process_start_time_seconds" [] "Start of this process, in seconds since 1970";
    PROCESS_FDS = Gauge "process_open_fds" [] "Open file descriptors of this process";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_our_own_carry_a_unit() {
        let mut names: Vec<_> = ALL.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for family in ALL.iter().filter(|f| f.name.starts_with("xebec_") && f.kind == Kind::Counter) {
            assert!(family.name.ends_with("_total"), "{}", family.name);
        }
    }
}
