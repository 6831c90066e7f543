//! What `sequence_batching` says: which inputs tell the model of its sequences, which tensors are its state, how many
//! sequences are served at the same time.
//!
//! Both strategies are served alike, because the state is kept here and not by an instance: `direct` bounds the
//! sequences by the slots of all instances, `oldest` by `max_candidate_sequences`; requests of different sequences share
//! runs in either.
//!
//! # Source
//! Triton Inference Server, the comments of `ModelSequenceBatching` in `model_config.proto`.
use super::{State, table::Rules};
use crate::repository::{
    Candidate,
    complete::{Misfit, config_type, instances, read_file},
};
use bytes::Bytes;
use std::{path::Path, sync::Arc, time::Duration};
use xebec_core::{
    CorrelationId, Datatype, InferError, ModelInfo, Tensor,
    model_config::{
        ModelConfig, ModelDynamicBatching, ModelInput, ModelOutput, ModelSequenceBatching,
        model_config::SchedulingChoice,
        model_sequence_batching::{
            Control as SaidControl, InitialState, State as SaidState, StrategyChoice, control::Kind,
            initial_state::StateData,
        },
    },
    tensor::element_count,
};

/// A sequence that asks nothing for so long is over, where the configuration does not say.
const IDLE: Duration = Duration::from_secs(1);

/// Largest state of a sequence, in bytes.
const MOST_BYTES: usize = 64 << 20;

/// The plan of a stateful model.
pub(crate) struct Plan {
    controls: Vec<Control>,
    states: Vec<Kept>,
    initial: State,
    places: usize,
    idle: Duration,
    /// As its owner wrote it.
    config: ModelConfig,
}

/// An input that tells of the sequence.
struct Control {
    name: Arc<str>,
    datatype: Datatype,
    shape: Vec<i64>,
    tells: Tells,
}

enum Tells {
    Start([Bytes; 2]),
    Ready(Bytes),
    End([Bytes; 2]),
    Id,
}

/// A tensor that goes from one run to the next.
struct Kept {
    input: Arc<str>,
    output: Arc<str>,
    /// Whether callers see the output too.
    public: bool,
}

/// Reads the plan of a candidate that has one, and the candidate as the layer below is to see it: a model whose inputs
/// and outputs are all those of the graph.
///
/// # Errors
/// What does not make sense, by its field.
pub(crate) fn read(candidate: &Candidate, cores: u32) -> Result<Option<(Plan, Candidate)>, Misfit> {
    let Some(config) = &candidate.config else { return Ok(None) };
    let Some(SchedulingChoice::SequenceBatching(said)) = &config.scheduling_choice else { return Ok(None) };
    if config.response_cache.as_ref().is_some_and(|cache| cache.enable) {
        return Err(Misfit::new(
            "response_cache: an answer of a sequence depends on what was sent before it; leave it out".into(),
        ));
    }
    let batched = config.max_batch_size > 0;
    let mut controls = Vec::new();
    for input in &said.control_input {
        controls.push(control(&input.name, &input.control, batched)?);
    }
    let known = |kind: fn(&Tells) -> bool| controls.iter().filter(|control| kind(&control.tells)).count() > 1;
    if known(|tells| matches!(tells, Tells::Start(_)))
        || known(|tells| matches!(tells, Tells::Ready(_)))
        || known(|tells| matches!(tells, Tells::End(_)))
        || known(|tells| matches!(tells, Tells::Id))
    {
        return Err(fault("control_input", "one kind of control stands there twice; leave one out"));
    }
    let (mut states, mut initial) = (Vec::new(), Vec::new());
    let mut room = MOST_BYTES;
    for state in &said.state {
        states.push(Kept {
            input: state.input_name.as_str().into(),
            output: state.output_name.as_str().into(),
            public: config.output.iter().any(|output| output.name == state.output_name),
        });
        let tensor = first(candidate.folder.as_deref(), state, batched, room)?;
        room = room.saturating_sub(tensor.data.len());
        initial.push(tensor);
    }
    let idle = match said.max_sequence_idle_microseconds {
        0 => IDLE,
        microseconds => Duration::from_micros(microseconds),
    };
    let instances = instances(config)?.unwrap_or(cores.max(1));
    let places = places(said, instances, config.max_batch_size)?;
    let inner = inner(candidate, config, said, &controls);
    let initial = initial.into();
    Ok(Some((Plan { controls, states, initial, places, idle, config: config.clone() }, inner)))
}

fn fault(field: &str, problem: impl std::fmt::Display) -> Misfit {
    Misfit::new(format!("sequence_batching.{field}: {problem}"))
}

fn places(said: &ModelSequenceBatching, instances: u32, max_batch_size: i32) -> Result<usize, Misfit> {
    let slots = u64::from(instances) * u64::from(max_batch_size.max(1).unsigned_abs());
    let places = match &said.strategy_choice {
        Some(StrategyChoice::Oldest(oldest)) if oldest.max_candidate_sequences < 1 => {
            let problem = format!("{} sequences; write 1 or more", oldest.max_candidate_sequences);
            return Err(fault("oldest.max_candidate_sequences", problem));
        }
        Some(StrategyChoice::Oldest(oldest)) => u64::from(oldest.max_candidate_sequences.unsigned_abs()),
        Some(StrategyChoice::Direct(direct)) if !(0.0..=1.0).contains(&direct.minimum_slot_utilization) => {
            let problem = format!("{} is not between 0 and 1", direct.minimum_slot_utilization);
            return Err(fault("direct.minimum_slot_utilization", problem));
        }
        Some(StrategyChoice::Direct(_)) | None => slots,
    };
    Ok(usize::try_from(places).unwrap_or(usize::MAX))
}

/// The candidate as a model without state.
fn inner(
    candidate: &Candidate,
    config: &ModelConfig,
    said: &ModelSequenceBatching,
    controls: &[Control],
) -> Candidate {
    let mut config = config.clone();
    if !config.input.is_empty() {
        config.input.extend(controls.iter().map(|control| ModelInput {
            name: control.name.to_string(),
            data_type: config_type(control.datatype) as i32,
            dims: vec![1],
            ..ModelInput::default()
        }));
        config.input.extend(said.state.iter().map(|state| ModelInput {
            name: state.input_name.clone(),
            data_type: state.data_type,
            dims: state.dims.clone(),
            ..ModelInput::default()
        }));
    }
    if !config.output.is_empty() {
        let hidden = said
            .state
            .iter()
            .filter(|state| !config.output.iter().any(|output| output.name == state.output_name));
        let hidden: Vec<ModelOutput> = hidden
            .map(|state| ModelOutput {
                name: state.output_name.clone(),
                data_type: state.data_type,
                dims: state.dims.clone(),
                ..ModelOutput::default()
            })
            .collect();
        config.output.extend(hidden);
    }
    let (preferred, delay, keep) = match &said.strategy_choice {
        Some(StrategyChoice::Oldest(oldest)) => (
            oldest.preferred_batch_size.clone(),
            oldest.max_queue_delay_microseconds,
            oldest.preserve_ordering,
        ),
        Some(StrategyChoice::Direct(direct)) => {
            // As many rows as are to be there before a run does not wait any longer.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                reason = "a share of a small number"
            )]
            let rows = (direct.minimum_slot_utilization * config.max_batch_size as f32).ceil() as i32;
            let preferred = if rows > 0 { (rows..=config.max_batch_size).collect() } else { Vec::new() };
            (preferred, direct.max_queue_delay_microseconds, false)
        }
        None => Default::default(),
    };
    config.scheduling_choice = (config.max_batch_size > 0).then(|| {
        SchedulingChoice::DynamicBatching(ModelDynamicBatching {
            preferred_batch_size: preferred,
            max_queue_delay_microseconds: delay,
            preserve_ordering: keep,
            ..ModelDynamicBatching::default()
        })
    });
    Candidate { config: Some(config), ..candidate.clone() }
}

fn control(name: &str, said: &[SaidControl], batched: bool) -> Result<Control, Misfit> {
    let field = format!("control_input '{name}'");
    let [said] = said else {
        return Err(fault(&field, format!("it has {} controls; one input tells one thing", said.len())));
    };
    let kind = Kind::try_from(said.kind).map_err(|_| fault(&field, "it has no known kind"))?;
    let shape = if batched { vec![1, 1] } else { vec![1] };
    let of = |datatype, tells| Ok(Control { name: name.into(), datatype, shape: shape.clone(), tells });
    if kind == Kind::ControlSequenceCorrid {
        let datatype = datatype_of(said.data_type);
        let fits = datatype.filter(|datatype| {
            use Datatype::{Bytes, Int32, Int64, Uint32, Uint64};
            matches!(datatype, Uint64 | Int64 | Uint32 | Int32 | Bytes)
        });
        let wrong = "data_type must be TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 or TYPE_STRING";
        return of(fits.ok_or_else(|| fault(&field, wrong))?, Tells::Id);
    }
    let (datatype, [no, yes]) = flags(&field, said)?;
    of(
        datatype,
        match kind {
            Kind::ControlSequenceStart => Tells::Start([no, yes]),
            Kind::ControlSequenceEnd => Tells::End([no, yes]),
            _ => Tells::Ready(yes),
        },
    )
}

/// The elements for false and for true.
fn flags(field: &str, said: &SaidControl) -> Result<(Datatype, [Bytes; 2]), Misfit> {
    let bytes = |element: &[u8]| Bytes::copy_from_slice(element);
    let given = [said.int32_false_true.len(), said.fp32_false_true.len(), said.bool_false_true.len()];
    match given {
        [2, 0, 0] => {
            let [no, yes] = [0, 1].map(|at| said.int32_false_true.get(at).copied().unwrap_or_default());
            Ok((Datatype::Int32, [bytes(&no.to_le_bytes()), bytes(&yes.to_le_bytes())]))
        }
        [0, 2, 0] => {
            let [no, yes] = [0, 1].map(|at| said.fp32_false_true.get(at).copied().unwrap_or_default());
            Ok((Datatype::Fp32, [bytes(&no.to_le_bytes()), bytes(&yes.to_le_bytes())]))
        }
        [0, 0, 2] => {
            let [no, yes] = [0, 1].map(|at| said.bool_false_true.get(at).copied().unwrap_or_default());
            Ok((Datatype::Bool, [bytes(&[no.into()]), bytes(&[yes.into()])]))
        }
        _ => Err(fault(
            field,
            "write exactly one of int32_false_true, fp32_false_true and bool_false_true, with two values",
        )),
    }
}

/// What a state is before the first run.
fn first(folder: Option<&Path>, state: &SaidState, batched: bool, room: usize) -> Result<Tensor, Misfit> {
    let field = format!("state '{}'", state.input_name);
    if state.input_name.is_empty() || state.output_name.is_empty() {
        return Err(fault(&field, "input_name and output_name are both needed"));
    }
    if state.use_growable_memory {
        return Err(fault(&field, "use_growable_memory is for memory of a GPU; leave it out"));
    }
    let datatype = datatype_of(state.data_type)
        .ok_or_else(|| fault(&field, "data_type is missing; write that of the graph"))?;
    let said = match state.initial_state.as_slice() {
        [] => {
            &InitialState { data_type: state.data_type, dims: state.dims.clone(), ..InitialState::default() }
        }
        [one] => one,
        _ => return Err(fault(&field, "it has several initial states; a request has one row")),
    };
    if said.data_type != state.data_type {
        return Err(fault(&field, "initial_state has another data_type than the state"));
    }
    // A free extent is 1 before the first run, as in Triton.
    let dims = said.dims.iter().map(|extent| if *extent < 0 { 1 } else { *extent });
    let shape: Vec<i64> = batched.then_some(1).into_iter().chain(dims).collect();
    let count = element_count(&shape).ok_or_else(|| fault(&field, "its dims make no tensor"))?;
    // An empty string is its length: four zeros.
    let size = datatype.size_bytes().unwrap_or(4);
    let bytes = count.checked_mul(size).filter(|bytes| *bytes <= room);
    let bytes = bytes.ok_or_else(|| fault(&field, format!("states may have {MOST_BYTES} bytes together")))?;
    let data = match &said.state_data {
        Some(StateData::DataFile(name)) => {
            let folder = folder.map(|folder| folder.join("initial_state"));
            let data = read_file(folder.as_deref(), "initial_state.data_file", name, room as u64)?;
            if datatype.size_bytes().is_some() && data.len() != bytes {
                let problem = format!("data_file has {} bytes, but the dims want {bytes}", data.len());
                return Err(fault(&field, problem));
            }
            data
        }
        _ => vec![0; bytes],
    };
    Ok(Tensor { name: state.input_name.as_str().into(), datatype, shape, data: data.into() })
}

fn datatype_of(said: i32) -> Option<Datatype> {
    Datatype::ALL.into_iter().find(|datatype| config_type(*datatype) as i32 == said)
}

impl Plan {
    /// Of a model that is told nothing and has no state.
    #[cfg(test)]
    pub(super) fn bare(places: usize) -> Self {
        let (controls, states, initial) = (Vec::new(), Vec::new(), Vec::new().into());
        Self {
            controls,
            states,
            initial,
            places,
            idle: Duration::from_secs(3600),
            config: ModelConfig::default(),
        }
    }

    /// The model as callers see it.
    pub(super) fn outward(&self, info: &ModelInfo) -> ModelInfo {
        let mut info = info.clone();
        info.inputs.retain(|input| {
            !self.controls.iter().any(|control| control.name == input.name)
                && !self.states.iter().any(|state| state.input == input.name)
        });
        info.outputs
            .retain(|output| !self.states.iter().any(|state| state.output == output.name && !state.public));
        info
    }

    /// Its configuration as callers see it.
    pub(super) fn outward_config(&self, config: &ModelConfig, info: &ModelInfo) -> ModelConfig {
        let mut config = config.clone();
        config.input.retain(|input| info.inputs.iter().any(|seen| *seen.name == *input.name));
        config.output.retain(|output| info.outputs.iter().any(|seen| *seen.name == *output.name));
        config.scheduling_choice.clone_from(&self.config.scheduling_choice);
        config
    }

    pub(super) fn rules(&self, max_waiting: usize) -> Rules {
        Rules { places: self.places, idle: self.idle, max_waiting }
    }

    pub(super) fn initial(&self) -> State {
        Arc::clone(&self.initial)
    }

    /// Whether a sequence's id can be told to the model.
    pub(super) fn check_id(&self, id: &CorrelationId) -> Result<(), InferError> {
        let mut wanted = self.controls.iter().filter(|control| matches!(control.tells, Tells::Id));
        wanted.try_for_each(|control| match element(id, control.datatype) {
            Some(_) => Ok(()),
            None => Err(InferError::invalid_hint(
                format!("sequence_id {id} is not an id of this model, which takes {}", control.datatype),
                "send a number that fits",
            )),
        })
    }

    /// The inputs that tell of a sequence.
    pub(super) fn controls(
        &self,
        id: &CorrelationId,
        start: bool,
        end: bool,
    ) -> impl Iterator<Item = Tensor> {
        self.controls.iter().map(move |control| {
            let data = match &control.tells {
                Tells::Start(flags) => flags[usize::from(start)].clone(),
                Tells::End(flags) => flags[usize::from(end)].clone(),
                Tells::Ready(yes) => yes.clone(),
                Tells::Id => element(id, control.datatype).unwrap_or_default(),
            };
            let (name, datatype, shape) =
                (Arc::clone(&control.name), control.datatype, control.shape.clone());
            Tensor { name, datatype, shape, data }
        })
    }

    /// The state that a run left, as the next run's inputs.
    pub(super) fn state(&self, outputs: &[Tensor]) -> Option<State> {
        let next = |state: &Kept| {
            let output = outputs.iter().find(|output| output.name == state.output)?;
            // A copy: what was cut from a batch would keep the whole batch in memory.
            let data = Bytes::copy_from_slice(&output.data);
            Some(Tensor { name: Arc::clone(&state.input), data, ..output.clone() })
        };
        self.states.iter().map(next).collect()
    }
}

/// An id as an element; `None` if it does not fit.
fn element(id: &CorrelationId, datatype: Datatype) -> Option<Bytes> {
    match (id, datatype) {
        (CorrelationId::Number(number), Datatype::Uint64) => {
            Some(Bytes::copy_from_slice(&number.to_le_bytes()))
        }
        (CorrelationId::Number(number), Datatype::Int64) => {
            i64::try_from(*number).ok().map(|number| Bytes::copy_from_slice(&number.to_le_bytes()))
        }
        (CorrelationId::Number(number), Datatype::Uint32) => {
            u32::try_from(*number).ok().map(|number| Bytes::copy_from_slice(&number.to_le_bytes()))
        }
        (CorrelationId::Number(number), Datatype::Int32) => {
            i32::try_from(*number).ok().map(|number| Bytes::copy_from_slice(&number.to_le_bytes()))
        }
        (id, Datatype::Bytes) => {
            let text = id.to_string();
            let length = u32::try_from(text.len()).ok()?;
            Some([&length.to_le_bytes()[..], text.as_bytes()].concat().into())
        }
        _ => None,
    }
}
