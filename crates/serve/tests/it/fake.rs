//! Models that answer by name: `echo` gives its input back, the others behave as they are called.
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use xebec_core::{
    Code, Datatype, InferError, InferRequest, InferResponse, ModelInfo, ModelName, Permit, Tensor, Timings,
    Version, VersionRef,
    metrics::ModelMetrics,
    model::TensorInfo,
    model_config::ModelConfig,
    port::{Control, Done, EngineReport, ModelRow, ModelState, Overrides, Reply, Router, Upstream},
};

pub(crate) const MODELS: [&str; 6] = ["asleep", "echo", "full", "half", "hold", "nan"];

pub(crate) struct Fake {
    info: ModelInfo,
    config: ModelConfig,
    metrics: ModelMetrics,
    held: Mutex<Vec<Reply>>,
}

fn tensor(name: &str, datatype: Datatype) -> TensorInfo {
    TensorInfo { name: name.into(), datatype, shape: vec![-1, 2] }
}

impl Fake {
    fn new(name: &str) -> Self {
        let out = if name == "half" { Datatype::Fp16 } else { Datatype::Fp32 };
        Self {
            info: ModelInfo {
                name: ModelName::parse(name).unwrap(),
                version: Version::FIRST,
                platform: "onnxruntime_onnx".into(),
                max_batch_size: 8,
                inputs: vec![tensor("x", Datatype::Fp32)],
                outputs: vec![tensor("y", out)],
            },
            config: ModelConfig { name: name.into(), max_batch_size: 8, ..ModelConfig::default() },
            metrics: ModelMetrics::default(),
            held: Mutex::default(),
        }
    }

    fn data(&self, request: &InferRequest) -> Bytes {
        match self.info.name.as_str() {
            "nan" => [f32::NAN, f32::NEG_INFINITY].map(f32::to_le_bytes).concat().into(),
            "half" => Bytes::from_static(&[0, 0x3c, 0, 0x40]),
            _ => request.inputs.first().map(|tensor| tensor.data.clone()).unwrap_or_default(),
        }
    }

    /// How many requests are held, and whether all their callers have gone.
    pub(crate) fn held(&self) -> (usize, bool) {
        let held = self.held.lock().unwrap();
        (held.len(), held.iter().all(|reply| reply.is_gone()))
    }

    /// Answers everything that is held.
    pub(crate) fn release(&self) {
        self.held.lock().unwrap().drain(..).for_each(|reply| reply.send(Err(InferError::Timeout)));
    }
}

impl Upstream for Fake {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    fn submit(&self, _: &Permit, request: InferRequest, reply: Reply) {
        match self.info.name.as_str() {
            "full" => reply.send(Err(InferError::QueueFull { model: "full".into(), limit: 4 })),
            "hold" => self.held.lock().unwrap().push(reply),
            _ => {
                let shape = request.inputs.first().map(|tensor| tensor.shape.clone()).unwrap_or_default();
                let info = &self.info.outputs[0];
                let (name, datatype) = (Arc::clone(&info.name), info.datatype);
                let outputs = vec![Tensor { name, datatype, shape, data: self.data(&request) }];
                reply.send(Ok(InferResponse { outputs, timings: Timings::default() }));
            }
        }
    }
}

fn unknown(model: &str, version: &str) -> InferError {
    let known = "version 1, and label stable (1)".into();
    InferError::UnknownVersion { model: model.into(), version: version.into(), known }
}

/// The models, all of version 1 but for one that is loading.
pub(crate) struct Models(Vec<Arc<Fake>>);

impl Default for Models {
    fn default() -> Self {
        Self(MODELS.iter().map(|name| Arc::new(Fake::new(name))).collect())
    }
}

impl Models {
    pub(crate) fn get(&self, name: &str) -> &Fake {
        self.0.iter().find(|fake| fake.info.name.as_str() == name).unwrap()
    }
}

impl Router for Models {
    /// One of them was sent out of memory, and does not come back.
    fn route(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        let upstream = self.describe(permit, version)?;
        match upstream.info().name.as_str() {
            model @ "asleep" => Err(InferError::NotResident { model: model.into() }),
            _ => Ok(upstream),
        }
    }

    fn describe(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        let name = permit.model().map(ModelName::as_str).unwrap_or_default();
        if name == "late" {
            return Err(InferError::VersionNotReady { model: name.into(), version: 1 });
        }
        let found = self.0.iter().find(|fake| fake.info.name.as_str() == name);
        let fake = found.ok_or_else(|| InferError::UnknownModel { model: name.into() })?;
        match version {
            VersionRef::Newest | VersionRef::Number(Version::FIRST) | VersionRef::Label("stable") => {
                Ok(Arc::<Fake>::clone(fake))
            }
            VersionRef::Number(other) => Err(unknown(name, &other.to_string())),
            VersionRef::Label(other) => Err(unknown(name, other)),
        }
    }

    fn wake(&self, permit: &Permit, done: Done) {
        done(Err(InferError::UnknownModel { model: permit.model().unwrap().to_string() }));
    }

    fn versions(&self, _: &Permit) -> Vec<Version> {
        vec![Version::FIRST]
    }

    fn models(&self) -> Vec<ModelRow> {
        let row = |name: &str, state| ModelRow {
            name: ModelName::parse(name).unwrap(),
            version: Some(Version::FIRST),
            labels: Vec::new(),
            state,
        };
        vec![
            row("echo", ModelState::Ready { note: String::new() }),
            row("broken", ModelState::Unavailable("no such file".into())),
        ]
    }

    fn upstreams(&self) -> Vec<Arc<dyn Upstream>> {
        self.0.iter().map(|fake| Arc::<Fake>::clone(fake) as Arc<dyn Upstream>).collect()
    }

    fn ready(&self) -> bool {
        true
    }

    fn engine(&self) -> EngineReport {
        EngineReport { name: "fake", version: "0".into(), reason: "a test".into() }
    }
}

impl Control for Models {
    fn load(&self, permit: &Permit, overrides: Overrides, done: Done) {
        let model = permit.model().unwrap().to_string();
        let reason = format!("config {:?} and {} files", overrides.config, overrides.files.len());
        done(match model.as_str() {
            "echo" => Ok(()),
            _ => Err(InferError::LoadFailed { model, reason, code: Code::NotFound }),
        });
    }

    fn unload(&self, permit: &Permit, done: Done) {
        let model = permit.model().unwrap().to_string();
        done(match model.as_str() {
            "echo" => Ok(()),
            _ => Err(InferError::UnloadFailed { model, reason: "it is not there".into() }),
        });
    }
}
