//! Promise 2 of the design: an answer is the engine's own, bit for bit, alone and in company.
//!
//! Two kinds of random models, made by models/make_random_models.py with onnxruntime-python's answers:
//! - 200 of known nature, of every datatype and rank, are served. Each answers alone, then in company: once on the
//!   submitting threads and once through instance threads, while every run is recorded and asked of the engine again;
//! - graphs made to deceive the analysis that decides about company. Where it says yes, rows alone must be rows in
//!   company.
use crate::engine::{self, Recorder, Run, Waiting};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};
use xebec_core::{Datatype, resource::Objective};
use xebec_e2e::{generate::root, server::clients_python};
use xebec_engine::{
    Observer, TurnEnd,
    backend::BatchInput,
    catalog::{Catalog, Settings},
    onnx::{self, Batchability},
    repository::{self, complete::Defaults},
};

/// With it, the graphs hold every fault that the analysis has had: constants that broadcast, round or wrap, a letter of
/// one element, a squeeze of two, a crop for a scale, names for equal extents, a list for a mask, dice in a loop.
const SEED: u32 = 12;
const MODELS: usize = 200;
const HOSTILE: usize = 1200;
const OPERATORS: usize = 25;
const THREADS: usize = 4;
const INSTANCES: usize = 2;
/// Each alone makes a model that may not be batched.
const MIXES: [&str; 4] = ["DynamicQuantizeLinear", "Softmax", "ReduceSum", "If"];

#[derive(Debug, Deserialize)]
struct Manifest {
    seed: u32,
    models: Vec<Model>,
    configured: Vec<Model>,
    hostile: Vec<Hostile>,
}

#[derive(Debug, Deserialize)]
struct Model {
    name: String,
    file: PathBuf,
    datatype: String,
    rank: usize,
    batch: bool,
    /// The operator that mixes its rows.
    mixes: Option<String>,
    operators: Vec<String>,
    requests: Vec<Request>,
}

impl Model {
    fn may_share_runs(&self) -> bool {
        self.batch && self.mixes.is_none()
    }
}

#[derive(Debug, Deserialize)]
struct Request {
    x: Place,
    y: Place,
}

/// A graph of which nobody knows whether it mixes rows.
#[derive(Debug, Deserialize)]
struct Hostile {
    file: PathBuf,
    steps: Vec<String>,
    cases: Vec<Case>,
}

/// Outputs for the same rows.
#[derive(Debug, Deserialize)]
struct Case {
    together: Vec<Place>,
    alone: Vec<Vec<Place>>,
}

#[derive(Debug, Deserialize)]
struct Place {
    shape: Vec<i64>,
    offset: usize,
    length: usize,
}

impl Place {
    fn of<'a>(&self, tensors: &'a [u8]) -> &'a [u8] {
        &tensors[self.offset..self.offset + self.length]
    }
}

struct House {
    manifest: Manifest,
    tensors: Vec<u8>,
    folder: tempfile::TempDir,
}

impl House {
    #[expect(clippy::print_stdout, reason = "only a test that fails shows what it prints")]
    fn make(models: usize, hostile: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new(clients_python().unwrap())
            .arg(root().join("models/make_random_models.py"))
            .arg(folder.path())
            .args(["--count", &models.to_string(), "--hostile", &hostile.to_string()])
            .args(["--seed", &SEED.to_string()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let manifest = std::fs::read(folder.path().join("manifest.json")).unwrap();
        let tensors = std::fs::read(folder.path().join("tensors.bin")).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        println!("the models are those of seed {}", manifest.seed);
        Self { manifest, tensors, folder }
    }

    fn served(&self) -> impl Iterator<Item = &Model> {
        self.manifest.models.iter().chain(&self.manifest.configured)
    }

    fn file(&self, model: &Model) -> PathBuf {
        self.folder.path().join("repository").join(&model.file)
    }

    fn load(&self, door: &Arc<Door>, way: Way) -> Catalog {
        let defaults = Defaults {
            // More than the requests of a model have together, so that a run could take them all.
            max_batch_size: 256,
            max_queue: 1024,
            cores: 2,
            instances: (way == Way::Queued).then_some(INSTANCES as u32),
            objective: Objective::Throughput,
            inline_below: if way == Way::Inline { Duration::MAX } else { Duration::ZERO },
        };
        let observer = Some(Arc::clone(door) as Arc<dyn Observer>);
        let catalog = engine::new_catalog(Settings { observer, ..Settings::new(defaults) });
        self.filled(catalog)
    }

    /// With every model in it.
    fn filled(&self, catalog: Catalog) -> Catalog {
        let scan = repository::scan(&[self.folder.path().join("repository")]).unwrap();
        let failures = catalog.load(scan, &|_| true, &|_| ());
        assert!(failures.is_empty(), "{failures:?}");
        catalog
    }

    fn send(&self, catalog: &Catalog, model: &Model, request: usize, id: String) -> Waiting {
        let x = &model.requests[request].x;
        let datatype: Datatype = model.datatype.parse().unwrap();
        engine::submit(catalog, &model.name, id, datatype, &x.shape, x.of(&self.tensors))
    }
}

/// Where a model's requests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// On the thread that submits them.
    Inline,
    /// On the model's own threads.
    Queued,
}

/// Writes every run down, and holds whoever ran it for as long as it is shut: then an instance is certainly busy.
#[derive(Default)]
struct Door {
    recorder: Recorder,
    state: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    shut: bool,
    inside: usize,
}

impl Door {
    fn set(&self, shut: bool) {
        self.state.lock().unwrap().shut = shut;
        self.changed.notify_all();
    }

    fn wait_for(&self, inside: usize) {
        let state = self.state.lock().unwrap();
        let limit = Duration::from_secs(60);
        let (_state, waited) =
            self.changed.wait_timeout_while(state, limit, |state| state.inside < inside).unwrap();
        assert!(!waited.timed_out(), "{inside} instances are not busy after {limit:?}");
    }
}

impl Observer for Door {
    fn ran(&self, batch: &[BatchInput<'_>], ids: &[&str]) {
        self.recorder.ran(batch, ids);
        let mut state = self.state.lock().unwrap();
        state.inside += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.shut).unwrap();
        state.inside -= 1;
    }
}

/// Every bucket must have something in it, else the test shows less than it says.
fn buckets(models: &[Model]) {
    assert_eq!(models.len(), MODELS);
    let operators: BTreeSet<&str> =
        models.iter().flat_map(|model| &model.operators).map(String::as_str).collect();
    assert!(operators.len() >= OPERATORS, "only {} operators: {operators:?}", operators.len());
    for datatype in Datatype::ALL {
        let of_it = || models.iter().filter(|model| model.datatype == datatype.as_str());
        for batch in [false, true] {
            assert!(of_it().any(|model| model.batch == batch), "no model of {datatype} with batch {batch}");
        }
        let operators: BTreeSet<&str> =
            of_it().flat_map(|model| &model.operators).map(String::as_str).collect();
        assert!(operators.len() > 5, "{datatype} has only {operators:?}");
    }
    for (rank, batch) in (0..=5).flat_map(|rank| [(rank, false), (rank, true)]) {
        let there = models.iter().any(|model| model.rank == rank && model.batch == batch);
        assert_eq!(there, rank > 0 || !batch, "rank {rank} with batch {batch}");
    }
    for operator in MIXES {
        let mixing = models.iter().filter(|model| model.mixes.as_deref() == Some(operator));
        assert!(mixing.count() >= 3, "too few models in which {operator} mixes");
    }
    assert!(models.iter().filter(|model| model.may_share_runs()).count() >= MODELS / 2);
}

/// Reals within 1e-5 of each other, relative to the larger. One near 0 may be a sum of terms near 1 that cancel, and
/// each is rounded to 6e-8: however small the sum is, so much of it is noise, and 1e-6 leaves room for a dozen terms.
fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= (1e-5 * a.abs().max(b.abs())).max(1e-6)
}

/// Equal but for rounding, in the two types whose operators round in another order for another number of rows.
fn near(datatype: &str, got: &[u8], want: &[u8]) -> bool {
    let single = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
    let double = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
    let all = |width: usize, read: &dyn Fn(&[u8]) -> f64| {
        got.len() == want.len()
            && got.chunks(width).zip(want.chunks(width)).all(|(a, b)| close(read(a), read(b)))
    };
    match datatype {
        "FP32" => all(4, &single),
        "FP64" => all(8, &double),
        _ => got == want,
    }
}

fn alone(house: &House) {
    let catalog = house.filled(engine::catalog(None, Duration::from_micros(100)));
    for model in house.served() {
        for (index, request) in model.requests.iter().enumerate() {
            let waiting = house.send(&catalog, model, index, String::new());
            xebec_core::port::Turn::flush(&TurnEnd);
            let answer = waiting.answer().unwrap_or_else(|error| panic!("{}: {error}", model.name));
            assert_eq!(answer.shape, request.y.shape, "{}", model.name);
            assert!(
                answer.data == request.y.of(&house.tensors),
                "{} request {index} is not the engine's bit for bit",
                model.name
            );
        }
    }
}

/// Every request of a model from several threads at once; what answers them is held until all have been sent.
fn load_of(
    house: &House,
    catalog: &Catalog,
    door: &Door,
    model: &Model,
    way: Way,
) -> Vec<(String, usize, Waiting)> {
    let mut sent = Vec::new();
    if way == Way::Queued {
        door.set(true);
        for instance in 1..=INSTANCES {
            let id = format!("{}/first/{instance}", model.name);
            sent.push((id.clone(), 0, house.send(catalog, model, 0, id)));
            door.wait_for(instance);
        }
    }
    let send_all = |thread: usize| -> Vec<(String, usize, Waiting)> {
        let send = |index| {
            let id = format!("{}/{thread}/{index}", model.name);
            (id.clone(), index, house.send(catalog, model, index, id))
        };
        let sent = (0..model.requests.len()).map(send).collect();
        xebec_core::port::Turn::flush(&TurnEnd);
        sent
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || send_all(thread))).collect();
        sent.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    door.set(false);
    sent
}

fn in_company(house: &House, way: Way) {
    let door = Arc::new(Door::default());
    let catalog = house.load(&door, way);
    let mut company = BTreeSet::new();
    for model in house.served() {
        let mut answers = BTreeMap::new();
        for (id, index, waiting) in load_of(house, &catalog, &door, model, way) {
            let answer = waiting.answer().unwrap_or_else(|error| panic!("{way:?} {id}: {error}"));
            let want = model.requests[index].y.of(&house.tensors);
            assert!(near(&model.datatype, &answer.data, want), "{way:?} {id} is not near the answer alone");
            answers.insert(id, answer.data);
        }
        let runs = door.recorder.take();
        if runs.len() < answers.len() {
            assert!(model.may_share_runs(), "{way:?}: {} mixes rows and was batched", model.name);
            company.insert(model.name.as_str());
        }
        runs.iter().for_each(|run| same_as_the_engine(house, model, run, &answers));
    }
    let could: BTreeSet<_> =
        house.served().filter(|model| model.may_share_runs()).map(|model| model.name.as_str()).collect();
    let lonely: Vec<_> = could.difference(&company).collect();
    // How many rows an inline run may take is measured when a model is loaded, and a pause of the machine at that moment
    // leaves one; what a held instance finds when it is let go depends on no clock.
    let excused = if way == Way::Inline { could.len() / 10 } else { 0 };
    assert!(lonely.len() <= excused, "{way:?}: could share runs and did not: {lonely:?}");
}

fn same_as_the_engine(house: &House, model: &Model, run: &Run, answers: &BTreeMap<String, Vec<u8>>) {
    let output = engine::direct(&house.file(model), run);
    let together: Vec<u8> = run.ids.iter().flat_map(|id| answers[id].clone()).collect();
    assert!(together == output, "the answers of {:?} are not the engine's to the same batch", run.ids);
}

#[test]
fn an_answer_is_the_engines_own_alone_and_in_company() {
    let house = House::make(MODELS, 0);
    buckets(&house.manifest.models);
    assert_eq!(
        house.manifest.configured.len(),
        MIXES.len(),
        "a configuration asks for batches of each mixing"
    );
    alone(&house);
    in_company(&house, Way::Inline);
    in_company(&house, Way::Queued);
}

/// Why rows alone are not the rows of a run of all of them.
fn difference(case: &Case, tensors: &[u8]) -> Option<String> {
    let rows = case.alone.len();
    for (output, together) in case.together.iter().enumerate() {
        let parts: Vec<&Place> = case.alone.iter().map(|row| &row[output]).collect();
        if together.shape.first() != Some(&(rows as i64)) {
            return Some(format!("output {output} of {rows} rows has shape {:?}", together.shape));
        }
        let alone: Vec<u8> = parts.iter().flat_map(|part| part.of(tensors)).copied().collect();
        let same_shape =
            |part: &&Place| part.shape.first() == Some(&1) && part.shape[1..] == together.shape[1..];
        if !parts.iter().all(same_shape) || !near("FP32", &alone, together.of(tensors)) {
            return Some(format!("output {output} of {rows} rows differs from its rows alone"));
        }
    }
    None
}

#[test]
fn a_graph_that_is_judged_batchable_answers_rows_alone_as_in_company() {
    let house = House::make(0, HOSTILE);
    let mut judged: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let (mut batchable, mut mixing, mut wrong, mut missed) = (0, 0, Vec::new(), Vec::new());
    for graph in &house.manifest.hostile {
        let bytes = std::fs::read(house.folder.path().join("hostile").join(&graph.file)).unwrap();
        let verdict = onnx::Model::parse(bytes.into()).unwrap().batchability();
        let difference = graph.cases.iter().find_map(|case| difference(case, &house.tensors));
        let yes = verdict == Batchability::Yes;
        batchable += usize::from(yes);
        mixing += usize::from(difference.is_some());
        match (verdict, difference) {
            (Batchability::Yes, Some(difference)) => wrong.push((graph, difference)),
            (Batchability::No { reason }, None) => missed.push((&graph.file, &graph.steps, reason)),
            _ => (),
        }
        for step in &graph.steps {
            judged.entry(step).or_default()[usize::from(yes)] += 1;
        }
    }
    println!("{batchable} batchable, {mixing} mixing; per step [no, yes]: {judged:?}");
    missed.iter().for_each(|graph| println!("not batchable, though rows are kept apart: {graph:?}"));
    assert!(wrong.is_empty(), "seed {SEED}: judged batchable, and are not: {wrong:#?}");
    assert_eq!(house.manifest.hostile.len(), HOSTILE);
    assert!(
        judged.values().all(|verdicts| verdicts.iter().sum::<usize>() >= 20),
        "too few of a step: {judged:?}"
    );
    // A verdict that is always no, or graphs that never mix, would show nothing.
    assert!(batchable >= HOSTILE / 5, "only {batchable} are judged batchable");
    assert!(mixing >= HOSTILE / 5, "only {mixing} mix rows");
    // Of random numbers, none may be.
    let silent: Vec<_> =
        judged.iter().filter(|(step, [_, yes])| (*yes == 0) != (**step == "noise")).collect();
    assert!(silent.is_empty(), "no graph with these is judged batchable, or one with noise is: {silent:?}");
}
