//! The protocol over gRPC.
use crate::server::{Server, call, start};
use bytes::Bytes;
use prost::Message as _;
use xebec_net::wire::{
    health::{HealthCheckRequest, HealthCheckResponse},
    inference::{
        CudaSharedMemoryStatusRequest, InferTensorContents, ModelConfigRequest, ModelConfigResponse,
        ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
        ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
        ServerMetadataResponse, ServerReadyResponse, model_infer_request::InferInputTensor,
    },
};
use xebec_serve::Dialect;

const SERVICE: &str = "/inference.GRPCInferenceService";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

fn row(model: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        id: "7".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![[1.0f32, 2.5].map(f32::to_le_bytes).concat().into()],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn raw_and_typed_contents_are_answered_with_raw_ones_and_the_requests_mark() {
    let server = Server::start();
    let mut client = server.connect().await;
    let mut typed = row("echo");
    typed.raw_input_contents.clear();
    typed.inputs[0].contents =
        Some(InferTensorContents { fp32_contents: vec![1.0, 2.5], ..InferTensorContents::default() });
    for request in [row("echo"), typed, ModelInferRequest { model_version: "1".into(), ..row("echo") }] {
        let (message, status, text) = call(&mut client, INFER, &request).await;
        assert_eq!((status, text.as_str()), (0, ""));
        let answer = ModelInferResponse::decode(message).unwrap();
        let names = (answer.model_name.as_str(), answer.model_version.as_str(), answer.id.as_str());
        assert_eq!(names, ("echo", "1", "7"));
        let output = &answer.outputs[0];
        assert_eq!(
            (output.name.as_str(), output.datatype.as_str(), &output.shape),
            ("y", "FP32", &vec![1, 2])
        );
        assert!(output.contents.is_none());
        assert_eq!(answer.raw_output_contents, request_data());
    }
}

fn request_data() -> Vec<Bytes> {
    row("").raw_input_contents
}

#[tokio::test]
async fn errors_have_the_texts_that_clients_compare_and_ours_say_what_to_do() {
    let server = Server::start();
    let mut client = server.connect().await;
    let mut mixed = row("echo");
    mixed.inputs[0].contents = Some(InferTensorContents::default());
    let half = InferInputTensor {
        datatype: "FP16".into(),
        contents: Some(InferTensorContents { fp32_contents: vec![1.0], ..InferTensorContents::default() }),
        ..row("").inputs.remove(0)
    };
    let half = ModelInferRequest { inputs: vec![half], raw_input_contents: Vec::new(), ..row("echo") };
    for (request, status, text) in [
        (row("none"), 5, "Request for unknown model: 'none' is not found"),
        (row("../echo"), 5, "Request for unknown model: '../echo' is not found"),
        (row(""), 5, "Request for unknown model: '' is not found"),
        (
            ModelInferRequest { model_version: "7".into(), ..row("echo") },
            5,
            "Request for unknown model: 'echo' version 7 is not found",
        ),
        (row("late"), 14, "Request for unknown model: 'late' version 1 is not at ready state"),
        (row("full"), 14, "[request id: 7] Exceeds maximum queue size"),
        (
            mixed,
            3,
            "contents field must not be specified when using raw_input_contents for 'x' for model 'echo'; use one of the two for all inputs",
        ),
        (half, 3, "input 'x': FP16 has no typed contents in gRPC; send it in raw_input_contents"),
    ] {
        let (_, got, message) = call(&mut client, INFER, &request).await;
        assert_eq!((got, message.as_str()), (status, text));
    }
    // A version by its label: where it is none, what there is stands behind.
    for (label, status, text) in [
        ("stable", 0, ""),
        (
            "staple",
            5,
            "Request for unknown model: 'echo' version staple is not found; the model has version 1, and label stable (1)",
        ),
    ] {
        let request = ModelInferRequest { model_version: label.into(), ..row("echo") };
        let (_, got, message) = call(&mut client, INFER, &request).await;
        assert_eq!((got, message.as_str()), (status, text));
    }
    // A request that only names a model, written by other types.
    let (_, status, message) = call(&mut client, INFER, &HealthCheckRequest { service: "m".into() }).await;
    assert_eq!((status, message.as_str()), (5, "Request for unknown model: 'm' is not found"));
    let (_, status, _) = call(&mut client, INFER, &row("echo")).await;
    assert_eq!(status, 0);
}

#[tokio::test]
async fn metadata_configuration_and_readiness_are_those_of_rest() {
    let server = Server::start();
    let mut client = server.connect().await;
    let (message, ..) = call(&mut client, &format!("{SERVICE}/ServerMetadata"), &()).await;
    let metadata = ServerMetadataResponse::decode(message).unwrap();
    assert_eq!((metadata.name.as_str(), metadata.version.as_str()), ("triton", "1.2.3"));
    assert_eq!(
        metadata.extensions,
        [
            "binary_tensor_data",
            "classification",
            "logging",
            "model_configuration",
            "model_repository",
            "parameters",
            "sequence",
            "sequence(string_id)",
            "statistics",
            "trace",
            "system_shared_memory"
        ]
    );
    let (message, ..) = call(&mut client, &format!("{SERVICE}/ServerReady"), &()).await;
    assert!(ServerReadyResponse::decode(message).unwrap().ready);
    let name = || "echo".to_owned();
    let request = ModelMetadataRequest { name: name(), ..ModelMetadataRequest::default() };
    let (message, ..) = call(&mut client, &format!("{SERVICE}/ModelMetadata"), &request).await;
    let model = ModelMetadataResponse::decode(message).unwrap();
    assert_eq!(
        (model.platform.as_str(), model.versions, &model.inputs[0].shape),
        ("onnxruntime_onnx", vec!["1".to_owned()], &vec![-1, 2])
    );
    let request = ModelConfigRequest { name: name(), ..ModelConfigRequest::default() };
    let (message, ..) = call(&mut client, &format!("{SERVICE}/ModelConfig"), &request).await;
    assert_eq!(ModelConfigResponse::decode(message).unwrap().config.unwrap().max_batch_size, 8);
    for (name, want) in [("echo", true), ("late", false), ("none", false)] {
        let request = ModelReadyRequest { name: name.into(), ..ModelReadyRequest::default() };
        let (message, status, _) = call(&mut client, &format!("{SERVICE}/ModelReady"), &request).await;
        assert_eq!((status, ModelReadyResponse::decode(message).unwrap().ready), (0, want), "{name}");
    }
}

#[tokio::test]
async fn statistics_are_those_of_rest() {
    let server = Server::start();
    let mut client = server.connect().await;
    call(&mut client, INFER, &row("echo")).await;
    let path = format!("{SERVICE}/ModelStatistics");
    let of =
        |name: &str, version: &str| ModelStatisticsRequest { name: name.into(), version: version.into() };
    for request in [of("echo", "1"), of("echo", ""), of("", "")] {
        let (message, status, _) = call(&mut client, &path, &request).await;
        let all = ModelStatisticsResponse::decode(message).unwrap().model_stats;
        let [model] = all.as_slice() else { panic!("{all:?}") };
        let success = model.inference_stats.and_then(|stats| stats.success).unwrap();
        assert_eq!((status, model.name.as_str(), model.inference_count, success.count), (0, "echo", 1, 1));
        assert!(success.ns > 0 && model.last_inference > 1_700_000_000_000);
    }
    for (name, version) in [("none", ""), ("", "1"), ("echo", "9")] {
        let (_, status, message) = call(&mut client, &path, &of(name, version)).await;
        assert_eq!(status, 5, "{message}");
    }
}

#[tokio::test]
async fn methods_that_are_not_offered_are_unimplemented_by_name() {
    let server = Server::start();
    let mut client = server.connect().await;
    let method = "CudaSharedMemoryRegister";
    let (_, status, message) = call(&mut client, &format!("{SERVICE}/{method}"), &()).await;
    assert_eq!((status, message), (12, format!("{method} is not offered by this version of xebec")));
    let (_, status, message) = call(&mut client, "/other.Service/Method", &()).await;
    assert_eq!((status, message.as_str()), (12, "unknown method /other.Service/Method"));
}

#[tokio::test]
async fn of_cuda_memory_there_is_nothing_to_list_and_forgetting_it_is_no_fault() {
    let server = Server::start();
    let mut client = server.connect().await;
    let of = |name: &str| CudaSharedMemoryStatusRequest { name: name.into() };
    for (method, name, want) in [
        ("CudaSharedMemoryStatus", "", 0),
        ("CudaSharedMemoryUnregister", "", 0),
        ("CudaSharedMemoryUnregister", "r", 0),
        ("CudaSharedMemoryStatus", "r", 5),
    ] {
        let (answer, status, message) = call(&mut client, &format!("{SERVICE}/{method}"), &of(name)).await;
        assert_eq!(status, want, "{method} {name}: {message}");
        assert!(answer.is_empty(), "{method} {name}");
    }
}

#[tokio::test]
async fn every_method_asks_the_gate() {
    let server = Server::with(Dialect::Triton, false);
    let mut client = server.connect().await;
    for method in [
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
        "/inference.GRPCInferenceService/ServerMetadata",
        "/inference.GRPCInferenceService/ModelReady",
        "/inference.GRPCInferenceService/ModelMetadata",
        "/inference.GRPCInferenceService/ModelConfig",
        "/inference.GRPCInferenceService/ModelStatistics",
        "/inference.GRPCInferenceService/RepositoryIndex",
        "/inference.GRPCInferenceService/LogSettings",
        "/inference.GRPCInferenceService/TraceSetting",
        "/inference.GRPCInferenceService/CudaSharedMemoryStatus",
        "/inference.GRPCInferenceService/CudaSharedMemoryUnregister",
        "/inference.GRPCInferenceService/SystemSharedMemoryStatus",
        "/inference.GRPCInferenceService/SystemSharedMemoryRegister",
        "/inference.GRPCInferenceService/SystemSharedMemoryUnregister",
        INFER,
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/RepositoryModelLoad",
        "/inference.GRPCInferenceService/RepositoryModelUnload",
    ] {
        let request = ModelReadyRequest { name: "echo".into(), ..ModelReadyRequest::default() };
        let (_, status, message) = call(&mut client, method, &request).await;
        assert_eq!((status, message.as_str()), (7, "not you"), "{method}");
    }
}

#[tokio::test]
async fn health_is_known_for_the_server_and_its_services_and_for_no_other() {
    let server = Server::start();
    let mut client = server.connect().await;
    for service in ["", "inference.GRPCInferenceService", "grpc.health.v1.Health"] {
        let request = HealthCheckRequest { service: service.into() };
        let (message, status, _) = call(&mut client, "/grpc.health.v1.Health/Check", &request).await;
        assert_eq!((status, HealthCheckResponse::decode(message).unwrap().status), (0, 1), "{service}");
    }
    let request = HealthCheckRequest { service: "other".into() };
    let (_, status, message) = call(&mut client, "/grpc.health.v1.Health/Check", &request).await;
    assert_eq!((status, message.as_str()), (5, "unknown service 'other'"));
}

#[tokio::test]
async fn a_watch_tells_the_state_at_once_and_ends_when_the_server_drains() {
    let server = Server::start();
    let mut client = server.connect().await;
    let mut body =
        start(&mut client, "/grpc.health.v1.Health/Watch", &HealthCheckRequest::default()).await.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), [0, 0, 0, 0, 2, 8, 1].as_slice());
    server.begin_drain();
    assert_eq!(body.data().await.unwrap().unwrap(), [0, 0, 0, 0, 2, 8, 2].as_slice());
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}
