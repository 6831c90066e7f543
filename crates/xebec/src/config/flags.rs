//! Every setting once: its flag, its variable, its default and its help, still as text.
//!
//! Text on purpose: what a setting means is decided in one pass over all layers, so that all faults are told at once.
use clap::Args;
use std::path::PathBuf;

/// A setting that has a flag, a variable and a key.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name of the flag without dashes, and of the key.
    pub name: &'static str,
    /// Name of the variable.
    pub variable: &'static str,
    /// Default, as text; empty if there is none.
    pub default: &'static str,
}

impl Setting {
    /// The setting of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// Variable of the file of settings, which is no setting itself.
pub const CONFIG_VARIABLE: &str = "XEBEC_CONFIG";
/// Variable of the folder of models, which is a list in the other layers.
pub const REPOSITORY_VARIABLE: &str = "XEBEC_MODEL_REPOSITORY";
/// Key of the folders of models.
pub const REPOSITORY: &str = "model-repository";

macro_rules! settings {
    ($($heading:literal { $(
        $(#[doc = $help:literal])* $field:ident = $name:literal $variable:literal $value:literal $default:literal $(alias $alias:literal)* ;
    )* })*) => {
        /// Flags of `serve` and `up`. All optional here; defaults are in [`SETTINGS`].
        #[derive(Clone, Debug, Default, Args)]
        pub struct Flags {
            /// Check the configuration, print what would be in force, and end.
            #[arg(long)]
            pub check_config: bool,
            /// A YAML file of settings: the flags' names as keys.
            #[arg(long, value_name = "FILE")]
            pub config: Option<PathBuf>,
            /// A folder of models. May be given several times.
            #[arg(long, value_name = "DIR", help_heading = "Models")]
            pub model_repository: Vec<PathBuf>,
            /// Allow listeners off loopback, without TLS and without identity: anybody who reaches them may use them.
            #[arg(long, help_heading = "Listeners", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
            pub i_know_this_is_insecure: Option<String>,
            /// With execution_count: how much there is of a resource, on that device or on each; may be given several
            /// times. Else as much as the most that an instance needs.
            #[arg(long, value_name = "NAME:COUNT[:DEVICE]", help_heading = "Models")]
            pub rate_limit_resource: Vec<String>,
            $($(
                $(#[doc = $help])*
                #[arg(long = $name, value_name = $value, help_heading = $heading, allow_negative_numbers = true $(, alias = $alias)*)]
                pub $field: Option<String>,
            )*)*
        }

        /// Every setting with its default, in the order of the help.
        pub const SETTINGS: &[Setting] = &[
            Setting {
                name: "i-know-this-is-insecure",
                variable: "XEBEC_I_KNOW_THIS_IS_INSECURE",
                default: "false",
            },
            Setting { name: "rate-limit-resource", variable: "XEBEC_RATE_LIMIT_RESOURCE", default: "" },
            $($(Setting { name: $name, variable: $variable, default: $default },)*)*
        ];

        impl Flags {
            /// Every setting that was written on the command line, by name; a list is joined by commas.
            pub fn written(&self) -> Vec<(&'static str, String)> {
                let resources = Some(self.rate_limit_resource.join(",")).filter(|text| !text.is_empty());
                let all = [
                    ("i-know-this-is-insecure", &self.i_know_this_is_insecure),
                    ("rate-limit-resource", &resources),
                    $($(($name, &self.$field),)*)*
                ];
                all.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect()
            }
        }
    };
}

settings! {
    "Listeners" {
        /// Address of the HTTP listener.
        http_address = "http-address" "XEBEC_HTTP_ADDRESS" "ADDRESS" "127.0.0.1";
        /// Port of the HTTP listener; 0 takes a free one and prints it.
        http_port = "http-port" "XEBEC_HTTP_PORT" "PORT" "8000";
        /// Address of the gRPC listener.
        grpc_address = "grpc-address" "XEBEC_GRPC_ADDRESS" "ADDRESS" "127.0.0.1";
        /// Port of the gRPC listener; 0 takes a free one and prints it.
        grpc_port = "grpc-port" "XEBEC_GRPC_PORT" "PORT" "8001";
        /// Address of the metrics listener.
        metrics_address = "metrics-address" "XEBEC_METRICS_ADDRESS" "ADDRESS" "127.0.0.1";
        /// Port of the metrics listener; 0 takes a free one and prints it.
        metrics_port = "metrics-port" "XEBEC_METRICS_PORT" "PORT" "8002";
        /// Whether to listen for HTTP.
        allow_http = "allow-http" "XEBEC_ALLOW_HTTP" "BOOL" "true";
        /// Whether to listen for gRPC.
        allow_grpc = "allow-grpc" "XEBEC_ALLOW_GRPC" "BOOL" "true";
        /// Whether to serve the metrics page.
        allow_metrics = "allow-metrics" "XEBEC_ALLOW_METRICS" "BOOL" "true";
        /// Hosts that requests may name besides localhost and addresses of this machine, divided by commas; '*.example.com'
        /// is every name below it, '*' any host. Without it any host is right on listeners off loopback alone.
        allowed_hosts = "allowed-hosts" "XEBEC_ALLOWED_HOSTS" "HOSTS" "";
        /// As which server the HTTP listener answers where servers differ: triton or kserve.
        http_dialect = "http-dialect" "XEBEC_HTTP_DIALECT" "DIALECT" "triton";
        /// Name of the server in its metadata; Triton's clients ask for 'triton'.
        server_name = "server-name" "XEBEC_SERVER_NAME" "NAME" "triton" alias "server-id" alias "id";
        /// I/O threads, each with its own sockets; 'auto' is one per core.
        io_threads = "io-threads" "XEBEC_IO_THREADS" "N" "auto" alias "http-thread-count";
    }
    "Models" {
        /// When models are loaded: none (at start), poll (and when their files change) or explicit (by order).
        model_control_mode = "model-control-mode" "XEBEC_MODEL_CONTROL_MODE" "MODE" "none";
        /// With explicit: models that are loaded at start, divided by commas; '*' is all.
        load_model = "load-model" "XEBEC_LOAD_MODEL" "NAMES" "";
        /// With poll: seconds between looks at the folders of models.
        repository_poll_secs = "repository-poll-secs" "XEBEC_REPOSITORY_POLL_SECS" "SECONDS" "15";
        /// With explicit: whether an order may bring a model's files with it.
        allow_model_upload = "allow-model-upload" "XEBEC_ALLOW_MODEL_UPLOAD" "BOOL" "false";
        /// Models that are loaded at the same time.
        model_load_thread_count = "model-load-thread-count" "XEBEC_MODEL_LOAD_THREAD_COUNT" "N" "4";
        /// Bytes that all models together may take. They are then loaded when they are asked for, and those that were
        /// used longest ago go out of memory; 0 is no limit.
        model_memory_budget = "model-memory-budget" "XEBEC_MODEL_MEMORY_BUDGET" "BYTES" "0";
        /// Bytes of answers that are kept, of models whose config has response_cache; 0 keeps none.
        response_cache_size = "response-cache-size" "XEBEC_RESPONSE_CACHE_SIZE" "BYTES" "67108864";
        /// Bytes of tensors that all graphs together may keep between their steps.
        graph_memory = "graph-memory" "XEBEC_GRAPH_MEMORY" "BYTES" "1073741824";
        /// Whether runs take turns at the resources of instance_group.rate_limiter: off or execution_count.
        rate_limit = "rate-limit" "XEBEC_RATE_LIMIT" "MODE" "off";
        /// Whether a model that cannot be served ends the server.
        exit_on_error = "exit-on-error" "XEBEC_EXIT_ON_ERROR" "BOOL" "true";
        /// Whether a model that cannot be served makes the server not ready.
        strict_readiness = "strict-readiness" "XEBEC_STRICT_READINESS" "BOOL" "true";
        /// Most rows of a request to a model whose configuration does not say.
        default_max_batch_size = "default-max-batch-size" "XEBEC_DEFAULT_MAX_BATCH_SIZE" "ROWS" "64";
        /// Most requests that wait for a model; one more is refused with 503.
        default_max_queue_size = "default-max-queue-size" "XEBEC_DEFAULT_MAX_QUEUE_SIZE" "N" "1024";
        /// Runs of one model side by side; 'auto' is one per I/O thread (latency: one).
        instances = "instances" "XEBEC_INSTANCES" "N" "auto";
        /// What threads are arranged for: throughput (one a run) or latency (all cores on one run).
        objective = "objective" "XEBEC_OBJECTIVE" "WORD" "throughput";
        /// Microseconds: a model whose run takes less runs on the I/O thread that read the request; 0 switches that off.
        inline_below_us = "inline-below-us" "XEBEC_INLINE_BELOW_US" "MICROSECONDS" "100";
        /// ONNX Runtime's library. Else: ORT_DYLIB_PATH, beside the executable, `make engine`, a Python wheel.
        onnxruntime_library = "onnxruntime-library" "XEBEC_ONNXRUNTIME_LIBRARY" "FILE" "";
    }
    "Shared memory" {
        /// Names of POSIX shared memory that callers on this machine may register, separated by commas; '*' at the end of one
        /// stands for any ending. Without it, shared memory is off.
        allow_shared_memory = "allow-shared-memory" "XEBEC_ALLOW_SHARED_MEMORY" "NAMES" "";
    }
    "Limits" {
        /// Largest body of an HTTP request, in bytes, compressed and decompressed.
        http_max_input_size = "http-max-input-size" "XEBEC_HTTP_MAX_INPUT_SIZE" "BYTES" "67108864";
        /// Largest message of gRPC, in bytes, compressed and decompressed.
        grpc_max_message_size = "grpc-max-message-size" "XEBEC_GRPC_MAX_MESSAGE_SIZE" "BYTES" "67108864";
        /// Requests being read or waiting for their answer, all together, in bytes.
        max_buffered_bytes = "max-buffered-bytes" "XEBEC_MAX_BUFFERED_BYTES" "BYTES" "1073741824";
        /// Open connections of one listener.
        max_connections = "max-connections" "XEBEC_MAX_CONNECTIONS" "N" "10000";
        /// Head of a request, in bytes.
        max_header_bytes = "max-header-bytes" "XEBEC_MAX_HEADER_BYTES" "BYTES" "32768";
        /// Deepest nesting of arrays in JSON, at most 100.
        max_json_depth = "max-json-depth" "XEBEC_MAX_JSON_DEPTH" "N" "100";
        /// Open streams of one gRPC connection.
        grpc_max_concurrent_streams = "grpc-max-concurrent-streams" "XEBEC_GRPC_MAX_CONCURRENT_STREAMS" "N" "256";
        /// Streams reset before they were answered, after which a connection is closed.
        grpc_max_pending_resets = "grpc-max-pending-resets" "XEBEC_GRPC_MAX_PENDING_RESETS" "N" "64";
        /// Seconds from the first byte of a head to its end.
        header_timeout_secs = "header-timeout-secs" "XEBEC_HEADER_TIMEOUT_SECS" "SECONDS" "10";
        /// Seconds after which an idle connection is closed.
        idle_timeout_secs = "idle-timeout-secs" "XEBEC_IDLE_TIMEOUT_SECS" "SECONDS" "300";
        /// Seconds a body may stand still, or an answer be left unread.
        stall_timeout_secs = "stall-timeout-secs" "XEBEC_STALL_TIMEOUT_SECS" "SECONDS" "30";
        /// Seconds that requests in flight get to finish after SIGTERM.
        exit_timeout_secs = "exit-timeout-secs" "XEBEC_EXIT_TIMEOUT_SECS" "SECONDS" "30";
    }
    "Logs" {
        /// Form of the log on standard error: text or json.
        log_format = "log-format" "XEBEC_LOG_FORMAT" "FORM" "text";
        /// Least level of xebec: error, warn, info, debug, trace; or filters such as 'info,xebec_engine=debug'.
        log_level = "log-level" "XEBEC_LOG_LEVEL" "LEVEL" "warn";
        /// A line per infer call: off, text or json.
        access_log = "access-log" "XEBEC_ACCESS_LOG" "FORM" "off";
        /// Where those lines go; standard error if not given.
        access_log_file = "access-log-file" "XEBEC_ACCESS_LOG_FILE" "FILE" "";
    }
    "Traces" {
        /// The collector that traces are sent to over OTLP, as grpc://HOST:4317 or http://HOST:4318; none are made without.
        trace_endpoint = "trace-endpoint" "XEBEC_TRACE_ENDPOINT" "URL" "";
        /// One of so many calls is traced whose caller does not say: 100 is a ratio of 0.01.
        trace_rate = "trace-rate" "XEBEC_TRACE_RATE" "N" "1000";
        /// As which service traces are sent.
        trace_service_name = "trace-service-name" "XEBEC_TRACE_SERVICE_NAME" "NAME" "xebec";
        /// More attributes of the resource that sends them: KEY=VALUE,KEY=VALUE.
        trace_resource = "trace-resource" "XEBEC_TRACE_RESOURCE" "LIST" "";
    }
}
