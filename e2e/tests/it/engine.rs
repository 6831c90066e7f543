//! The engine crate in this process, with ONNX Runtime, and a recorder of its runs.
use bytes::Bytes;
use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};
use xebec_core::{
    Datatype, Gate, InferError, InferRequest, InferResponse, ModelName, Principal, TenantId, Tensor, Verb,
    permit::{Admit, Ask, Decision},
    port::{Answer, Router},
    resource::Objective,
};
use xebec_e2e::server::engine_library;
use xebec_engine::{
    Observer,
    backend::{self, Backend, BatchInput, LoadOptions},
    catalog::{Catalog, Settings, Source},
    onnx,
    repository::complete::Defaults,
};

/// One recorded run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) ids: Vec<String>,
    /// Shape and bytes of each input.
    pub(crate) inputs: Vec<(Vec<i64>, Vec<u8>)>,
}

/// Writes every run down.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Run>>);

impl Recorder {
    pub(crate) fn take(&self) -> Vec<Run> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Observer for Recorder {
    fn ran(&self, batch: &[BatchInput<'_>], ids: &[&str]) {
        let inputs = batch.iter().map(|input| (input.shape.to_vec(), input.parts.concat())).collect();
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        self.0.lock().unwrap().push(Run { ids, inputs });
    }
}

/// ONNX Runtime can be loaded once in a process.
pub(crate) fn backend() -> Arc<dyn Backend> {
    static BACKEND: OnceLock<Arc<dyn Backend>> = OnceLock::new();
    let choose = || {
        let search = backend::library::Search { flag: Some(engine_library().unwrap()), ..Default::default() };
        backend::choose(&search).unwrap()
    };
    Arc::clone(BACKEND.get_or_init(choose))
}

pub(crate) fn catalog(observer: Option<Arc<Recorder>>, inline_below: Duration) -> Catalog {
    let defaults = Defaults {
        max_batch_size: 64,
        max_queue: 1024,
        cores: 2,
        instances: None,
        objective: Objective::Throughput,
        inline_below,
    };
    let observer = observer.map(|observer| observer as Arc<dyn Observer>);
    new_catalog(Settings { observer, ..Settings::new(defaults) })
}

/// A catalog without models.
pub(crate) fn new_catalog(settings: Settings) -> Catalog {
    Catalog::new(backend(), Source::Given(Vec::new()), settings).unwrap()
}

struct Slot(SyncSender<Result<InferResponse, InferError>>);

impl Answer for Slot {
    fn is_gone(&self) -> bool {
        false
    }

    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        self.0.send(outcome).unwrap();
    }
}

/// An answer that is on its way.
pub(crate) struct Waiting(Receiver<Result<InferResponse, InferError>>);

pub(crate) struct Given {
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Vec<u8>,
}

impl Waiting {
    /// All outputs.
    pub(crate) fn outputs(&self) -> Result<Vec<Tensor>, String> {
        let response = self.0.recv().map_err(|_| "no answer".to_owned())?;
        response.map(|response| response.outputs).map_err(|error| error.to_string())
    }

    /// The first output.
    pub(crate) fn answer(&self) -> Result<Given, String> {
        let response =
            self.0.recv().map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        let output = response.outputs.into_iter().next().ok_or("no output")?;
        Ok(Given { shape: output.shape, data: output.data.to_vec() })
    }
}

struct Everybody;

impl Admit for Everybody {
    fn decide(&self, _: &Ask<'_>) -> Decision {
        Decision::Allow(TenantId::default_tenant())
    }
}

pub(crate) fn submit(
    catalog: &Catalog,
    model: &str,
    id: String,
    datatype: Datatype,
    shape: &[i64],
    data: &[u8],
) -> Waiting {
    let data = Bytes::copy_from_slice(data);
    submit_all(catalog, model, id, vec![Tensor { name: "x".into(), datatype, shape: shape.to_vec(), data }])
}

/// A request of all its inputs.
pub(crate) fn submit_all(catalog: &Catalog, model: &str, id: String, inputs: Vec<Tensor>) -> Waiting {
    let name = ModelName::parse(model).unwrap();
    let who = Principal::Anonymous { peer: ([127, 0, 0, 1], 1).into() };
    let permit = Gate::new(Arc::new(Everybody)).admit(&who, Verb::Infer, Some(&name)).unwrap();
    let upstream = catalog.route(&permit, xebec_core::VersionRef::Newest).unwrap();
    let request = InferRequest {
        id,
        inputs,
        outputs: vec![],
        timeout: None,
        priority: 0,
        sequence: None,
        streamed: false,
        headers: Vec::new(),
        received: Instant::now(),
        trace: None,
    };
    let (to, from) = sync_channel(1);
    upstream.submit(&permit, request, Box::new(Slot(to)));
    Waiting(from)
}

/// The engine's own first output for the inputs of a recorded run, in a session that has run nothing else.
pub(crate) fn direct(path: &Path, run: &Run) -> Vec<u8> {
    let graph = onnx::Model::parse(std::fs::read(path).unwrap().into()).unwrap();
    let model = backend().load(path, &graph, LoadOptions::default()).unwrap();
    let mut stream = model.own_stream().unwrap();
    let parts: Vec<[&[u8]; 1]> = run.inputs.iter().map(|(_, data)| [data.as_slice()]).collect();
    let inputs = run.inputs.iter().zip(&parts);
    let batch: Vec<BatchInput<'_>> = inputs.map(|((shape, _), parts)| BatchInput { shape, parts }).collect();
    stream.run(&batch).unwrap();
    stream.output(0).data.to_vec()
}
