use super::*;
use crate::{
    backend::{BatchInput, LoadOptions, Model, OutputView, RunError, Signature, Stream, rten::RtenBackend},
    limiter::{Declared, Limiter},
    onnx,
    repository::Scan,
};
use bytes::Bytes;
use std::{
    fs,
    path::Path,
    sync::atomic::AtomicUsize,
    time::{Duration, Instant},
};
use xebec_core::{
    Code, Datatype, Gate, InferRequest, InferResponse, Principal, TenantId, Tensor, Verb,
    permit::{Admit, Ask, Decision},
    port::{Answer, ModelState, Turn as _},
    resource::Objective,
};

/// y = 2 x + 1, whose 1 is a weight that tests replace.
const SCALER: &[u8] = include_bytes!("../../../../models/testdata/repository/scaler.onnx");

/// y = 2 x + `offset`.
fn scaler(offset: f32) -> Vec<u8> {
    let one = 1.0_f32.to_le_bytes();
    let at = SCALER.windows(4).position(|bytes| bytes == one).unwrap();
    let mut model = SCALER.to_vec();
    model[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    model
}

/// Writes as a careful owner does: beside it, then over it.
fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

struct Everybody;

impl Admit for Everybody {
    fn decide(&self, _: &Ask<'_>) -> Decision {
        Decision::Allow(TenantId::default_tenant())
    }
}

fn permit(model: &str, verb: Verb) -> Permit {
    let who = Principal::Anonymous { peer: ([127, 0, 0, 1], 1).into() };
    Gate::new(Arc::new(Everybody)).admit(&who, verb, Some(&ModelName::parse(model).unwrap())).unwrap()
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

/// A folder of models and the catalog over it.
struct House {
    folder: tempfile::TempDir,
    catalog: Catalog,
}

fn defaults() -> Defaults {
    Defaults {
        max_batch_size: 8,
        max_queue: 64,
        cores: 1,
        instances: None,
        objective: Objective::Throughput,
        inline_below: Duration::from_micros(100),
    }
}

impl House {
    /// Over these files, everything loaded.
    fn new(files: &[(&str, &[u8])]) -> Self {
        Self::with(files, Settings::new(defaults()), Arc::new(RtenBackend::new(String::new())))
    }

    fn with(files: &[(&str, &[u8])], settings: Settings, backend: Arc<dyn Backend>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(path, content)| put(&folder.path().join(path), content));
        let source = Source::Repositories(vec![folder.path().to_owned()]);
        let house = Self { folder, catalog: Catalog::new(backend, source, settings).unwrap() };
        house.catalog.load(house.scan(), &|_| true, &|_| ());
        house
    }

    fn scan(&self) -> Scan {
        self.catalog.core.source.scan().unwrap()
    }

    fn put(&self, path: &str, content: &[u8]) {
        put(&self.folder.path().join(path), content);
    }

    fn order(&self, give: impl FnOnce(Done)) -> Result<(), InferError> {
        let (tell, told) = mpsc::sync_channel(1);
        give(Box::new(move |outcome| tell.send(outcome).unwrap()));
        told.recv().unwrap()
    }

    fn load(&self, model: &str) -> Result<(), InferError> {
        self.load_with(model, Overrides::default())
    }

    fn load_with(&self, model: &str, overrides: Overrides) -> Result<(), InferError> {
        self.order(|done| Control::load(&self.catalog, &permit(model, Verb::Admin), overrides, done))
    }

    fn unload(&self, model: &str) -> Result<(), InferError> {
        self.order(|done| self.catalog.unload(&permit(model, Verb::Admin), done))
    }

    /// What a model makes of zeros: its offset.
    fn ask(&self, model: &str, version: Option<u64>) -> Result<f32, InferError> {
        self.ask_for(model, &version.map(|version| version.to_string()).unwrap_or_default())
    }

    fn ask_for(&self, model: &str, version: &str) -> Result<f32, InferError> {
        self.ask_with(model, version, &[0; 16])
    }

    fn ask_with(&self, model: &str, version: &str, data: &'static [u8]) -> Result<f32, InferError> {
        let permit = permit(model, Verb::Infer);
        let upstream = loop {
            match self.catalog.route(&permit, VersionRef::read(version)) {
                Err(InferError::NotResident { .. }) => self.order(|done| self.catalog.wake(&permit, done))?,
                routed => break routed?,
            }
        };
        let (to, from) = mpsc::sync_channel(1);
        upstream.submit(&permit, request(data), Box::new(Slot(to)));
        crate::TurnEnd.flush();
        let response = from.recv().unwrap()?;
        Ok(f32::from_le_bytes(response.outputs[0].data[..4].try_into().unwrap()))
    }

    fn state(&self, model: &str) -> ModelState {
        self.catalog.models().into_iter().find(|row| row.name.as_str() == model).unwrap().state
    }
}

fn zeros() -> InferRequest {
    request(&[0; 16])
}

fn request(data: &'static [u8]) -> InferRequest {
    let data = Bytes::from_static(data);
    InferRequest {
        id: String::new(),
        inputs: vec![Tensor { name: "x".into(), datatype: Datatype::Fp32, shape: vec![1, 4], data }],
        outputs: vec![],
        timeout: None,
        priority: 0,
        sequence: None,
        streamed: false,
        headers: Vec::new(),
        received: Instant::now(),
        trace: None,
    }
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_reload_serves_the_new_weights_and_one_that_fails_leaves_the_old_ones() {
    let house = House::new(&[("m.onnx", &scaler(1.0))]);
    assert_eq!(house.ask("m", None), Ok(1.0));
    house.load("m").unwrap();
    assert_eq!(house.catalog.residents().loads.get(), 1, "nothing had changed");
    house.put("m.onnx", &scaler(2.0));
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(2.0));
    house.put("m.onnx", b"garbage");
    let error = house.load("m").unwrap_err().to_string();
    assert!(error.starts_with("failed to load 'm', version 1 is not served"), "{error}");
    assert_eq!(house.ask("m", Some(1)), Ok(2.0));
    let ModelState::Ready { note } = house.state("m") else { panic!("{:?}", house.state("m")) };
    assert!(note.starts_with("the last reload of version 1 failed: "), "{note}");
    assert!(house.catalog.ready(), "a failed reload is no reason to send requests elsewhere");
    house.put("m.onnx", &scaler(3.0));
    house.load("m").unwrap();
    assert_eq!((house.ask("m", None), house.state("m")), (Ok(3.0), ModelState::Ready { note: "".into() }));
}

#[test]
fn an_older_version_goes_only_when_the_newer_one_serves() {
    let house = House::new(&[("m/1/model.onnx", &scaler(1.0))]);
    house.put("m/2/model.onnx", b"garbage");
    assert!(house.load("m").is_err());
    assert_eq!(house.ask("m", None), Ok(1.0));
    house.put("m/2/model.onnx", &scaler(2.0));
    house.load("m").unwrap();
    assert_eq!((house.ask("m", None), house.ask("m", Some(2))), (Ok(2.0), Ok(2.0)));
    assert!(matches!(house.ask("m", Some(1)), Err(InferError::UnknownVersion { .. })));
    // Of several wanted versions each stands for itself.
    house.put("m/config.pbtxt", b"version_policy { all {} }");
    house.put("m/3/model.onnx", b"garbage");
    assert!(house.load("m").is_err());
    let served = [1, 2, 3].map(|version| house.ask("m", Some(version)).ok());
    assert_eq!(served, [Some(1.0), Some(2.0), None]);
}

/// A configuration that serves all versions and calls some of them so.
fn labelled(labels: &[(&str, u64)]) -> String {
    let labels = labels.iter().map(|(label, version)| {
        format!("parameters {{ key: \"version_label.{label}\" value {{ string_value: \"{version}\" }} }}\n")
    });
    "version_policy { all { } }\n".to_owned() + &labels.collect::<String>()
}

#[test]
fn a_label_moves_with_the_versions_and_stays_where_a_reload_fails() {
    let house = House::new(&[
        ("m/1/model.onnx", &scaler(1.0)),
        ("m/2/model.onnx", &scaler(2.0)),
        ("m/config.pbtxt", labelled(&[("stable", 1), ("canary", 2)]).as_bytes()),
    ]);
    let asked = || ["stable", "canary", "1", "2", ""].map(|version| house.ask_for("m", version));
    assert_eq!(asked(), [Ok(1.0), Ok(2.0), Ok(1.0), Ok(2.0), Ok(2.0)]);
    let Err(unknown) = house.ask_for("m", "staple\u{7}") else { panic!() };
    assert_eq!(unknown.to_string(), "Request for unknown model: 'm' version staple is not found");
    let hint = "the model has versions 1, 2, and labels canary (2), stable (1)";
    assert_eq!((unknown.code(), unknown.hint().as_deref()), (Code::NotFound, Some(hint)));
    let labels = |house: &House| {
        let rows = house.catalog.models().into_iter();
        rows.map(|row| row.labels.iter().map(ToString::to_string).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(labels(&house), [["stable"], ["canary"]]);

    // To nothing, and to a version that cannot be loaded: both change nothing.
    house.put("m/config.pbtxt", labelled(&[("stable", 3)]).as_bytes());
    let error = house.load("m").unwrap_err();
    assert!(
        error.to_string().contains("label 'stable' is version 3, which is not there: there are 1, 2"),
        "{error}"
    );
    assert_eq!(
        (error.code(), asked()),
        (Code::InvalidArgument, [Ok(1.0), Ok(2.0), Ok(1.0), Ok(2.0), Ok(2.0)])
    );
    house.put("m/3/model.onnx", b"garbage");
    house.load("m").unwrap_err();
    assert_eq!((house.ask_for("m", "stable"), house.ask_for("m", "canary")), (Ok(1.0), Ok(2.0)));

    house.put("m/3/model.onnx", &scaler(3.0));
    house.load("m").unwrap();
    assert_eq!(house.ask_for("m", "stable"), Ok(3.0));
    assert!(
        matches!(house.ask_for("m", "canary"), Err(InferError::UnknownVersion { .. })),
        "it was taken away"
    );
    // By an order's own configuration, also of a model that has none.
    let moved = r#"{"version_policy":{"all":{}},"parameters":{"version_label.stable":{"string_value":"2"}}}"#;
    house.load_with("m", Overrides { config: Some(moved.into()), files: Vec::new() }).unwrap();
    assert_eq!(house.ask_for("m", "stable"), Ok(2.0));
    house.unload("m").unwrap();
    assert!(matches!(house.ask_for("m", "stable"), Err(InferError::VersionNotReady { version: 2, .. })));
}

#[test]
fn a_label_finds_its_version_also_where_another_cannot_be_loaded_or_none_is_in_memory() {
    let config = labelled(&[("stable", 1), ("next", 2)]);
    let files: [(&str, &[u8]); 3] = [
        ("m/1/model.onnx", &scaler(1.0)),
        ("m/2/model.onnx", b"garbage"),
        ("m/config.pbtxt", config.as_bytes()),
    ];
    let house = House::new(&files);
    assert_eq!(house.ask_for("m", "stable"), Ok(1.0));
    assert!(matches!(house.ask_for("m", "next"), Err(InferError::VersionNotReady { version: 2, .. })));
    let settings = Settings { memory: Some(1 << 30), ..Settings::new(defaults()) };
    let house = House::with(&files, settings, Arc::new(RtenBackend::new(String::new())));
    assert_eq!(house.catalog.residents().loads.get(), 0);
    house.put("m/2/model.onnx", &scaler(2.0));
    assert_eq!((house.ask_for("m", "stable"), house.ask_for("m", "next")), (Ok(1.0), Ok(2.0)));
}

#[test]
fn an_unloaded_model_is_refused_with_the_reason_and_can_come_back() {
    let house = House::new(&[("m.onnx", &scaler(1.0)), ("other.onnx", &scaler(5.0))]);
    house.unload("m").unwrap();
    until("its memory is back", || house.state("m") == ModelState::Unavailable("it was unloaded".into()));
    let Err(InferError::NoVersions { reason, .. }) = house.ask("m", None) else { panic!() };
    assert_eq!(reason, "it was unloaded");
    assert_eq!(house.ask("other", None), Ok(5.0));
    assert!(house.catalog.ready());
    house.unload("m").unwrap();
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(1.0));
    assert!(matches!(house.unload("nobody"), Err(InferError::UnloadFailed { .. })));
    let unknown = house.load("nobody").unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(unknown.to_string(), "failed to load 'nobody', failed to poll from model repository");
    assert!(matches!(house.ask("nobody", None), Err(InferError::UnknownModel { .. })));
    // One that was copied into the folder since the start is found.
    house.put("late/1/model.onnx", &scaler(9.0));
    house.load("late").unwrap();
    assert_eq!(house.ask("late", None), Ok(9.0));
}

#[test]
fn what_cannot_be_loaded_at_start_makes_the_server_not_ready_until_it_can() {
    let house = House::new(&[("good.onnx", &scaler(1.0)), ("bad.onnx", b"garbage")]);
    assert_eq!((house.catalog.ready(), house.ask("good", None)), (false, Ok(1.0)));
    house.put("bad.onnx", &scaler(2.0));
    house.load("bad").unwrap();
    assert_eq!((house.catalog.ready(), house.ask("bad", None)), (true, Ok(2.0)));
}

#[test]
fn under_a_limit_of_memory_every_model_answers_and_those_used_longest_ago_go() {
    const MODELS: usize = 12;
    let files: Vec<(String, Vec<u8>)> =
        (0..MODELS).map(|at| (format!("m{at}.onnx"), scaler(at as f32))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(path, model)| (&**path, &**model)).collect();
    let of_one = (512 << 10) + SCALER.len() as u64;
    let settings = Settings { memory: Some(3 * of_one), ..Settings::new(defaults()) };
    let house = House::with(&files, settings, Arc::new(RtenBackend::new(String::new())));
    assert_eq!(house.catalog.residents().loads.get(), 0, "nothing is loaded before it is asked for");
    assert!(house.catalog.ready() && house.state("m3").is_ready());
    for round in 0..3 {
        for at in 0..MODELS {
            assert_eq!(house.ask(&format!("m{at}"), None), Ok(at as f32), "round {round}");
            let (limit, used) = house.catalog.memory().unwrap();
            assert!(used <= limit, "{used} of {limit}");
            // One that is used all the time stays.
            assert_eq!(house.ask("m0", None), Ok(0.0));
        }
    }
    let asleep = house.catalog.models().into_iter();
    let asleep = asleep.filter(|row| matches!(&row.state, ModelState::Ready { note } if !note.is_empty()));
    assert_eq!(asleep.count(), MODELS - 3);
    let loads = house.catalog.residents().loads.get() as usize;
    assert_eq!(loads, 1 + 3 * (MODELS - 1), "m0 was loaded once, each other one every time");
    assert_eq!(house.catalog.residents().evictions.get() as usize, loads - 3);
    // A version's counters go on over its loads.
    let upstream = house.catalog.route(&permit("m11", Verb::Infer), VersionRef::Newest).unwrap();
    assert_eq!(upstream.metrics().executions.get(), 3);
}

#[test]
fn a_model_larger_than_all_memory_for_models_is_refused_by_the_flags_name() {
    let settings = Settings { memory: Some(1000), ..Settings::new(defaults()) };
    let backend = Arc::new(RtenBackend::new(String::new()));
    let house = House::with(&[("m.onnx", &scaler(1.0))], settings, backend);
    for _ in 0..3 {
        let error = house.ask("m", None).unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "whoever asks for inference is not to blame");
        assert!(error.hint().unwrap().contains("--model-memory-budget"), "{error}");
    }
    let error = house.load("m").unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.to_string().contains("--model-memory-budget"));
}

#[test]
fn a_model_that_runs_on_every_core_takes_memory_for_each_and_is_refused_before_it_passes_the_limit() {
    let defaults = Defaults { cores: 2, inline_below: Duration::from_secs(3600), ..defaults() };
    let ask = |sessions| {
        let settings = Settings { defaults, ..room_for(sessions) };
        let backend = Arc::new(RtenBackend::new(String::new()));
        let house = House::with(&[("m.onnx", &scaler(1.0))], settings, backend);
        let outcome = house.ask("m", None).map_err(|error| error.hint().unwrap());
        (outcome, house.catalog.memory().unwrap())
    };
    let of_one = room_for(1).memory.unwrap();
    let (outcome, memory) = ask(1);
    let error = outcome.unwrap_err();
    assert!(error.contains(&(2 * of_one).to_string()) && error.contains("--model-memory-budget"), "{error}");
    assert_eq!(memory, (of_one, 0));
    assert_eq!(ask(2), (Ok(1.0), (2 * of_one, 2 * of_one)));
}

#[test]
fn what_is_read_about_a_model_out_of_memory_is_what_it_was_and_sends_nobody_out() {
    let config = b"metric_tags { key: \"team\" value: \"red\" }";
    let files: [(&str, &[u8]); 3] =
        [("m/1/model.onnx", &scaler(1.0)), ("m/config.pbtxt", config), ("busy.onnx", &scaler(5.0))];
    let house = cramped(&files, 1);
    let describe =
        |model| house.catalog.describe(&permit(model, Verb::ReadModel), VersionRef::Number(Version::FIRST));
    assert!(matches!(describe("m"), Err(InferError::NotResident { .. })), "it was never in memory");
    assert!(house.catalog.upstreams().is_empty());
    assert_eq!(house.ask("m", None), Ok(1.0));
    let awake = describe("m").unwrap();
    let was = (awake.info().clone(), awake.config().clone());
    drop(awake);
    assert_eq!(house.ask("busy", None), Ok(5.0));
    let loads = house.catalog.residents().loads.get();
    let asleep = describe("m").unwrap();
    assert_eq!((asleep.info().clone(), asleep.config().clone()), was);
    assert_eq!((&*was.1.metric_tags["team"], asleep.metrics().executions.get()), ("red", 1));
    let all: Vec<ModelName> = house.catalog.upstreams().iter().map(|one| one.info().name.clone()).collect();
    assert_eq!(all.iter().map(|name| name.as_str()).collect::<Vec<_>>(), ["busy", "m"]);
    assert_eq!((house.ask("busy", None), house.catalog.residents().loads.get()), (Ok(5.0), loads));
    // Whoever held on to it is told to ask again, and what is counted goes on.
    let (to, from) = mpsc::sync_channel(1);
    asleep.submit(&permit("m", Verb::Infer), zeros(), Box::new(Slot(to)));
    assert!(matches!(from.recv().unwrap(), Err(InferError::NotResident { .. })));
    assert_eq!((house.ask("m", None), asleep.metrics().executions.get()), (Ok(1.0), 2));
    house.unload("m").unwrap();
    assert!(describe("m").is_err() && house.catalog.upstreams().len() == 1);
}

/// A model of two versions, both of which are served.
fn twins() -> [(&'static str, Vec<u8>); 3] {
    let policy = b"version_policy { all {} }".to_vec();
    [("m/1/model.onnx", scaler(1.0)), ("m/2/model.onnx", scaler(2.0)), ("m/config.pbtxt", policy)]
}

#[test]
fn versions_that_do_not_fit_together_take_turns() {
    let files = twins();
    let files = files.each_ref().map(|(path, content)| (*path, &**content));
    for round in 0..3 {
        let house = cramped(&files, 1);
        for version in [Some(1), None, None, Some(2), Some(1), Some(1), None] {
            assert_eq!(house.ask("m", version), Ok(if version == Some(1) { 1.0 } else { 2.0 }), "{round}");
            let (limit, used) = house.catalog.memory().unwrap();
            assert!(used <= limit, "{used} of {limit}");
        }
    }
    let house = cramped(&files, 2);
    assert_eq!((house.ask("m", Some(1)), house.ask("m", None)), (Ok(1.0), Ok(2.0)));
    assert_eq!(house.catalog.residents().loads.get(), 2, "there is room for both");
}

#[test]
fn a_reload_without_room_beside_what_serves_loses_nothing_and_says_what_to_do() {
    let house = cramped(&[("m/1/model.onnx", &scaler(1.0))], 1);
    assert_eq!(house.ask("m", None), Ok(1.0));
    // The old one can come back from its files: it makes room.
    house.put("m/2/model.onnx", b"garbage");
    assert!(house.load("m").is_err());
    assert_eq!(house.ask("m", None), Ok(1.0));
    house.put("m/2/model.onnx", &scaler(2.0));
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(2.0));
    // It cannot: its file has another in its place.
    house.put("m/2/model.onnx", &scaler(3.0));
    let error = house.load("m").unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.to_string().contains("raise --model-memory-budget, or unload it first"), "{error}");
    assert_eq!(house.ask("m", None), Ok(2.0));
    house.unload("m").unwrap();
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(3.0));
}

#[test]
fn a_group_that_needs_more_than_there_is_is_refused_and_the_others_take_turns() {
    let declared = Declared { name: "R".into(), count: 2, device: None };
    let settings =
        Settings { limiter: Some(Arc::new(Limiter::new(vec![declared]))), ..Settings::new(defaults()) };
    let backend = Arc::new(RtenBackend::new(String::new()));
    let config = |count: u32| {
        format!("instance_group {{ count: 2 rate_limiter {{ resources {{ name: \"R\" count: {count} }} }} }}")
    };
    let (file, fits, large) = (scaler(1.0), config(2), config(3));
    let files: [(&str, &[u8]); 4] = [
        ("fits/1/model.onnx", &file),
        ("fits/config.pbtxt", fits.as_bytes()),
        ("large/1/model.onnx", &file),
        ("large/config.pbtxt", large.as_bytes()),
    ];
    let house = House::with(&files, settings, backend);
    let error = house.load("large").unwrap_err().to_string();
    assert!(error.contains("Resource count for \"R\" is limited to 2"), "{error}");
    assert!(error.contains("--rate-limit-resource R:3"), "{error}");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..16).map(|_| scope.spawn(|| house.ask("fits", None))).collect();
        asking.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), Ok(1.0)));
    });
    // What the old revision holds is no reason to refuse the new one.
    house.put("fits/config.pbtxt", config(1).as_bytes());
    house.load("fits").unwrap();
    assert_eq!(house.ask("fits", None), Ok(1.0));
}

#[test]
fn a_model_with_a_sum_is_loaded_from_the_file_that_has_it() {
    let config = b"model_repository_agents { agents { name: \"checksum\" parameters { key: \"MD5:1/model.onnx\" value: \"00000000000000000000000000000000\" } } }";
    let house = House::new(&[("m/1/model.onnx", &scaler(1.0)), ("m/config.pbtxt", config)]);
    let said = house.load("m").unwrap_err().to_string();
    let (_, rest) = said.split_once("1/model.onnx has MD5 ").unwrap();
    let right = String::from_utf8(config.to_vec()).unwrap().replace(&"0".repeat(32), &rest[..32]);
    house.put("m/config.pbtxt", right.as_bytes());
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(1.0));
    // Another file in its place is refused, and what serves goes on.
    house.put("m/1/model.onnx", &scaler(2.0));
    assert!(house.load("m").is_err());
    assert_eq!(house.ask("m", None), Ok(1.0));
}

#[test]
fn what_has_no_effect_is_said_once_however_often_the_model_is_loaded() {
    let idle = |path: &str| crate::repository::config::Idle { path: path.into(), why: "why".into() };
    let entry = Entry::new(ModelName::parse("m").unwrap());
    assert_eq!(entry.news(vec![idle("a")]), [idle("a")]);
    assert_eq!(entry.news(vec![idle("a")]), []);
    assert_eq!(entry.news(vec![idle("a"), idle("b")]), [idle("b")]);
    entry.news(vec![]);
    assert_eq!(entry.news(vec![idle("a")]), [idle("a")], "it was taken out and is back");
}

#[test]
fn a_version_counts_on_over_its_loads_and_anew_with_other_buckets() {
    let house = House::new(&[("m/1/model.onnx", &scaler(1.0))]);
    let runs = || {
        house.ask("m", None).unwrap();
        let upstream = house.catalog.route(&permit("m", Verb::Infer), VersionRef::Newest).unwrap();
        upstream.metrics().executions.get()
    };
    assert_eq!(runs(), 1);
    house.put("m/1/model.onnx", &scaler(2.0));
    house.load("m").unwrap();
    assert_eq!(runs(), 2);
    let config = b"model_metrics { metric_control { metric_identifier { family: \"xebec_serve_queue_duration_seconds\" } histogram_options { buckets: [ 1 ] } } }";
    house.put("m/config.pbtxt", config);
    house.load("m").unwrap();
    assert_eq!(runs(), 1);
    house.put("m/1/model.onnx", &scaler(3.0));
    house.load("m").unwrap();
    assert_eq!(runs(), 2);
}

#[test]
fn many_who_wait_for_a_model_load_it_once() {
    let settings = Settings { memory: Some(1 << 30), ..Settings::new(defaults()) };
    let backend = Arc::new(RtenBackend::new(String::new()));
    let house = House::with(&[("m.onnx", &scaler(1.0))], settings, backend);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..32).map(|_| scope.spawn(|| house.ask("m", None))).collect();
        asking.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), Ok(1.0)));
    });
    assert_eq!(house.catalog.residents().loads.get(), 1);
}

/// Puts another file in the place of the one that is loaded, the first `times` times.
struct Replacing {
    inner: RtenBackend,
    left: AtomicUsize,
}

impl Backend for Replacing {
    fn report(&self) -> EngineReport {
        self.inner.report()
    }
    fn load(
        &self,
        path: &Path,
        graph: &onnx::Model,
        options: LoadOptions,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let before = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if let Ok(left) = before {
            put(path, &scaler(left as f32));
        }
        self.inner.load(path, graph, options)
    }
}

#[test]
fn a_file_that_is_replaced_while_it_is_loaded_is_loaded_again() {
    for (times, want) in [(1, Ok(1.0)), (2, Ok(1.0)), (9, Err(()))] {
        let backend = Replacing { inner: RtenBackend::new(String::new()), left: AtomicUsize::new(times) };
        let house = House::with(&[("m.onnx", &scaler(7.0))], Settings::new(defaults()), Arc::new(backend));
        assert_eq!(house.ask("m", None).map_err(|_| ()), want, "{times}");
        if want.is_err() {
            let ModelState::Unavailable(reason) = house.state("m") else { panic!() };
            assert!(reason.contains("was replaced each time it was read"), "{reason}");
        }
    }
}

#[test]
fn a_file_that_is_not_what_its_checksum_says_is_not_served() {
    let sum = "0".repeat(64);
    let sums = format!("{sum}  model.onnx\n");
    let house = House::new(&[("m/1/model.onnx", &scaler(1.0)), ("m/1/SHA256SUMS", sums.as_bytes())]);
    let ModelState::Unavailable(reason) = house.state("m") else { panic!() };
    assert!(reason.contains("model.onnx has SHA-256") && reason.contains("copy it again"), "{reason}");
    let found = reason.split("SHA-256 ").nth(1).unwrap().split(',').next().unwrap();
    house.put("m/1/SHA256SUMS", format!("{found}  model.onnx\n").as_bytes());
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(1.0));
}

#[test]
fn an_order_may_bring_a_configuration_and_files_only_where_that_is_allowed() {
    let config = |text: &str| Overrides { config: Some(text.into()), files: Vec::new() };
    let file = |path: &str| Overrides {
        config: Some(r#"{"max_batch_size":"4"}"#.into()),
        files: vec![(path.into(), scaler(6.0).into())],
    };
    let house = House::new(&[("m.onnx", &scaler(1.0))]);
    house.load_with("m", config(r#"{"max_batch_size":"16"}"#)).unwrap();
    let upstream = house.catalog.route(&permit("m", Verb::Infer), VersionRef::Newest).unwrap();
    assert_eq!(upstream.config().max_batch_size, 16);
    for (text, words) in [
        ("{", "parameter 'config' is wrong"),
        (r#"{"max_batchsize":1}"#, "max_batchsize"),
        (r#"{"name":"other"}"#, "is of model 'other'"),
    ] {
        let error = house.load_with("m", config(text)).unwrap_err();
        assert!(error.to_string().contains(words) && error.code() == Code::InvalidArgument, "{error}");
    }
    let denied = house.load_with("m", file("1/model.onnx")).unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.to_string().contains("--allow-model-upload"), "{denied}");
    assert_eq!(house.ask("m", None), Ok(1.0));

    let settings = Settings { uploads: true, ..Settings::new(defaults()) };
    let house = House::with(&[("m.onnx", &scaler(1.0))], settings, Arc::new(RtenBackend::new(String::new())));
    house.load_with("m", file("3/model.onnx")).unwrap();
    assert_eq!((house.ask("m", Some(3)), house.ask("m", Some(1)).is_err()), (Ok(6.0), true));
    for path in ["model.onnx", "1/../../x", "../1/model.onnx", "0/model.onnx", "1/", "1/a/b", "/1/x", "1/.."]
    {
        let error = house.load_with("m", file(path)).unwrap_err();
        assert!(error.to_string().contains("is not file:<version>/<name>"), "{path}: {error}");
    }
    let bare = Overrides { config: None, ..file("1/model.onnx") };
    assert!(house.load_with("m", bare).unwrap_err().to_string().contains("'config' is missing"));
    // A name that no file system takes is our fault as little as the caller's, and is told as Triton tells it.
    let long = house.load_with("m", file(&format!("1/{}", "x".repeat(256)))).unwrap_err();
    assert!(long.code() == Code::Internal && long.to_string().contains("failed to poll"), "{long}");
    assert_eq!(house.ask("m", None), Ok(6.0));
    // Without files it is the repository's again.
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(1.0));
}

#[test]
fn what_is_polled_follows_its_folder() {
    let house = House::new(&[("a.onnx", &scaler(1.0)), ("b/1/model.onnx", &scaler(2.0))]);
    let poller = house.catalog.follow(Poll::new(&house.scan()), Duration::from_millis(10)).unwrap();
    house.put("a.onnx", &scaler(10.0));
    until("the replaced one is served", || house.ask("a", None) == Ok(10.0));
    house.put("b/2/model.onnx", &scaler(3.0));
    until("the newer version is served", || house.ask("b", None) == Ok(3.0));
    house.put("c.onnx", &scaler(4.0));
    until("the new one is served", || house.ask("c", None) == Ok(4.0));
    // A label moves without a new file.
    for version in [1, 2, 1] {
        house.put("b/config.pbtxt", labelled(&[("stable", version)]).as_bytes());
        until("the label has moved", || house.ask_for("b", "stable") == Ok(version as f32 + 1.0));
    }
    fs::remove_file(house.folder.path().join("b/config.pbtxt")).unwrap();
    until("the label is gone", || house.ask_for("b", "stable").is_err());
    // What is broken leaves what was served, and says so until it is mended.
    house.put("a.onnx", b"garbage");
    until("it says so", || matches!(house.state("a"), ModelState::Ready { note } if !note.is_empty()));
    assert_eq!(house.ask("a", None), Ok(10.0));
    house.put("a.onnx", &scaler(11.0));
    until("the mended one is served", || house.ask("a", None) == Ok(11.0));
    fs::remove_dir_all(house.folder.path().join("b")).unwrap();
    until("the removed one is unknown", || {
        matches!(house.ask("b", None), Err(InferError::UnknownModel { .. }))
    });
    // A folder without a version is said to be that, and served when it has one.
    fs::create_dir(house.folder.path().join("d")).unwrap();
    until("the empty one is listed", || house.catalog.models().iter().any(|row| row.name.as_str() == "d"));
    until(
        "with its reason",
        || matches!(house.state("d"), ModelState::Unavailable(reason) if reason.contains("has no version")),
    );
    house.put("d/1/model.onnx", &scaler(5.0));
    until("it is served", || house.ask("d", None) == Ok(5.0));
    assert!(house.catalog.ready());
    drop(poller);
}

#[test]
fn what_changes_all_the_time_is_left_alone_and_the_rest_is_followed() {
    let house = House::new(&[("a.onnx", &scaler(1.0)), ("b.onnx", &scaler(2.0))]);
    let poller = house.catalog.follow(Poll::new(&house.scan()), Duration::from_millis(10)).unwrap();
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for offset in (0..).take_while(|_| going.load(SeqCst)) {
                house.put("a.onnx", &scaler((100 + offset % 100) as f32));
            }
        });
        house.put("b.onnx", &scaler(3.0));
        until("the quiet one is served", || house.ask("b", None) == Ok(3.0));
        assert_eq!(house.ask("a", None), Ok(1.0));
        house.put("b.onnx", &scaler(4.0));
        until("and again", || house.ask("b", None) == Ok(4.0));
        going.store(false, SeqCst);
    });
    until("the last state is served", || house.ask("a", None).is_ok_and(|offset| offset >= 100.0));
    assert_eq!(house.catalog.residents().failed_loads.get(), 0);
    drop(poller);
}

/// With memory for so many models of one [`SCALER`] each.
fn room_for(models: u64) -> Settings {
    let of_one = (512 << 10) + SCALER.len() as u64;
    Settings { memory: Some(models * of_one), ..Settings::new(defaults()) }
}

fn cramped(files: &[(&str, &[u8])], models: u64) -> House {
    House::with(files, room_for(models), Arc::new(RtenBackend::new(String::new())))
}

#[test]
fn what_served_before_a_failed_reload_comes_back_after_it_was_sent_out_of_memory() {
    let files: [(&str, &[u8]); 3] =
        [("m/1/model.onnx", &scaler(1.0)), ("a.onnx", &scaler(5.0)), ("b.onnx", &scaler(6.0))];
    let house = cramped(&files, 2);
    let others = || assert_eq!((house.ask("a", None), house.ask("b", None)), (Ok(5.0), Ok(6.0)));
    assert_eq!(house.ask("m", None), Ok(1.0));
    house.put("m/2/model.onnx", b"garbage");
    assert!(house.load("m").is_err());
    for _ in 0..2 {
        assert_eq!(house.ask("m", None), Ok(1.0));
        others();
    }
    // A reload that fails while it is asleep changes nothing either.
    assert!(house.load("m").is_err());
    assert_eq!((house.ask("m", None), house.ask("m", Some(1))), (Ok(1.0), Ok(1.0)));
    house.put("m/2/model.onnx", &scaler(2.0));
    house.load("m").unwrap();
    others();
    assert_eq!((house.ask("m", None), house.ask("m", Some(1)).is_err()), (Ok(2.0), true));
}

#[test]
fn what_serves_although_its_own_file_was_broken_is_not_sent_out_of_memory() {
    let files: [(&str, &[u8]); 3] =
        [("m.onnx", &scaler(1.0)), ("a.onnx", &scaler(5.0)), ("b.onnx", &scaler(6.0))];
    let house = cramped(&files, 2);
    assert_eq!(house.ask("m", None), Ok(1.0));
    house.put("m.onnx", b"garbage");
    assert!(house.load("m").is_err());
    for _ in 0..2 {
        assert_eq!((house.ask("a", None), house.ask("b", None)), (Ok(5.0), Ok(6.0)));
    }
    assert_eq!(house.ask("m", None), Ok(1.0));
    house.put("m.onnx", &scaler(2.0));
    house.load("m").unwrap();
    assert_eq!(
        (house.ask("a", None), house.ask("b", None), house.ask("m", None)),
        (Ok(5.0), Ok(6.0), Ok(2.0))
    );
}

#[test]
fn a_version_that_cannot_be_loaded_does_not_keep_the_others_out_of_memory() {
    let files: [(&str, &[u8]); 4] = [
        ("m/1/model.onnx", b"garbage"),
        ("m/2/model.onnx", &scaler(2.0)),
        ("m/config.pbtxt", b"version_policy { all {} }"),
        ("other.onnx", &scaler(5.0)),
    ];
    let house = cramped(&files, 1);
    assert_eq!(house.ask("m", None), Ok(2.0));
    assert_eq!(house.ask("m", Some(1)), Err(InferError::VersionNotReady { model: "m".into(), version: 1 }));
    let failed = house.catalog.residents().failed_loads.get();
    assert_eq!((house.ask("other", None), house.ask("m", Some(2))), (Ok(5.0), Ok(2.0)));
    assert_eq!(house.ask("m", Some(1)), Err(InferError::VersionNotReady { model: "m".into(), version: 1 }));
    assert_eq!(
        house.catalog.residents().failed_loads.get(),
        failed,
        "what is known to be broken is not tried again"
    );
}

#[test]
fn what_could_not_be_read_once_is_tried_again_and_what_is_broken_is_not() {
    let house = cramped(&[("m.onnx", &scaler(1.0)), ("broken.onnx", b"garbage")], 2);
    fs::remove_file(house.folder.path().join("m.onnx")).unwrap();
    for model in ["m", "broken"] {
        let error = house.ask(model, None).unwrap_err();
        assert!(matches!(error, InferError::NoVersions { .. }), "{error:?}");
        assert!(matches!(house.state(model), ModelState::Unavailable(_)), "{model}");
    }
    house.put("m.onnx", &scaler(1.0));
    until("it is read", || house.ask("m", None) == Ok(1.0));
    let failed = house.catalog.residents().failed_loads.get();
    (0..3).for_each(|_| assert!(house.ask("broken", None).is_err()));
    assert_eq!(house.catalog.residents().failed_loads.get(), failed);
}

#[test]
fn callers_of_inference_see_no_path_of_the_server_and_may_try_again() {
    let files: [(&str, &[u8]); 2] = [("broken.onnx", b"garbage"), ("bare/config.pbtxt", b"")];
    for settings in [Settings::new(defaults()), room_for(1)] {
        let house = House::with(&files, settings, Arc::new(RtenBackend::new(String::new())));
        let folder = house.folder.path().canonicalize().unwrap().display().to_string();
        for (model, says) in
            [("broken", "the file is damaged or not ONNX"), ("bare", "its folder or its configuration")]
        {
            let error = house.ask(model, None).unwrap_err();
            let said = format!("{error}; {}", error.hint().unwrap());
            assert!(said.contains(says) && !said.contains(&folder), "{said}");
            assert_eq!(error.code(), Code::Unavailable);
            let ModelState::Unavailable(reason) = house.state(model) else { panic!("{model}") };
            assert!(reason.contains(&folder), "{reason}");
            let error = house.load(model).unwrap_err();
            assert!(error.code() == Code::InvalidArgument && error.to_string().contains(&folder), "{error}");
        }
    }
}

#[test]
fn an_order_that_failed_is_shown_also_of_a_model_that_is_not_in_memory() {
    let house = cramped(&[("m/1/model.onnx", &scaler(1.0))], 1);
    house.put("m/config.pbtxt", b"garbage");
    assert!(house.load("m").is_err());
    let ModelState::Ready { note } = house.state("m") else { panic!() };
    assert!(note.contains("the last reload failed: ") && note.contains("config.pbtxt"), "{note}");
    assert_eq!(house.ask("m", None), Ok(1.0));
}

/// A configuration that names a file of labels.
const LABELLED: &str = r#"max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" }"#;

#[test]
fn a_load_sees_every_file_that_the_model_was_made_of() {
    let warmup = r#" model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "w" } } }"#;
    let config = format!("{LABELLED}{warmup}");
    let model = scaler(1.0);
    let files: [(&str, &[u8]); 4] = [
        ("m/1/model.onnx", &model),
        ("m/config.pbtxt", config.as_bytes()),
        ("m/labels.txt", b"cat"),
        ("m/warmup/w", &[0; 16]),
    ];
    let house = House::new(&files);
    let label = || {
        let upstream = house.catalog.route(&permit("m", Verb::Infer), VersionRef::Newest).unwrap();
        upstream.labels("y")[0].to_string()
    };
    assert_eq!(label(), "cat");
    house.put("m/labels.txt", b"dog");
    house.load("m").unwrap();
    assert_eq!(label(), "dog");
    house.put("m/warmup/w", &[0; 15]);
    let error = house.load("m").unwrap_err().to_string();
    assert!(error.contains("has 15 bytes, and 16 are wanted"), "{error}");
    house.put("m/warmup/w", &[1; 16]);
    house.load("m").unwrap();
    // A file that was not there is one that was read too.
    house.put("m/1/SHA256SUMS", format!("{}  model.onnx\n", "0".repeat(64)).as_bytes());
    let error = house.load("m").unwrap_err().to_string();
    assert!(error.contains("model.onnx has SHA-256"), "{error}");
    assert_eq!((house.ask("m", None), label().as_str()), (Ok(1.0), "dog"));
}

#[test]
fn a_changed_file_of_labels_is_polled_also_of_a_model_that_could_not_be_loaded() {
    let house = House::new(&[("m/1/model.onnx", &scaler(1.0)), ("m/config.pbtxt", LABELLED.as_bytes())]);
    assert!(house.ask("m", None).is_err());
    let poller = house.catalog.follow(Poll::new(&house.scan()), Duration::from_millis(10)).unwrap();
    let label = || {
        house
            .catalog
            .route(&permit("m", Verb::Infer), VersionRef::Newest)
            .ok()
            .map(|up| up.labels("y")[0].to_string())
    };
    for text in ["cat", "dog"] {
        house.put("m/labels.txt", text.as_bytes());
        until("it is seen", || label().as_deref() == Some(text));
    }
    drop(poller);
}

/// A pipe with nobody at its other end: whoever opens it as a file waits for ever.
fn pipe(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_and_holds_nobody() {
    let house = House::new(&[("m/1/model.onnx", &scaler(1.0))]);
    let at = |path: &str| house.folder.path().join(path);
    pipe(&at("model/1/model.onnx"));
    house.put("config/1/model.onnx", &scaler(1.0));
    pipe(&at("config/config.pbtxt"));
    house.put("sums/1/model.onnx", &scaler(1.0));
    pipe(&at("sums/1/SHA256SUMS"));
    house.put("labels/1/model.onnx", &scaler(1.0));
    house.put("labels/config.pbtxt", LABELLED.as_bytes());
    pipe(&at("labels/labels.txt"));
    pipe(&at("stray.pt"));
    assert_eq!(house.scan().faults.len(), 1, "that of config");
    for model in ["model", "config", "sums", "labels"] {
        let error = house.load(model).unwrap_err().to_string();
        assert!(error.contains("it is not a regular file"), "{model}: {error}");
    }
    assert_eq!(house.ask("m", None), Ok(1.0));
}

#[test]
fn a_file_that_is_larger_than_all_memory_for_models_is_refused_unread() {
    let settings = Settings { memory: Some(1 << 20), ..Settings::new(defaults()) };
    let backend = Arc::new(RtenBackend::new(String::new()));
    let house = House::with(&[("m.onnx", &vec![7; 2 << 20])], settings, backend);
    let hint = house.ask("m", None).unwrap_err().hint().unwrap();
    assert!(hint.contains("--model-memory-budget"), "and not that it is damaged: {hint}");
}

#[test]
fn orders_after_the_end_of_loading_are_told_that_the_server_ends() {
    let house = cramped(&[("m.onnx", &scaler(1.0))], 1);
    house.catalog.stop_loading();
    assert_eq!(house.load("m"), Err(InferError::Draining));
    assert_eq!(house.ask("m", None), Err(InferError::Draining));
}

#[test]
fn a_folder_that_cannot_be_a_model_is_listed_and_the_others_are_served() {
    let house = House::new(&[("m.onnx", &scaler(1.0)), ("a\\b/1/model.onnx", &scaler(2.0))]);
    assert_eq!(house.ask("m", None), Ok(1.0));
    let ModelState::Unavailable(reason) = house.state("a\u{fffd}b") else { panic!() };
    assert!(reason.contains(r"'a\b' cannot be a model's name"), "{reason}");
}

/// Panics over ones.
struct Panicking(RtenBackend);

struct PanickingModel(Arc<dyn Model>);

struct PanickingStream(Box<dyn Stream>);

impl Backend for Panicking {
    fn report(&self) -> EngineReport {
        self.0.report()
    }
    fn load(
        &self,
        path: &Path,
        graph: &onnx::Model,
        options: LoadOptions,
    ) -> Result<Arc<dyn Model>, LoadError> {
        Ok(Arc::new(PanickingModel(self.0.load(path, graph, options)?)))
    }
}

impl Model for PanickingModel {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }
    fn shared_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        Ok(Box::new(PanickingStream(self.0.shared_stream()?)))
    }
    fn own_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        Ok(Box::new(PanickingStream(self.0.own_stream()?)))
    }
}

impl Stream for PanickingStream {
    fn run(&mut self, batch: &[BatchInput<'_>]) -> Result<Duration, RunError> {
        assert!(batch.iter().flat_map(|input| input.parts).all(|part| part[0] != 1), "asked to panic");
        self.0.run(batch)
    }
    fn output(&self, index: usize) -> OutputView<'_> {
        self.0.output(index)
    }
}

#[test]
fn a_model_that_panics_after_its_file_was_replaced_is_taken_out_and_serves_neither_file_by_halves() {
    let settings = Settings::new(Defaults { inline_below: Duration::from_secs(3600), ..defaults() });
    let backend = Panicking(RtenBackend::new(String::new()));
    let house = House::with(&[("m.onnx", &scaler(1.0))], settings, Arc::new(backend));
    let panic = || assert!(matches!(house.ask_with("m", "", &[1; 16]), Err(InferError::Internal(_))));
    panic();
    assert_eq!(house.ask("m", None), Ok(1.0), "with a new stream of the same file");
    house.put("m.onnx", &scaler(2.0));
    panic();
    let error = house.ask("m", None).unwrap_err();
    assert!(matches!(error, InferError::NoVersions { .. }), "{error:?}");
    assert!(matches!(house.state("m"), ModelState::Unavailable(reason) if reason.contains("load it again")));
    house.load("m").unwrap();
    assert_eq!(house.ask("m", None), Ok(2.0));
}
