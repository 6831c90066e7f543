//! Promise 2 of the design: an answer is the engine's own, bit for bit, alone and in company.
//!
//! 200 random models, made by models/make_random_models.py with onnxruntime-python's answers to each request alone.
//! Every model answers alone, then under concurrent load, once on the submitting threads and once through instance
//! threads, while every run is recorded and asked of the engine again.
use crate::engine::{self, Recorder, Waiting};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};
use xebec_core::Datatype;
use xebec_e2e::{generate::root, server::clients_python};
use xebec_engine::{TurnEnd, catalog::Catalog, repository};

const MODELS: usize = 200;
const OPERATORS: usize = 25;
const THREADS: usize = 4;

#[derive(Debug, Deserialize)]
struct Model {
    name: String,
    datatype: String,
    rank: usize,
    batch: bool,
    mixes: bool,
    operators: Vec<String>,
    requests: Vec<Request>,
}

#[derive(Debug, Deserialize)]
struct Request {
    x: Place,
    y: Place,
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
    models: Vec<Model>,
    tensors: Vec<u8>,
    folder: tempfile::TempDir,
}

impl House {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new(clients_python().unwrap())
            .arg(root().join("models/make_random_models.py"))
            .arg(folder.path())
            .args(["--count", &MODELS.to_string()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let manifest = std::fs::read(folder.path().join("manifest.json")).unwrap();
        let tensors = std::fs::read(folder.path().join("tensors.bin")).unwrap();
        Self { models: serde_json::from_slice(&manifest).unwrap(), tensors, folder }
    }

    fn load(&self, recorder: &Arc<Recorder>, inline_below: Duration) -> Catalog {
        let catalog = engine::catalog(Some(Arc::clone(recorder)), inline_below);
        let scan = repository::scan(&[self.folder.path().join("repository")]).unwrap();
        let failures = catalog.load(scan, &|_, _| ());
        assert!(failures.is_empty(), "{failures:?}");
        catalog
    }

    fn send(&self, catalog: &Catalog, model: &Model, request: usize, id: String) -> Waiting {
        let x = &model.requests[request].x;
        let datatype: Datatype = model.datatype.parse().unwrap();
        engine::submit(catalog, &model.name, id, datatype, &x.shape, x.of(&self.tensors))
    }
}

/// Every bucket must have something in it, else the test shows less than it says.
fn buckets(models: &[Model]) {
    assert_eq!(models.len(), MODELS);
    let operators: BTreeSet<&str> =
        models.iter().flat_map(|model| &model.operators).map(String::as_str).collect();
    assert!(operators.len() >= OPERATORS, "only {} operators: {operators:?}", operators.len());
    for datatype in Datatype::ALL {
        assert!(models.iter().any(|model| model.datatype == datatype.as_str()), "no model of {datatype}");
    }
    for rank in 0..=5 {
        assert!(models.iter().any(|model| model.rank == rank), "no model of rank {rank}");
    }
    for (batch, mixes) in [(false, false), (true, false), (true, true)] {
        assert!(
            models.iter().any(|model| model.batch == batch && model.mixes == mixes),
            "batch {batch}, mixes {mixes}"
        );
    }
    for operator in ["DynamicQuantizeLinear", "Softmax", "ReduceSum", "If"] {
        assert!(
            models.iter().any(|model| model.mixes && model.operators.iter().any(|op| op == operator)),
            "no mixing {operator}"
        );
    }
}

/// Equal within 1e-5 relative, elements of a real type; equal otherwise.
fn near(datatype: &str, got: &[u8], want: &[u8]) -> bool {
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-5 * a.abs().max(b.abs()).max(1e-1)
    };
    let pairs =
        |width: usize| got.chunks(width).zip(want.chunks(width)).map(|(a, b)| (a.to_vec(), b.to_vec()));
    let single = |bytes: Vec<u8>| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
    let double = |bytes: Vec<u8>| f64::from_le_bytes(bytes.try_into().unwrap());
    match datatype {
        "FP32" => got.len() == want.len() && pairs(4).all(|(a, b)| close(single(a), single(b))),
        "FP64" => got.len() == want.len() && pairs(8).all(|(a, b)| close(double(a), double(b))),
        _ => got == want,
    }
}

fn alone(house: &House) {
    let catalog = house.load(&Arc::default(), Duration::from_micros(100));
    for model in &house.models {
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

fn in_company(house: &House, inline_below: Duration) {
    let recorder = Arc::new(Recorder::default());
    let catalog = house.load(&recorder, inline_below);
    let (mut requests, mut answers) = (0, BTreeMap::new());
    for model in &house.models {
        let sent: Vec<(String, usize, Waiting)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let catalog = &catalog;
                    scope.spawn(move || {
                        let send = |index| {
                            let id = format!("{}/{thread}/{index}", model.name);
                            (id.clone(), index, house.send(catalog, model, index, id))
                        };
                        let sent: Vec<_> = (0..model.requests.len()).map(send).collect();
                        xebec_core::port::Turn::flush(&TurnEnd);
                        sent
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        for (id, index, waiting) in sent {
            let answer = waiting.answer().unwrap_or_else(|error| panic!("{id}: {error}"));
            let want = house.models.iter().find(|other| other.name == model.name).unwrap().requests[index]
                .y
                .of(&house.tensors);
            assert!(near(&model.datatype, &answer.data, want), "{id} is not near the answer alone");
            answers.insert(id, answer.data);
            requests += 1;
        }
    }
    let runs = recorder.take();
    assert!(runs.len() < requests, "{} runs for {requests} requests", runs.len());
    let mut company = BTreeSet::new();
    for run in &runs {
        let name = run.ids[0].split('/').next().unwrap();
        let model = house.models.iter().find(|model| model.name == name).unwrap();
        if run.ids.len() > 1 {
            assert!(model.batch && !model.mixes, "{name} mixes rows and was batched");
            company.insert(name);
        }
        let output =
            engine::direct(&house.folder.path().join("repository").join(format!("{name}.onnx")), run);
        let together: Vec<u8> = run.ids.iter().flat_map(|id| answers[id].clone()).collect();
        assert!(
            together == output,
            "{name}: the answers of {:?} are not the engine's to the same batch",
            run.ids
        );
    }
    let could = house.models.iter().filter(|model| model.batch && !model.mixes).count();
    assert_eq!(company.len(), could, "models that could share runs and did not");
}

#[test]
fn an_answer_is_the_engines_own_alone_and_in_company() {
    let house = House::make();
    buckets(&house.models);
    alone(&house);
    in_company(&house, Duration::from_micros(100));
    in_company(&house, Duration::ZERO);
    assert!(Path::new(house.folder.path()).is_dir());
}
