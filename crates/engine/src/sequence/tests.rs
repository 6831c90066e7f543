use super::*;
use crate::{
    backend::rten::RtenBackend,
    catalog::{Catalog, Settings, Source},
    repository::complete::Defaults,
};
use bytes::Bytes;
use std::{fs, sync::mpsc, time::Duration};
use xebec_core::{
    Code, Gate, ModelName, Principal, SequenceMark, Verb, VersionRef,
    permit::{Admit, Ask, Decision},
    port::{Control, ModelState, Overrides, Router},
    resource::Objective,
};

/// The sum of what a sequence has sent, and what the model was told of it: start, end, ready, id.
const ACCUMULATE: &[u8] = include_bytes!("../../../../models/testdata/configured/accumulate.onnx");

const CONTROLS: &str = r#"
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] } },
    { name: "corrid" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 } }
  ]
"#;
const STATE: &str =
    r#"state { input_name: "sum_in" output_name: "sum_out" data_type: TYPE_FP32 dims: [ 1 ] }"#;

/// A configuration with this in its `sequence_batching`.
fn config(sequences: &str) -> String {
    format!(
        r#"max_batch_size: 4
        input {{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }}
        output [
          {{ name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }}, {{ name: "told" data_type: TYPE_FP32 dims: [ 4 ] }}
        ]
        sequence_batching {{ {sequences} }}"#
    )
}

struct Tenants;

impl Admit for Tenants {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        let Principal::Anonymous { peer } = ask.principal;
        Decision::Allow(TenantId::parse(&format!("t{}", peer.port())).unwrap())
    }
}

fn permit(tenant: u16, verb: Verb) -> Permit {
    let who = Principal::Anonymous { peer: ([127, 0, 0, 1], tenant).into() };
    Gate::new(Arc::new(Tenants)).admit(&who, verb, Some(&ModelName::parse("m").unwrap())).unwrap()
}

struct Slot(mpsc::SyncSender<Result<InferResponse, InferError>>);

impl Answer for Slot {
    fn is_gone(&self) -> bool {
        false
    }
    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        self.0.send(outcome).unwrap();
    }
}

struct House {
    folder: tempfile::TempDir,
    catalog: Catalog,
}

type Waiting = mpsc::Receiver<Result<InferResponse, InferError>>;

impl House {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let house = folder.path().join("m");
        fs::create_dir_all(house.join("1")).unwrap();
        fs::write(house.join("config.pbtxt"), config).unwrap();
        fs::write(house.join("1/model.onnx"), ACCUMULATE).unwrap();
        let defaults = Defaults {
            max_batch_size: 8,
            max_queue: 64,
            cores: 1,
            instances: None,
            objective: Objective::Throughput,
            inline_below: Duration::from_micros(100),
        };
        let source = Source::Repositories(vec![folder.path().to_owned()]);
        let backend = Arc::new(RtenBackend::new(String::new()));
        let catalog = Catalog::new(backend, source.clone(), Settings::new(defaults)).unwrap();
        catalog.load(source.scan().unwrap(), &|_| true, &|_| ());
        Self { folder, catalog }
    }

    fn fault(config: &str) -> String {
        match Self::new(config).catalog.models().remove(0).state {
            ModelState::Unavailable(reason) => reason,
            state => panic!("{state:?}"),
        }
    }

    fn send_as(&self, tenant: u16, mark: Option<SequenceMark>, x: f32, outputs: &[&str]) -> Waiting {
        self.send_by("", tenant, mark, x, outputs)
    }

    /// As [`Self::send_as`], to a version by its number or label.
    fn send_by(
        &self,
        version: &str,
        tenant: u16,
        mark: Option<SequenceMark>,
        x: f32,
        outputs: &[&str],
    ) -> Waiting {
        let permit = permit(tenant, Verb::Infer);
        let routed = self.catalog.route(&permit, VersionRef::read(version)).unwrap();
        let older = mark.as_ref().and_then(|mark| routed.revision_of(&permit, mark));
        self.send_to(&*older.unwrap_or(routed), &permit, mark, x, outputs)
    }

    fn send_to(
        &self,
        upstream: &dyn Upstream,
        permit: &Permit,
        mark: Option<SequenceMark>,
        x: f32,
        outputs: &[&str],
    ) -> Waiting {
        let (name, data) = ("x".into(), Bytes::copy_from_slice(&x.to_le_bytes()));
        let request = InferRequest {
            id: String::new(),
            inputs: vec![Tensor { name, datatype: xebec_core::Datatype::Fp32, shape: vec![1, 1], data }],
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            timeout: None,
            priority: 0,
            sequence: mark,
            streamed: false,
            headers: Vec::new(),
            received: Instant::now(),
            trace: None,
        };
        let (to, from) = mpsc::sync_channel(1);
        upstream.submit(permit, request, Box::new(Slot(to)));
        from
    }

    fn send(&self, id: u64, flags: (bool, bool), x: f32) -> Waiting {
        self.send_as(1, mark(id, flags), x, &[])
    }

    /// The sum after a request.
    fn sum(&self, id: u64, flags: (bool, bool), x: f32) -> Result<f32, InferError> {
        sum(&self.send(id, flags, x))
    }
}

const START: (bool, bool) = (true, false);
const GO_ON: (bool, bool) = (false, false);
const END: (bool, bool) = (false, true);

fn mark(id: u64, (start, end): (bool, bool)) -> Option<SequenceMark> {
    Some(SequenceMark { id: CorrelationId::Number(id), start, end })
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.data.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn sum(waiting: &Waiting) -> Result<f32, InferError> {
    let response = waiting.recv().unwrap()?;
    let sum = response.outputs.iter().find(|output| *output.name == *"sum").unwrap();
    Ok(numbers(sum)[0])
}

#[test]
fn a_sequence_adds_up_over_its_own_state() {
    let house = House::new(&config(&format!("direct {{ }} {CONTROLS} {STATE}")));
    assert_eq!(house.sum(7, START, 1.0), Ok(1.0));
    assert_eq!(house.sum(8, START, 100.0), Ok(100.0));
    assert_eq!(house.sum(7, GO_ON, 2.0), Ok(3.0));
    assert_eq!(house.sum(8, GO_ON, 50.0), Ok(150.0));
    assert_eq!(house.sum(7, END, 4.0), Ok(7.0));
    // It is over; another start begins at zero, also in the middle.
    let over = house.sum(7, GO_ON, 1.0).unwrap_err();
    assert_eq!(over.code(), Code::InvalidArgument);
    assert!(over.to_string().contains("must specify the START flag"), "{over}");
    assert_eq!(house.sum(8, START, 5.0), Ok(5.0));
    // Another tenant's sequence of the same id is another one.
    let theirs = house.send_as(2, mark(8, GO_ON), 1.0, &[]);
    assert!(sum(&theirs).is_err());
    // Requests that are sent without waiting run one after the other.
    let sent: Vec<Waiting> = (1..=8).map(|x| house.send(8, GO_ON, x as f32)).collect();
    let sums: Vec<f32> = sent.iter().map(|waiting| sum(waiting).unwrap()).collect();
    assert_eq!(sums, [6.0, 8.0, 11.0, 15.0, 20.0, 26.0, 33.0, 41.0]);
}

#[test]
fn controls_tell_the_model_of_its_sequence() {
    let house = House::new(&config(&format!("oldest {{ max_candidate_sequences: 4 }} {CONTROLS} {STATE}")));
    let told = |flags| {
        let response = house.send_as(1, mark(9, flags), 1.0, &["told"]).recv().unwrap().unwrap();
        assert_eq!(response.outputs.len(), 1, "what was not asked for stays here");
        numbers(&response.outputs[0])
    };
    assert_eq!(told(START), [1.0, 0.0, 1.0, 9.0]);
    assert_eq!(told(GO_ON), [0.0, 0.0, 1.0, 9.0]);
    assert_eq!(told(END), [0.0, 1.0, 1.0, 9.0]);
    // What callers see has neither controls nor state.
    let upstream = house.catalog.route(&permit(1, Verb::Infer), VersionRef::Newest).unwrap();
    let names = |tensors: &[xebec_core::model::TensorInfo]| {
        tensors.iter().map(|tensor| tensor.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&upstream.info().inputs), ["x"]);
    assert_eq!(names(&upstream.info().outputs), ["sum", "told"]);
    assert_eq!((upstream.config().input.len(), upstream.config().output.len()), (1, 2));
    let all = house.send(9, START, 1.0).recv().unwrap().unwrap();
    assert_eq!(all.outputs.len(), 2);
    // A request that is of no sequence, has several rows, or names a hidden input is refused.
    let none = house.send_as(1, None, 1.0, &[]).recv().unwrap().unwrap_err();
    assert!(none.to_string().contains("non-zero or non-empty correlation ID"), "{none}");
    let text = SequenceMark { id: CorrelationId::Text("a".into()), start: true, end: false };
    let wrong = house.send_as(1, Some(text), 1.0, &[]).recv().unwrap().unwrap_err();
    assert!(wrong.to_string().contains("sequence_id a is not an id of this model"), "{wrong}");
    let hidden = house.send_as(1, mark(9, GO_ON), 1.0, &["sum_out"]).recv().unwrap().unwrap_err();
    assert!(matches!(hidden, InferError::UnexpectedOutput { .. }), "{hidden}");
}

#[test]
fn places_are_those_of_the_strategy() {
    let idle = "max_sequence_idle_microseconds: 20000";
    for (strategy, places) in [
        ("direct { }", 4),
        ("direct { minimum_slot_utilization: 0.5 max_queue_delay_microseconds: 100 }", 4),
        ("oldest { max_candidate_sequences: 2 preferred_batch_size: [ 2 ] }", 2),
    ] {
        let house = House::new(&config(&format!("{strategy} {idle} {CONTROLS} {STATE}")));
        let answered = |id| house.sum(id, START, 1.0) == Ok(1.0);
        assert!((1..=places).all(answered), "{strategy}");
        // One more waits until another was idle for too long, and is answered then.
        assert_eq!(house.sum(99, START, 3.0), Ok(3.0), "{strategy}");
        assert!(house.sum(1, GO_ON, 1.0).is_err(), "{strategy}: the one that was idle longest is over");
    }
    let cached = config(&format!("direct {{ }} {CONTROLS} {STATE}")) + "response_cache { enable: true }";
    assert!(House::fault(&cached).contains("response_cache: an answer of a sequence depends"));
    for (sequences, words) in [
        ("oldest { }", "max_candidate_sequences: 0 sequences"),
        ("direct { minimum_slot_utilization: 2 }", "is not between 0 and 1"),
        ("direct { } control_input { name: \"start\" }", "it has 0 controls"),
        (
            "direct { } control_input { name: \"start\" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 1 ] } }",
            "with two values",
        ),
        ("direct { } state { input_name: \"sum_in\" }", "input_name and output_name are both needed"),
        (
            "direct { } state { input_name: \"sum_in\" output_name: \"sum_out\" data_type: TYPE_FP32 dims: [ 1 ] initial_state { data_type: TYPE_FP32 dims: [ 1 ] data_file: \"../x\" } }",
            "without '..'",
        ),
    ] {
        let fault = House::fault(&config(sequences));
        assert!(fault.contains(words), "{sequences}: {fault}");
    }
}

#[test]
fn a_state_may_begin_with_what_a_file_says() {
    let first = r#"state { input_name: "sum_in" output_name: "sum_out" data_type: TYPE_FP32 dims: [ 1 ]
        initial_state { name: "ten" data_type: TYPE_FP32 dims: [ 1 ] data_file: "ten" } }"#;
    let house = House::new(&config(&format!("direct {{ }} {CONTROLS} {first}")));
    let file = house.folder.path().join("m/initial_state/ten");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, 10.0_f32.to_le_bytes()).unwrap();
    house.load();
    assert_eq!((house.sum(1, START, 1.0), house.sum(1, GO_ON, 1.0)), (Ok(11.0), Ok(12.0)));
}

impl House {
    /// Brings another version, or the same anew, and loads it.
    fn reload(&self, version: u64) {
        let folder = self.folder.path().join(format!("m/{version}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("model.onnx"), ACCUMULATE).unwrap();
        self.load();
    }

    fn load(&self) {
        let (tell, told) = mpsc::sync_channel(1);
        let done = Box::new(move |outcome| tell.send(outcome).unwrap());
        Control::load(&self.catalog, &permit(1, Verb::Admin), Overrides::default(), done);
        assert_eq!(told.recv().unwrap(), Ok(()));
    }

    fn routed(&self) -> Arc<dyn Upstream> {
        self.catalog.route(&permit(1, Verb::Infer), VersionRef::Newest).unwrap()
    }

    /// The version that a request of a sequence goes to.
    fn version_of(&self, id: u64, flags: (bool, bool)) -> u64 {
        let routed = self.routed();
        let older = routed.revision_of(&permit(1, Verb::Infer), &mark(id, flags).unwrap());
        older.unwrap_or(routed).info().version.get()
    }
}

/// Waits until something that happens beside the test has happened.
fn until(mut done: impl FnMut() -> bool, what: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_sequence_that_has_begun_goes_on_over_a_reload() {
    let house = House::new(&config(&format!("direct {{ }} {CONTROLS} {STATE}")));
    assert_eq!(house.sum(1, START, 1.0), Ok(1.0));
    for version in 2..5 {
        house.reload(version);
        // The new revision takes new sequences, the old one ends what it has begun.
        assert_eq!(house.sum(version, START, 5.0), Ok(5.0));
        assert_eq!(house.sum(1, GO_ON, 1.0), Ok(version as f32));
        assert_eq!((house.version_of(version, GO_ON), house.version_of(1, GO_ON)), (version, 1));
        assert_eq!(house.version_of(1, START), version);
    }
    assert_eq!(house.sum(1, END, 1.0), Ok(5.0));
    assert!(house.sum(1, GO_ON, 1.0).is_err());
}

#[test]
fn a_sequence_that_begins_anew_over_a_reload_leaves_nothing_behind() {
    let house = House::new(&config(&format!("direct {{ }} {CONTROLS} {STATE}")));
    assert_eq!(house.sum(1, START, 7.0), Ok(7.0));
    house.reload(2);
    assert_eq!(house.sum(1, START, 1.0), Ok(1.0));
    assert_eq!(house.sum(1, END, 1.0), Ok(2.0));
    let over = house.sum(1, GO_ON, 1.0).unwrap_err();
    assert!(over.to_string().contains("must specify the START flag"), "{over}");
}

#[test]
fn only_revisions_with_sequences_stay_in_memory() {
    let idle = "max_sequence_idle_microseconds: 3600000000";
    let house = House::new(&config(&format!("direct {{ }} {idle} {CONTROLS} {STATE}")));
    assert_eq!(house.sum(1, START, 1.0), Ok(1.0));
    let mut revisions = vec![Arc::downgrade(&house.catalog.sequenced("m").unwrap().0)];
    for version in 2..=12 {
        house.reload(version);
        revisions.push(Arc::downgrade(&house.catalog.sequenced("m").unwrap().0));
    }
    let alive = || {
        let alive = revisions.iter().enumerate().filter(|(_, revision)| revision.strong_count() > 0);
        alive.map(|(index, _)| index + 1).collect::<Vec<_>>()
    };
    until(|| alive() == [1, 12], "the first has a sequence, the last is served, and no other stays");
    assert_eq!(house.sum(1, END, 1.0), Ok(2.0));
    until(|| alive() == [12], "the first goes with its sequence");
}

#[test]
fn a_revision_that_was_replaced_or_is_to_go_begins_nothing_and_says_to_ask_again() {
    let house = House::new(&config(&format!("direct {{ }} {CONTROLS} {STATE}")));
    // Found before the reload, asked after it.
    let (old, caller) = (house.routed(), permit(1, Verb::Infer));
    assert_eq!(house.sum(1, START, 1.0), Ok(1.0));
    house.reload(2);
    let ask = |id, flags| sum(&house.send_to(&*old, &caller, mark(id, flags), 1.0, &[]));
    for (id, flags) in [(2, START), (2, GO_ON), (1, START)] {
        assert_eq!(ask(id, flags), Err(InferError::NotResident { model: "m".into() }));
    }
    assert_eq!(ask(1, GO_ON), Ok(2.0));
    // One that has a sequence, or looks after one, does not go.
    let new = house.catalog.sequenced("m").unwrap();
    assert!(!new.close());
    assert_eq!(ask(1, END), Ok(3.0));
    until(|| new.close(), "it goes when nothing is left");
    assert_eq!(house.sum(3, START, 1.0), Err(InferError::NotResident { model: "m".into() }));
}

#[test]
fn a_sequence_that_began_by_a_label_stays_with_its_version_when_the_label_moves() {
    let labelled = |stable: u64| {
        config(&format!("direct {{ }} {CONTROLS} {STATE}"))
            + &format!(
                r#"version_policy {{ all {{ }} }}
                parameters {{ key: "version_label.stable" value {{ string_value: "{stable}" }} }}"#
            )
    };
    let house = House::new(&labelled(1));
    house.reload(2);
    let by = |version: &str, id, flags| sum(&house.send_by(version, 1, mark(id, flags), 1.0, &[]));
    assert_eq!((by("stable", 7, START), by("1", 7, GO_ON)), (Ok(1.0), Ok(2.0)));
    // There and back, and there again: it is always the same sequence.
    for (stable, so_far) in [(2, 3.0), (1, 4.0), (2, 5.0)] {
        fs::write(house.folder.path().join("m/config.pbtxt"), labelled(stable)).unwrap();
        house.load();
        assert_eq!(by("stable", 7, GO_ON), Ok(so_far));
    }
    assert_eq!(by("stable", 7, END), Ok(6.0));
    assert!(by("stable", 7, GO_ON).is_err());
    assert_eq!((by("stable", 8, START), by("2", 8, GO_ON)), (Ok(1.0), Ok(2.0)));
}
