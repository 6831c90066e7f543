//! Models that give their inputs back and keep what reached them.
use bytes::Bytes;
use std::{
    mem::take,
    sync::{Arc, Mutex},
};
use xebec_core::{
    Code, Datatype, InferError, InferRequest, InferResponse, ModelInfo, ModelName, Permit, Tensor, Timings,
    Version, VersionRef,
    metrics::ModelMetrics,
    model::TensorInfo,
    model_config::ModelConfig,
    port::{Control, Done, EngineReport, ModelRow, ModelState, Overrides, Reply, Router, Upstream},
    tensor::bytes_elements,
};

/// What reached a model, and what it answered.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The inputs, as the protocol decoded them.
    pub(crate) came: Vec<Tensor>,
    /// The names of the wanted outputs.
    pub(crate) wanted: Vec<String>,
    /// The caller's own mark.
    pub(crate) id: String,
    /// What went back, if the request passed the model's check.
    pub(crate) answered: Option<Vec<Tensor>>,
}

/// A model that gives its inputs back, each under its own name.
struct Echo {
    info: ModelInfo,
    config: ModelConfig,
    metrics: ModelMetrics,
    /// Any input may be left out, and any shape is right.
    any: bool,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Echo {
    fn new(name: &str, inputs: Vec<TensorInfo>, any: bool, seen: &Arc<Mutex<Vec<Seen>>>) -> Self {
        let info = ModelInfo {
            name: ModelName::parse(name).expect("a name"),
            version: Version::FIRST,
            platform: "onnxruntime_onnx".into(),
            max_batch_size: 0,
            outputs: inputs.clone(),
            inputs,
        };
        let config = ModelConfig { name: name.into(), ..ModelConfig::default() };
        Self { info, config, metrics: ModelMetrics::default(), any, seen: Arc::clone(seen) }
    }

    /// What is asked of a request: all inputs, or those that it has.
    fn demands(&self, request: &InferRequest) -> ModelInfo {
        if !self.any {
            return self.info.clone();
        }
        let given = |info: &TensorInfo| {
            let tensor = request.inputs.iter().find(|tensor| tensor.name == info.name)?;
            Some(TensorInfo { shape: vec![-1; tensor.shape.len()], ..info.clone() })
        };
        ModelInfo { inputs: self.info.inputs.iter().filter_map(given).collect(), ..self.info.clone() }
    }

    fn answer(&self, request: &InferRequest) -> Vec<Tensor> {
        if request.outputs.is_empty() {
            return request.inputs.clone();
        }
        let wanted = request.outputs.iter().filter_map(|name| {
            let info = self.info.outputs.iter().find(|info| *info.name == **name)?;
            let given = request.inputs.iter().find(|tensor| *tensor.name == **name).cloned();
            let (name, datatype) = (Arc::clone(&info.name), info.datatype);
            Some(given.unwrap_or(Tensor { name, datatype, shape: vec![0], data: Bytes::new() }))
        });
        wanted.collect()
    }
}

impl Upstream for Echo {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    fn submit(&self, _: &Permit, mut request: InferRequest, reply: Reply) {
        let mut seen = Seen {
            came: request.inputs.clone(),
            wanted: request.outputs.clone(),
            id: request.id.clone(),
            answered: None,
        };
        let checked = xebec_engine::fuzzing::check(&self.demands(&request), &mut request).map(|_| {
            request.inputs.iter().for_each(holds_what_its_shape_says);
            self.answer(&request)
        });
        seen.answered = checked.as_ref().ok().cloned();
        self.seen.lock().expect("no target goes on after a panic").push(seen);
        reply.send(checked.map(|outputs| InferResponse { outputs, timings: Timings::default() }));
    }
}

/// Asserts that a tensor that may reach an engine has exactly the elements of its shape. Counted here by other means than
/// those of the check itself.
fn holds_what_its_shape_says(tensor: &Tensor) {
    let extents = tensor.shape.iter().map(|extent| u64::try_from(*extent).expect("a negative extent"));
    let elements: u128 = if tensor.shape.contains(&0) { 0 } else { extents.map(u128::from).product() };
    let have = match tensor.datatype.size_bytes() {
        Some(size) => {
            assert_eq!(tensor.data.len() % size, 0, "{} ends inside an element", tensor.name);
            tensor.data.len() / size
        }
        None => {
            bytes_elements(&tensor.data).inspect(|element| assert!(element.is_ok(), "{element:?}")).count()
        }
    };
    assert_eq!(have as u128, elements, "elements of {} with shape {:?}", tensor.name, tensor.shape);
}

/// The models: `any` has an input of every datatype, by its name in lower case; `raw` one of numbers, `text` one of text.
pub(crate) struct Models {
    models: Vec<Arc<Echo>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Models {
    pub(crate) fn new() -> Self {
        let seen = Arc::default();
        let input = |name: &str, datatype, shape: &[i64]| TensorInfo {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        let all = Datatype::ALL.map(|kind| input(&kind.as_str().to_ascii_lowercase(), kind, &[-1])).to_vec();
        let models = vec![
            Arc::new(Echo::new("any", all, true, &seen)),
            Arc::new(Echo::new("raw", vec![input("x", Datatype::Fp32, &[-1, 2])], false, &seen)),
            Arc::new(Echo::new("text", vec![input("x", Datatype::Bytes, &[1])], false, &seen)),
        ];
        Self { models, seen }
    }

    /// What reached models since this was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        take(&mut *self.seen.lock().expect("no target goes on after a panic"))
    }
}

impl Router for Models {
    fn route(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        let name = permit.model().map(ModelName::as_str).unwrap_or_default();
        let found = self.models.iter().find(|echo| echo.info.name.as_str() == name);
        let echo = found.ok_or_else(|| InferError::UnknownModel { model: name.into() })?;
        match version {
            VersionRef::Newest | VersionRef::Number(Version::FIRST) => Ok(Arc::<Echo>::clone(echo)),
            VersionRef::Number(_) | VersionRef::Label(_) => Err(InferError::UnknownVersion {
                model: name.into(),
                version: "another".into(),
                known: "version 1".into(),
            }),
        }
    }

    fn wake(&self, _: &Permit, done: Done) {
        done(Err(InferError::Internal("no model here sleeps".into())));
    }

    fn versions(&self, _: &Permit) -> Vec<Version> {
        vec![Version::FIRST]
    }

    fn models(&self) -> Vec<ModelRow> {
        let row = |echo: &Arc<Echo>| ModelRow {
            name: echo.info.name.clone(),
            version: Some(Version::FIRST),
            labels: Vec::new(),
            state: ModelState::Ready { note: String::new() },
        };
        self.models.iter().map(row).collect()
    }

    fn upstreams(&self) -> Vec<Arc<dyn Upstream>> {
        self.models.iter().map(|echo| Arc::<Echo>::clone(echo) as Arc<dyn Upstream>).collect()
    }

    fn ready(&self) -> bool {
        true
    }

    fn engine(&self) -> EngineReport {
        EngineReport { name: "echo", version: "0".into(), reason: "nothing runs here".into() }
    }
}

impl Control for Models {
    fn load(&self, permit: &Permit, overrides: Overrides, done: Done) {
        let model = permit.model().map(ToString::to_string).unwrap_or_default();
        let reason = format!("{} files", overrides.files.len());
        done(Err(InferError::LoadFailed { model, reason, code: Code::NotFound }));
    }

    fn unload(&self, _: &Permit, done: Done) {
        done(Ok(()));
    }
}
