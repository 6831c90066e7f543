//! The protocol over gRPC, and the standard health service.
//!
//! # Source
//! Open Inference Protocol, "GRPC"; gRPC, "GRPC Health Checking Protocol".
use crate::{
    Service,
    call::{Record, Routed, Spent, headers_for},
    classes, control,
    index::Entry,
    memory::{
        FLAG as MEMORY_FLAG, no_cuda_region,
        tensors::{Most, put},
    },
    record::Protocol,
};
use decode::Decoded;
use encode::Form;
use futures_util::stream;
use prost::Message;
use std::time::Instant;
use xebec_core::{Code, InferError, Principal, Verb, Version, port::Upstream};
use xebec_net::{
    service::{GrpcAnswer, GrpcCall, GrpcHead, GrpcMessage, GrpcService, GrpcStatus},
    wire::{
        health::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus},
        inference::{
            CudaSharedMemoryStatusRequest, CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest,
            CudaSharedMemoryUnregisterResponse, ModelConfigRequest, ModelConfigResponse,
            ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
            ModelStatisticsRequest, RepositoryIndexRequest, RepositoryIndexResponse,
            RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
            RepositoryModelUnloadResponse, ServerLiveResponse, ServerMetadataResponse, ServerReadyResponse,
            model_metadata_response::TensorMetadata, repository_index_response::ModelIndex,
        },
    },
};

mod decode;
mod encode;
pub(crate) mod fields;
mod reflection;
mod settings;

const SERVICE: &str = "inference.GRPCInferenceService";
const HEALTH: &str = "grpc.health.v1.Health";

/// Methods of the service that are known and not offered.
const NOT_OFFERED: [&str; 1] = ["CudaSharedMemoryRegister"];

/// Methods that are there if the operator allows shared memory.
const SHARED_MEMORY: [&str; 3] =
    ["SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"];

/// The flag that sets the limit of a message.
const FLAG: &str = "--grpc-max-message-size";

const OFFERED: [&str; 16] = [
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "ModelInfer",
    "ModelStreamInfer",
    "LogSettings",
    "TraceSetting",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryUnregister",
];

/// The texts that clients compare stay as they are; our own carry what to do about it, for gRPC has no other place.
fn status(error: &InferError, id: &str) -> GrpcStatus {
    let message = error.message_for(id);
    let own = match error {
        InferError::Invalid { .. }
        | InferError::Unsupported { .. }
        | InferError::TooLarge { .. }
        | InferError::Missing { .. } => true,
        // Labels are ours.
        InferError::UnknownVersion { version, .. } => Version::parse(version).is_err(),
        _ => false,
    };
    let message = match error.hint().filter(|_| own) {
        Some(hint) => format!("{message}; {hint}"),
        None => message,
    };
    GrpcStatus { code: error.code().grpc(), message }
}

fn parse<M: Message + Default>(call: &GrpcCall<'_>) -> Result<M, GrpcStatus> {
    M::decode(call.message.clone()).map_err(|error| GrpcStatus {
        code: Code::InvalidArgument.grpc(),
        message: format!("the message is not what {} takes: {error}", call.path),
    })
}

/// Service and method of a path.
fn method(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}

impl GrpcService for Service {
    fn peek(&self, head: GrpcHead<'_>, start: &[u8]) -> Result<(), GrpcStatus> {
        if method(head.path) != Some((SERVICE, "ModelInfer")) {
            return Ok(());
        }
        // A model whose name stands behind the tensors is judged once the message is there.
        match decode::target_of_start(start) {
            Some(target) => match self.route(head.principal, Verb::Infer, target.model, target.version) {
                // It is woken when the message is there.
                Ok(_) | Err(InferError::NotResident { .. }) => Ok(()),
                Err(error) => {
                    let mut record = self.record_of(head, Form::Unary);
                    record.model = target.model;
                    record.fail(&error);
                    Err(status(&error, ""))
                }
            },
            None => Ok(()),
        }
    }

    fn refused(&self, head: GrpcHead<'_>, status: &GrpcStatus) {
        let form = match method(head.path) {
            Some((SERVICE, "ModelInfer")) => Form::Unary,
            Some((SERVICE, "ModelStreamInfer")) => Form::Streamed,
            _ => return,
        };
        self.record_of(head, form).fail(&self.refusal(status));
    }

    fn accept(&self, path: &str) -> Result<(), GrpcStatus> {
        let message = match method(path) {
            Some((SERVICE, method)) if OFFERED.contains(&method) => return Ok(()),
            Some((HEALTH, "Check" | "Watch")) => return Ok(()),
            Some((service, reflection::METHOD)) if reflection::SERVICES.contains(&service) => return Ok(()),
            Some((SERVICE, method)) if SHARED_MEMORY.contains(&method) => {
                if self.0.shared_memory.is_some() {
                    return Ok(());
                }
                format!(
                    "{method} is not allowed on this server; the operator can allow it with {MEMORY_FLAG}"
                )
            }
            Some((SERVICE, method)) if NOT_OFFERED.contains(&method) => {
                format!("{method} is not offered by this version of xebec")
            }
            _ => format!("unknown method {}", path.chars().take(200).collect::<String>()),
        };
        Err(GrpcStatus { code: Code::Unsupported.grpc(), message })
    }

    async fn call(&self, call: GrpcCall<'_>) -> Result<GrpcAnswer, GrpcStatus> {
        let answer = match method(call.path) {
            Some((SERVICE, "ModelInfer")) => self.model_infer(&call).await?,
            Some((HEALTH, "Watch")) => return self.watch(&call),
            Some((HEALTH, _)) => self.check(&call)?,
            Some((_, name)) => Box::pin(self.answer_unary(name, &call)).await?,
            None => return Err(GrpcStatus { code: Code::Unsupported.grpc(), message: "no method".into() }),
        };
        Ok(GrpcAnswer::One(answer))
    }

    fn takes_many(&self, path: &str) -> bool {
        matches!(method(path), Some((SERVICE, "ModelStreamInfer") | (_, reflection::METHOD)))
    }

    fn begin<'c>(&'c self, call: GrpcCall<'c>) -> Result<impl Future<Output = GrpcMessage> + 'c, GrpcStatus> {
        let reflects = matches!(method(call.path), Some((_, reflection::METHOD)));
        let asked = reflects.then(|| parse(&call)).transpose()?;
        if asked.is_none() {
            // What does not even name a model leaves no answer to give, nor trust in what follows.
            decode::peek(&call.message).map_err(|error| {
                self.record(&call, Form::Streamed).fail(&error);
                status(&error, "")
            })?;
        }
        Ok(async move {
            match asked {
                Some(request) => GrpcMessage::encode(&self.reflect(call.principal, request)),
                None => self.model_stream_infer(&call).await,
            }
        })
    }
}

impl Service {
    async fn answer_unary(&self, method: &str, call: &GrpcCall<'_>) -> Result<GrpcMessage, GrpcStatus> {
        let admit = |verb| self.admit(call.principal, verb, None).map_err(|error| status(&error, ""));
        Ok(match method {
            "ServerLive" => {
                admit(Verb::Probe)?;
                GrpcMessage::encode(&ServerLiveResponse { live: true })
            }
            "ServerReady" => {
                admit(Verb::Probe)?;
                GrpcMessage::encode(&ServerReadyResponse { ready: self.is_ready() })
            }
            "ServerMetadata" => {
                admit(Verb::ReadServer)?;
                GrpcMessage::encode(&self.grpc_server_metadata())
            }
            "LogSettings" => self.grpc_log_settings(call)?,
            "TraceSetting" => self.grpc_trace_setting(call)?,
            "CudaSharedMemoryStatus" => {
                admit(Verb::ReadServer)?;
                let CudaSharedMemoryStatusRequest { name } = parse(call)?;
                no_cuda_region(&name).map_err(|error| status(&error, ""))?;
                GrpcMessage::encode(&CudaSharedMemoryStatusResponse::default())
            }
            "CudaSharedMemoryUnregister" => {
                admit(Verb::ReadServer)?;
                let CudaSharedMemoryUnregisterRequest { .. } = parse(call)?;
                GrpcMessage::encode(&CudaSharedMemoryUnregisterResponse {})
            }
            method if SHARED_MEMORY.contains(&method) => self.grpc_shared_memory(method, call)?,
            "ModelReady" => {
                let ModelReadyRequest { name, version } = parse(call)?;
                let ready = self.probe(call.principal, &name, &version);
                GrpcMessage::encode(&ModelReadyResponse { ready: ready.map_err(|error| status(&error, ""))? })
            }
            "ModelMetadata" => {
                let ModelMetadataRequest { name, version } = parse(call)?;
                let routed = self.read_model(call.principal, &name, &version).await?;
                GrpcMessage::encode(&self.grpc_model_metadata(&routed))
            }
            "ModelStatistics" => {
                let ModelStatisticsRequest { name, version } = parse(call)?;
                let statistics = self.statistics(call.principal, &name, &version).await;
                GrpcMessage::encode(&statistics.map_err(|error| status(&error, ""))?)
            }
            "RepositoryIndex" => {
                let RepositoryIndexRequest { repository_name, ready } = parse(call)?;
                let entries = self.index(call.principal, &repository_name, ready);
                let model = |entry: Entry| {
                    // Triton's message has no place for labels.
                    let Entry { name, version, state, reason, labels: _ } = entry;
                    ModelIndex { name, version, state: state.into(), reason }
                };
                let models = entries.map_err(|error| status(&error, ""))?.into_iter().map(model).collect();
                GrpcMessage::encode(&RepositoryIndexResponse { models })
            }
            "RepositoryModelLoad" => {
                self.may_order(call.principal).map_err(|error| status(&error, ""))?;
                let RepositoryModelLoadRequest { repository_name, model_name, parameters } = parse(call)?;
                let overrides = control::overrides(control::of_message(parameters))
                    .map_err(|error| status(&error, ""))?;
                let loaded = self.load_model(call.principal, &repository_name, &model_name, overrides).await;
                loaded.map_err(|error| status(&error, ""))?;
                GrpcMessage::encode(&RepositoryModelLoadResponse {})
            }
            "RepositoryModelUnload" => {
                self.may_order(call.principal).map_err(|error| status(&error, ""))?;
                let RepositoryModelUnloadRequest { repository_name, model_name, parameters } = parse(call)?;
                control::only_dependents(control::of_message(parameters))
                    .map_err(|error| status(&error, ""))?;
                let unloaded = self.unload_model(call.principal, &repository_name, &model_name).await;
                unloaded.map_err(|error| status(&error, ""))?;
                GrpcMessage::encode(&RepositoryModelUnloadResponse {})
            }
            _ => {
                let ModelConfigRequest { name, version } = parse(call)?;
                let routed = self.read_model(call.principal, &name, &version).await?;
                GrpcMessage::encode(&ModelConfigResponse { config: Some(routed.upstream.config().clone()) })
            }
        })
    }

    async fn read_model<'a>(
        &self,
        principal: &Principal,
        name: &str,
        version: &'a str,
    ) -> Result<Routed<'a>, GrpcStatus> {
        let routed = self.read_about(principal, name, version).await;
        routed.map_err(|error| status(&error, ""))
    }

    fn grpc_server_metadata(&self) -> ServerMetadataResponse {
        let settings = &self.0.settings;
        ServerMetadataResponse {
            name: settings.server_name.clone(),
            version: settings.server_version.clone(),
            extensions: self.extensions().into_iter().map(str::to_owned).collect(),
        }
    }

    fn grpc_model_metadata(&self, routed: &Routed<'_>) -> ModelMetadataResponse {
        let info = routed.upstream.info();
        let tensors = |tensors: &[xebec_core::model::TensorInfo]| {
            let one = |tensor: &xebec_core::model::TensorInfo| TensorMetadata {
                name: tensor.name.to_string(),
                datatype: tensor.datatype.to_string(),
                shape: tensor.shape.clone(),
            };
            tensors.iter().map(one).collect()
        };
        ModelMetadataResponse {
            name: info.name.to_string(),
            versions: self.0.router.versions(&routed.permit).iter().map(ToString::to_string).collect(),
            platform: info.platform.clone(),
            inputs: tensors(&info.inputs),
            outputs: tensors(&info.outputs),
        }
    }

    fn serving(&self, service: &str) -> Option<ServingStatus> {
        let known = service.is_empty() || service == SERVICE || service == HEALTH;
        known.then(|| if self.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing })
    }

    fn check(&self, call: &GrpcCall<'_>) -> Result<GrpcMessage, GrpcStatus> {
        let HealthCheckRequest { service } = parse(call)?;
        self.admit(call.principal, Verb::Probe, None).map_err(|error| status(&error, ""))?;
        match self.serving(&service) {
            Some(status) => Ok(GrpcMessage::encode(&HealthCheckResponse { status: status as i32 })),
            None => Err(GrpcStatus {
                code: Code::NotFound.grpc(),
                message: format!("unknown service '{service}'"),
            }),
        }
    }

    /// The status now, and again at each change, for as long as the caller listens and the server serves: a stream that
    /// stayed open would hold up the drain.
    fn watch(&self, call: &GrpcCall<'_>) -> Result<GrpcAnswer, GrpcStatus> {
        let HealthCheckRequest { service } = parse(call)?;
        self.admit(call.principal, Verb::Probe, None).map_err(|error| status(&error, ""))?;
        let start = (self.clone(), service, self.0.readiness.clone(), None);
        let messages = stream::unfold(start, |(this, service, mut readiness, last)| async move {
            loop {
                readiness.borrow_and_update();
                let now = this.serving(&service).unwrap_or(ServingStatus::ServiceUnknown);
                if last != Some(now) {
                    let message = GrpcMessage::encode(&HealthCheckResponse { status: now as i32 });
                    return Some((message, (this, service, readiness, Some(now))));
                }
                if this.0.drain.is_draining() {
                    return None;
                }
                readiness.changed().await.ok()?;
            }
        });
        Ok(GrpcAnswer::Many(Box::pin(messages)))
    }

    async fn model_infer(&self, call: &GrpcCall<'_>) -> Result<GrpcMessage, GrpcStatus> {
        self.infer_and_record(call, Form::Unary).await.map_err(|(status, _)| status)
    }

    /// One message of a stream. What is wrong with it is told in the answer, and the stream goes on.
    async fn model_stream_infer(&self, call: &GrpcCall<'_>) -> GrpcMessage {
        let outcome = self.infer_and_record(call, Form::Streamed).await;
        outcome.unwrap_or_else(|(status, id)| encode::failure(&id, status.message))
    }

    fn record<'c>(&'c self, call: &'c GrpcCall<'_>, form: Form) -> Record<'c> {
        let GrpcCall { principal, path, metadata, until, message } = call;
        let head = GrpcHead { principal, path, metadata, until: *until };
        let mut record = self.record_of(head, form);
        record.bytes_in = message.len();
        record
    }

    fn record_of<'c>(&'c self, head: GrpcHead<'c>, form: Form) -> Record<'c> {
        let mut record = Record::new(self, head.principal, Protocol::Grpc);
        record.until = head.until;
        record.streamed = form == Form::Streamed;
        record.note_parent(head.metadata);
        record
    }

    /// What the network side said of a message that it did not hand on, as the same is called over REST.
    fn refusal(&self, status: &GrpcStatus) -> InferError {
        let is = |code: Code| status.code == code.grpc();
        match () {
            () if is(Code::TooLarge) => InferError::TooLarge {
                what: "request message",
                limit_bytes: self.0.settings.max_message_bytes as u64,
                flag: FLAG,
            },
            () if is(Code::Unavailable) => InferError::NoRoom,
            () if is(Code::DeadlineExceeded) => InferError::DeadlineExceeded,
            () if is(Code::Internal) => InferError::Internal(status.message.clone()),
            () if is(Code::Unsupported) => {
                InferError::Unsupported { what: status.message.clone(), hint: None }
            }
            () => InferError::invalid(status.message.clone()),
        }
    }

    /// The answer, or the status and the request's own mark.
    async fn infer_and_record(
        &self,
        call: &GrpcCall<'_>,
        form: Form,
    ) -> Result<GrpcMessage, (GrpcStatus, String)> {
        let mut record = self.record(call, form);
        match self.infer_over_grpc(call, form, &mut record).await {
            Ok((message, spent, bytes_out)) => {
                record.succeed(&spent, bytes_out);
                Ok(message)
            }
            Err(error) => {
                let too_old = record.too_old(&error);
                record.fail(&error);
                match (too_old, &record.routed) {
                    (Some(age), Some(routed)) => {
                        Ok(encode::dropped(routed.upstream.info(), &record.id, age, record.final_response))
                    }
                    _ => Err((status(&error, &record.id), record.id.clone())),
                }
            }
        }
    }

    async fn infer_over_grpc<'c>(
        &self,
        call: &'c GrpcCall<'_>,
        form: Form,
        record: &mut Record<'c>,
    ) -> Result<(GrpcMessage, Spent, usize), InferError> {
        let received = record.started;
        record.received = Some(received);
        let target = decode::peek(&call.message)?;
        record.model = target.model;
        let routed = self.route_awake(call.principal, Verb::Infer, target.model, target.version).await?;
        let trace = record.begin_trace(&routed);
        let routed = record.routed.insert(routed);
        let info = routed.upstream.info();
        let decoded = decode::request(&call.message, info, received, form, &mut record.id)?;
        let Decoded { mut request, classes, shared, final_response, max_age } = decoded;
        let last = form == Form::Streamed && final_response;
        (record.max_age, record.final_response) = (max_age, last);
        let most = Most { bytes: self.0.settings.max_message_bytes, flag: FLAG };
        let room = |bytes| call.message.count(bytes).map_err(|_| InferError::NoRoom);
        let places = shared.fetch(|| self.memory_of_tensors(call.principal), &mut request, most, room)?;
        let rows = rows(&*routed.upstream, &request);
        request.trace = trace;
        request.headers = headers_for(&*routed.upstream, call.metadata);
        record.decoded = Some(Instant::now());
        classes::check(&classes, info)?;
        let _turn = match max_age {
            Some(max_age) => {
                let until = received + max_age;
                let turn = self.1.turn(until).await?;
                // What is left of its time is for the model.
                let left = until.saturating_duration_since(Instant::now());
                request.timeout = request.timeout.map(|timeout| timeout.min(left));
                Some(turn)
            }
            None => None,
        };
        let mut response = self.run(routed, request).await?;
        let answered = Instant::now();
        let info = routed.upstream.info();
        classes::apply(&mut response, &classes, info, |output| routed.upstream.labels(output))?;
        let placed = put(&places, &mut response)?;
        let (message, bytes_out) = encode::response(info, &record.id, &response, &placed, form, last)?;
        let spent = Spent { rows, answered, done: Instant::now(), timings: response.timings };
        Ok((message, spent, bytes_out))
    }
}

/// Rows of a request, for the count of inferences.
pub(crate) fn rows(upstream: &dyn Upstream, request: &xebec_core::InferRequest) -> u64 {
    if upstream.info().max_batch_size == 0 {
        return 1;
    }
    let first = request.inputs.first().and_then(|tensor| tensor.shape.first());
    first.and_then(|rows| u64::try_from(*rows).ok()).unwrap_or(1)
}
