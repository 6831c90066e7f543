//! Every field of `config.pbtxt`, and what becomes of it: one table for the parser, the docs and the tests.
//!
//! A row speaks for its path and for all below it that have no row of their own; `path VALUE` speaks for one value of an
//! enum or a bool. To honour what is refused, turn its `refused` into `honoured`, with the name of the test that shows it.
//! Invariant: every field of the schema has a verdict, and every test that is named exists (both tested).
use Verdict::{Honoured, Refused};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// What becomes of a field that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does what the text says.
    Honoured {
        /** The test that shows it. */
        test: &'static str,
    },
    /// It is accepted and there is nothing to do, which is said at load; with a GPU it is refused if it is one's.
    Idle {
        /** The test that shows it. */
        test: &'static str,
        /** It speaks of a GPU. */
        of_gpu: bool,
    },
    /// The configuration is refused; the text says why and what to do instead.
    Refused,
}

impl Verdict {
    /// Whether a configuration that sets the field is refused, on a GPU or not.
    #[must_use]
    pub fn refuses(self, on_gpu: bool) -> bool {
        match self {
            Self::Honoured { .. } => false,
            Self::Idle { of_gpu, .. } => on_gpu && of_gpu,
            Self::Refused => true,
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Names joined by dots, perhaps with a value behind a blank.
    pub path: &'static str,
    /// What it means here, or the reason and the way out.
    pub text: &'static str,
    /// Which of them.
    pub verdict: Verdict,
}

const fn honoured(path: &'static str, text: &'static str, test: &'static str) -> Field {
    Field { path, text, verdict: Honoured { test } }
}

/// Of a GPU: on the CPU there is nothing to do, in Triton either.
const fn of_gpu(path: &'static str, text: &'static str) -> Field {
    Field { path, text, verdict: Verdict::Idle { test: OF_GPU, of_gpu: true } }
}

const OF_GPU: &str = "what_is_of_a_gpu_is_nothing_to_do_on_the_cpu_and_refused_with_a_gpu";

const fn idle(path: &'static str, text: &'static str, test: &'static str) -> Field {
    Field { path, text, verdict: Verdict::Idle { test, of_gpu: false } }
}

const fn refused(path: &'static str, text: &'static str) -> Field {
    Field { path, text, verdict: Refused }
}

/// The table, in the order of the schema.
pub const FIELDS: &[Field] = &[
    honoured("name", "must be the folder's name, if given", "a_config_of_another_model_is_refused"),
    honoured(
        "platform",
        "`onnxruntime_onnx` or `onnx`; `ensemble` with `ensemble_scheduling`",
        "everything_that_is_not_honoured_is_named_at_once",
    ),
    honoured(
        "backend",
        "`onnxruntime` or `onnx`; `xebec` for a built-in step, see the guide",
        "everything_that_is_not_honoured_is_named_at_once",
    ),
    refused(
        "runtime",
        "it names a library of a backend, and xebec has its engine built in; name ONNX Runtime's with --onnxruntime-library",
    ),
    honoured(
        "version_policy",
        "which versions are served; the latest one if not given",
        "version_policies_choose_and_a_missing_version_is_named",
    ),
    honoured(
        "max_batch_size",
        "most rows of a request; 0 means no batch axis",
        "a_config_that_does_not_fit_the_graph_shows_the_line_that_would",
    ),
    honoured(
        "input.name",
        "an input of the graph",
        "a_config_that_does_not_fit_the_graph_shows_the_line_that_would",
    ),
    honoured(
        "input.data_type",
        "must be the graph's",
        "a_config_that_does_not_fit_the_graph_shows_the_line_that_would",
    ),
    honoured(
        "input.format",
        "`FORMAT_NHWC`, `FORMAT_NCHW`: dims must be the 3 of an image; carried in the answer of `config`",
        "a_format_needs_the_three_extents_of_an_image",
    ),
    honoured(
        "input.dims",
        "must fit the graph; without the batch axis where max_batch_size is above 0; may narrow a free extent",
        "a_config_that_does_not_fit_the_graph_shows_the_line_that_would",
    ),
    honoured(
        "input.reshape",
        "the shape that the graph has, of as many elements as `dims`, the n-th -1 of one being that of the other",
        "a_reshape_changes_what_callers_see_and_not_what_the_graph_does",
    ),
    refused(
        "input.is_shape_tensor",
        "shape tensors are TensorRT engines', an ONNX graph has none (Triton refuses it for ONNX too); leave it out",
    ),
    honoured(
        "input.allow_ragged_batch",
        "requests of different shape share a run, laid end to end in one axis of the graph",
        "ragged_requests_share_a_run_and_get_their_own_answers",
    ),
    honoured(
        "input.optional",
        "a request may leave it out; the graph has an initializer of that name",
        "an_optional_input_has_the_graphs_default",
    ),
    refused(
        "input.is_non_linear_format_io",
        "non-linear formats are TensorRT engines', an ONNX graph has none (Triton refuses it for ONNX too); leave it out",
    ),
    honoured(
        "output.name",
        "an output of the graph",
        "a_config_that_does_not_fit_the_graph_shows_the_line_that_would",
    ),
    honoured(
        "output.data_type",
        "must be the graph's",
        "a_config_that_does_not_fit_the_graph_shows_the_line_that_would",
    ),
    honoured(
        "output.dims",
        "as of an input",
        "a_config_that_does_not_fit_the_graph_shows_the_line_that_would",
    ),
    honoured(
        "output.reshape",
        "as of an input, from the graph's shape to `dims`",
        "a_reshape_changes_what_callers_see_and_not_what_the_graph_does",
    ),
    honoured(
        "output.label_filename",
        "a file below the model's folder with a label a line, for outputs as classes: `value:index:label`",
        "classes_have_the_labels_of_their_file",
    ),
    refused(
        "output.is_shape_tensor",
        "shape tensors are TensorRT engines', an ONNX graph has none (Triton refuses it for ONNX too); leave it out",
    ),
    refused(
        "output.is_non_linear_format_io",
        "non-linear formats are TensorRT engines', an ONNX graph has none (Triton refuses it for ONNX too); leave it out",
    ),
    honoured(
        "batch_input",
        "inputs that are made from a batch's shapes, of every kind",
        "ragged_inputs_lie_end_to_end_and_every_kind_of_batch_input_is_made",
    ),
    honoured(
        "batch_output",
        "an output that is cut by the shapes of an input",
        "ragged_requests_share_a_run_and_get_their_own_answers",
    ),
    honoured(
        "optimization.graph.level",
        "how far the graph is rewritten: 0 all, 1 extended, -1 basic, 2 not at all",
        "the_level_of_the_graph_is_tritons",
    ),
    of_gpu(
        "optimization.priority",
        "it is the priority of a stream of CUDA: nothing to do on the CPU; with KIND_GPU, leave it out",
    ),
    honoured(
        "optimization.priority PRIORITY_DEFAULT",
        "the same as leaving it out",
        "what_changes_nothing_is_accepted",
    ),
    of_gpu(
        "optimization.cuda",
        "they are graphs, streams and events of CUDA: nothing to do on the CPU; with KIND_GPU, leave it out",
    ),
    honoured(
        "optimization.execution_accelerators.gpu_execution_accelerator",
        "`tensorrt` or `cuda`, with the provider's parameters; needs KIND_GPU; a provider whose library is missing is an error",
        "accelerators_go_with_their_device_and_take_their_parameters",
    ),
    honoured(
        "optimization.execution_accelerators.cpu_execution_accelerator",
        "`openvino`, with the provider's parameters; a provider whose library is missing is an error",
        "a_provider_that_is_not_there_fails_the_load_and_says_what_to_install",
    ),
    honoured(
        "optimization.input_pinned_memory.enable",
        "`false` is what is done",
        "what_changes_nothing_is_accepted",
    ),
    of_gpu(
        "optimization.input_pinned_memory.enable true",
        "it speeds up the way to a GPU: nothing to do on the CPU; with KIND_GPU, inputs are gathered in ordinary memory: write false",
    ),
    honoured(
        "optimization.output_pinned_memory.enable",
        "`false` is what is done",
        "what_changes_nothing_is_accepted",
    ),
    of_gpu(
        "optimization.output_pinned_memory.enable true",
        "it speeds up the way from a GPU: nothing to do on the CPU; with KIND_GPU, answers are made in ordinary memory: write false",
    ),
    of_gpu(
        "optimization.gather_kernel_buffer_threshold",
        "it is when a kernel of a GPU gathers the inputs: nothing to do on the CPU; with KIND_GPU, leave it out",
    ),
    idle(
        "optimization.eager_batching",
        "a batch is made when an instance is free, so that all that waits then is in it; answers are the same",
        "eager_batching_is_accepted_and_said_to_do_nothing",
    ),
    honoured(
        "dynamic_batching",
        "requests of different callers share runs",
        "a_config_without_dynamic_batching_runs_every_request_alone",
    ),
    honoured(
        "dynamic_batching.preferred_batch_size",
        "rows of a run that are not waited on any longer: the largest that can be had is run",
        "a_preferred_size_is_run_when_it_is_reached_and_waited_for_after_a_run",
    ),
    honoured(
        "dynamic_batching.max_queue_delay_microseconds",
        "how long a busy instance waits for company",
        "an_idle_instance_never_waits_and_a_busy_one_waits_for_company",
    ),
    honoured(
        "dynamic_batching.preserve_ordering",
        "answers go out in the order of their requests",
        "answers_go_out_in_the_order_of_their_requests_where_the_owner_wants_it",
    ),
    honoured(
        "dynamic_batching.priority_levels",
        "levels of the request parameter `priority`, 1000 at most; requests of a lower number go before those of a higher one",
        "a_request_of_a_higher_priority_is_run_before_those_that_came_earlier",
    ),
    honoured(
        "dynamic_batching.default_priority_level",
        "the level of a request that names none",
        "a_request_of_a_higher_priority_is_run_before_those_that_came_earlier",
    ),
    honoured(
        "dynamic_batching.priority_queue_policy",
        "the policy of a level; `default_queue_policy` where there is none",
        "levels_have_the_policy_of_their_own_or_the_default_one",
    ),
    honoured(
        "dynamic_batching.default_queue_policy.timeout_action",
        "`REJECT`: who has waited too long is refused; `DELAY`: waits on, behind the others of its level",
        "a_level_has_its_own_timeout_and_may_let_who_is_late_wait_on",
    ),
    honoured(
        "dynamic_batching.default_queue_policy.default_timeout_microseconds",
        "longest wait of a request; 0 means none",
        "a_request_that_has_waited_too_long_is_told_so_and_never_runs",
    ),
    honoured(
        "dynamic_batching.default_queue_policy.allow_timeout_override",
        "whether a request's own `timeout` counts; it may shorten the wait, never lengthen it",
        "a_policy_without_override_ignores_what_a_request_asks_for",
    ),
    honoured(
        "dynamic_batching.default_queue_policy.max_queue_size",
        "most requests that wait; 0 means the server's default",
        "a_full_queue_refuses_with_its_limit_and_the_server_goes_on",
    ),
    honoured(
        "sequence_batching.max_sequence_idle_microseconds",
        "a sequence that asks nothing for so long is over; 1 s if not given",
        "an_idle_sequence_is_over_and_its_place_goes_to_who_waits",
    ),
    honoured(
        "sequence_batching.control_input",
        "inputs of the graph that callers do not see; `CORRID` takes TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING",
        "controls_tell_the_model_of_its_sequence",
    ),
    honoured(
        "sequence_batching.state",
        "kept here between two requests of a sequence; zeros at first, or a file below `initial_state` in the model's folder",
        "a_sequence_adds_up_over_its_own_state",
    ),
    honoured(
        "sequence_batching.state.use_same_buffer_for_input_output",
        "changes nothing: a state is copied once",
        "a_sequence_adds_up_over_its_own_state",
    ),
    refused("sequence_batching.state.use_growable_memory", "it is memory of a GPU; leave it out"),
    honoured(
        "sequence_batching.direct",
        "as many sequences at the same time as all instances have rows; a run waits for `minimum_slot_utilization` of its rows, `max_queue_delay_microseconds` at most",
        "places_are_those_of_the_strategy",
    ),
    honoured(
        "sequence_batching.oldest",
        "`max_candidate_sequences` at the same time; sizes, delay and order as of dynamic_batching",
        "places_are_those_of_the_strategy",
    ),
    honoured(
        "sequence_batching.iterative_sequence",
        "`false`: a request has one run",
        "everything_that_is_not_honoured_is_named_at_once",
    ),
    refused(
        "sequence_batching.iterative_sequence true",
        "a request has one run; send the next request of the sequence from the client",
    ),
    honoured(
        "ensemble_scheduling",
        "a graph of models of the same server, see the guide; `input` and `output` may be left out",
        "answers_are_those_of_the_steps_one_after_the_other",
    ),
    honoured(
        "ensemble_scheduling.step.model_version",
        "-1 or 0: the newest that is served when the step runs",
        "a_step_can_name_a_version",
    ),
    refused(
        "ensemble_scheduling.step.model_namespace",
        "names are unique over all repositories; leave it out",
    ),
    honoured(
        "ensemble_scheduling.max_inflight_requests",
        "changes nothing: a request is in each step once",
        "answers_are_those_of_the_steps_one_after_the_other",
    ),
    honoured("instance_group.name", "has no meaning here", "a_config_in_tritons_usual_spelling_parses"),
    honoured(
        "instance_group.count",
        "runs side by side; counts of several groups are added up",
        "counts_of_groups_add_up_and_passive_ones_run_nothing",
    ),
    honoured(
        "instance_group.kind",
        "`KIND_CPU`; `KIND_GPU`: by CUDA, an error where that cannot be had; `KIND_AUTO`: the GPU if `gpus` names one, else the CPU",
        "a_group_names_one_device_and_a_model_has_one",
    ),
    refused("instance_group.kind KIND_MODEL", "no backend decides by itself; write KIND_CPU"),
    of_gpu(
        "instance_group.secondary_devices",
        "they are DLA cores beside a GPU: nothing to do on the CPU; with KIND_GPU, leave it out",
    ),
    refused(
        "instance_group.profile",
        "profiles are those of TensorRT engines, which are not served; leave it out",
    ),
    honoured(
        "instance_group.rate_limiter.resources.name",
        "a run takes the resource for its length, and who lacks it waits; with `--rate-limit execution_count`, else no effect, which is said at load",
        "a_run_waits_until_what_it_takes_is_given_back",
    ),
    honoured(
        "instance_group.rate_limiter.resources.global",
        "counted once for the server instead of once for each device; the CPU counts as device 0",
        "a_resource_is_counted_for_each_device_or_for_all_together",
    ),
    honoured(
        "instance_group.rate_limiter.resources.count",
        "how much a run takes; there is as much as `--rate-limit-resource` says, or as the most that an instance needs",
        "there_is_as_much_as_the_most_that_an_instance_needs_or_as_is_declared",
    ),
    honoured(
        "instance_group.rate_limiter.priority",
        "a weight: an instance of 2 gets half of the turns of one of 1; 0 counts as 1",
        "priority_two_gets_half_of_the_turns_of_priority_one",
    ),
    honoured(
        "instance_group.passive",
        "a passive group runs nothing",
        "counts_of_groups_add_up_and_passive_ones_run_nothing",
    ),
    honoured(
        "instance_group.host_policy",
        "`cpu`, or `gpu_N` of the group's GPU",
        "a_host_policy_is_that_of_the_device",
    ),
    honoured("instance_group.gpus", "the number of one GPU", "a_group_names_one_device_and_a_model_has_one"),
    honoured(
        "default_model_filename",
        "a plain file name in the version's folder; `model.onnx` if not given",
        "a_folder_without_a_version_says_where_the_file_belongs",
    ),
    of_gpu(
        "cc_model_filenames",
        "they are files for GPUs of a compute capability: nothing to do on the CPU, whose file is default_model_filename; with KIND_GPU, write that",
    ),
    honoured(
        "metric_tags",
        "labels `_KEY` of the model's `nv_*` metrics",
        "tags_are_labels_of_the_models_metrics",
    ),
    honoured(
        "parameters",
        "a setting of ONNX Runtime by Triton's or its own name is honoured, or refused by name; `version_label.NAME` with the number of a version as `string_value` is a label of that version; any other key is the owner's own and is carried in the answer of `config`",
        "the_parameters_of_onnx_runtime_are_honoured_and_a_wrong_value_is_told",
    ),
    honoured(
        "model_warmup",
        "run on every stream before the model is ready, beside the trial on zeros; a run that fails fails the load; files lie below `warmup` in the model's folder",
        "a_warm_up_that_fails_fails_the_load",
    ),
    refused(
        "model_operations",
        "a library of operators is native code that a repository must not bring in; export the model with ONNX's own operators",
    ),
    honoured(
        "model_transaction_policy",
        "`decoupled: false`: one request has one answer",
        "what_changes_nothing_is_accepted",
    ),
    refused("model_transaction_policy.decoupled true", "a graph gives one answer to a request; leave it out"),
    honoured(
        "model_repository_agents.agents.name",
        "`checksum`; any other agent is a library that a repository must not bring in, and is refused by name",
        "an_agent_that_is_not_built_in_and_a_sum_that_is_none_are_refused_by_name",
    ),
    honoured(
        "model_repository_agents.agents.parameters",
        "of `checksum`: `MD5:PATH` below the model's folder, and the sum that the file has at load",
        "a_file_with_another_sum_than_its_agent_says_is_an_error_that_names_it",
    ),
    honoured(
        "response_cache",
        "an equal request of the same tenant is answered without a run, within --response-cache-size",
        "equal_requests_are_answered_by_one_run_and_with_the_same_bytes",
    ),
    honoured(
        "model_metrics.metric_control.metric_identifier.family",
        "a histogram of the model: `xebec_serve_decode_duration_seconds`, `xebec_serve_queue_duration_seconds`, `xebec_serve_compute_duration_seconds`, `xebec_serve_encode_duration_seconds`, `xebec_serve_request_duration_seconds`",
        "a_model_says_the_buckets_of_its_histograms",
    ),
    honoured(
        "model_metrics.metric_control.histogram_options.buckets",
        "upper bounds of its buckets in seconds, rising, 64 at most; one more takes the rest",
        "buckets_rise_and_are_few_and_a_family_is_one_of_ours",
    ),
];

/// The row that speaks for a path, or for one of its values.
#[must_use]
pub fn row(path: &str) -> Option<&'static Field> {
    let speaks = |field: &&Field| {
        path.strip_prefix(field.path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ' ']))
    };
    FIELDS.iter().filter(speaks).max_by_key(|field| field.path.len())
}

/// Whether rows speak for single fields below a path.
pub(crate) fn goes_on_below(path: &str) -> bool {
    FIELDS.iter().any(|field| field.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Every field of a message that holds no further fields or has a row of its own, and every such value, with its row.
#[must_use]
pub fn leaves(message: &MessageDescriptor) -> Vec<(String, Option<&'static Field>)> {
    let mut all = Vec::new();
    collect(message, "", &mut all);
    all
}

fn collect(message: &MessageDescriptor, prefix: &str, all: &mut Vec<(String, Option<&'static Field>)>) {
    // By number would be the schema's history; the table's order is the one people read.
    for field in message.fields() {
        let path = format!("{prefix}{}", field.name());
        match inner(&field) {
            Some(inner) if inner.fields().len() > 0 => {
                let own = row(&path).filter(|row| row.path == path);
                all.extend(own.map(|row| (path.clone(), Some(row))));
                collect(&inner, &format!("{path}."), all);
            }
            _ => {
                all.push((path.clone(), row(&path)));
                let value_of =
                    |known: &&Field| known.path.strip_prefix(&path).is_some_and(|rest| rest.starts_with(' '));
                all.extend(FIELDS.iter().filter(value_of).map(|known| (known.path.to_owned(), Some(known))));
            }
        }
    }
}

/// The message that a field holds, also in a map.
fn inner(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    let Kind::Message(message) = field.kind() else { return None };
    if !message.is_map_entry() {
        return Some(message);
    }
    match message.map_entry_value_field().kind() {
        Kind::Message(value) => Some(value),
        _ => None,
    }
}
