//! Writes the seeds that nobody can write by hand: `seeds FOLDER`, the folder of the corpora.
use prost::Message;
use std::{fs, io, path::Path, process::ExitCode};
use xebec_core::Datatype;
use xebec_net::{
    body::Encoding,
    wire::inference::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelMetadataRequest,
        RepositoryModelLoadRequest,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
};

mod connections;
mod pictures;

/// Name of the target, name of the seed, bytes.
type Seed = (&'static str, String, Vec<u8>);

#[expect(clippy::print_stderr, reason = "a command")]
fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: seeds FOLDER, for example fuzz/corpus");
        return ExitCode::from(64);
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write below {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    for (target, name, bytes) in
        [binary(), messages(), streams(), connections::seeds(), pictures::seeds()].concat()
    {
        fs::write(folder.join(target).join(format!("seed-{name}")), bytes)?;
    }
    Ok(())
}

/// What the target `binary` takes: manner, length of the JSON, body.
fn call(manner: u8, json: &str, tensors: &[u8]) -> Vec<u8> {
    let length = u16::try_from(json.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[manner], &length[..], json.as_bytes(), tensors].concat()
}

fn binary() -> Vec<Seed> {
    const ANY: u8 = 0b111_1010;
    let one = |kind: Datatype| {
        let (name, size) = (kind.as_str().to_ascii_lowercase(), kind.size_bytes().unwrap_or(5));
        let json = format!(
            r#"{{"inputs":[{{"name":"{name}","shape":[2],"datatype":"{kind}","parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
            2 * size
        );
        let data =
            if kind == Datatype::Bytes { b"\x01\0\0\0a\x01\0\0\0b".to_vec() } else { vec![1; 2 * size] };
        ("binary", name, call(ANY, &json, &data))
    };
    let mut seeds: Vec<Seed> = Datatype::ALL.into_iter().map(one).collect();
    let mixed = r#"{"id":"7","inputs":[{"name":"fp32","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}},{"name":"int8","shape":[1],"datatype":"INT8","data":[-1]}],"outputs":[{"name":"fp32","parameters":{"binary_data":true}},{"name":"int8"}]}"#;
    let json = r#"{"inputs":[{"name":"int64","shape":[2,1],"datatype":"INT64","data":[[1],[2]]}]}"#;
    seeds.extend([
        ("binary", "mixed".into(), call(ANY, mixed, &[0, 0, 128, 63, 0, 0, 192, 127])),
        ("binary", "raw".into(), call(0b111_0001, "", &[0; 16])),
        ("binary", "raw-odd".into(), call(0b111_0001, "", &[0; 15])),
        ("binary", "text".into(), call(0b111_0101, "", b"hello")),
        ("binary", "too-long".into(), call(0b111_1010, "{}", b"")[..4].to_vec()),
        ("binary", "gzip".into(), call(0b000_1000, "", &Encoding::Gzip.compress(json.as_bytes()))),
        ("binary", "deflate".into(), call(0b001_1000, "", &Encoding::Deflate.compress(json.as_bytes()))),
        ("binary", "gzip-raw".into(), call(0b000_0001, "", &Encoding::Gzip.compress(&[0; 800]))),
        (
            "binary",
            "gzip-bomb".into(),
            call(0b000_0001, "", &Encoding::Gzip.compress(&vec![0; (1 << 20) + 1])),
        ),
    ]);
    seeds
}

fn input(
    name: &str,
    datatype: &str,
    shape: &[i64],
    contents: Option<InferTensorContents>,
) -> InferInputTensor {
    let (name, datatype, shape) = (name.to_owned(), datatype.to_owned(), shape.to_vec());
    InferInputTensor { name, datatype, shape, contents, ..InferInputTensor::default() }
}

fn request(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "any".into(),
        inputs,
        raw_input_contents: raw.iter().map(|raw| (*raw).into()).collect(),
        ..ModelInferRequest::default()
    }
}

/// Infer requests: one for each kind of contents, and some with everything else that a request may have.
fn requests() -> Vec<(&'static str, ModelInferRequest)> {
    let empty = InferTensorContents::default;
    let typed = |name, datatype, contents| request(vec![input(name, datatype, &[2], Some(contents))], &[]);
    let choice = |choice| InferParameter { parameter_choice: Some(choice) };
    let full = ModelInferRequest {
        model_version: "1".into(),
        id: "7".into(),
        parameters: [
            ("sequence_id".into(), choice(ParameterChoice::Int64Param(3))),
            ("sequence_start".into(), choice(ParameterChoice::BoolParam(true))),
            ("priority".into(), choice(ParameterChoice::Uint64Param(1))),
            ("timeout".into(), choice(ParameterChoice::Int64Param(1000))),
            ("note".into(), choice(ParameterChoice::StringParam("x".into()))),
            ("real".into(), choice(ParameterChoice::DoubleParam(0.5))),
        ]
        .into(),
        outputs: vec![InferRequestedOutputTensor {
            name: "fp32".into(),
            parameters: [("classification".into(), choice(ParameterChoice::Int64Param(2)))].into(),
        }],
        ..request(vec![input("fp32", "FP32", &[1, 2], None)], &[&[0, 0, 128, 63, 0, 0, 0, 64]])
    };
    let texts = vec![b"a"[..].into(), b""[..].into()];
    vec![
        ("bool", typed("bool", "BOOL", InferTensorContents { bool_contents: vec![true, false], ..empty() })),
        ("int8", typed("int8", "INT8", InferTensorContents { int_contents: vec![-1, 127], ..empty() })),
        ("int16", typed("int16", "INT16", InferTensorContents { int_contents: vec![-1, 300], ..empty() })),
        (
            "int64",
            typed("int64", "INT64", InferTensorContents { int64_contents: vec![-1, 1 << 40], ..empty() }),
        ),
        (
            "uint32",
            typed("uint32", "UINT32", InferTensorContents { uint_contents: vec![1, u32::MAX], ..empty() }),
        ),
        (
            "uint64",
            typed("uint64", "UINT64", InferTensorContents { uint64_contents: vec![1, 1 << 63], ..empty() }),
        ),
        ("fp32", typed("fp32", "FP32", InferTensorContents { fp32_contents: vec![1.0, -0.0], ..empty() })),
        (
            "fp64",
            typed("fp64", "FP64", InferTensorContents { fp64_contents: vec![1.0, f64::NAN], ..empty() }),
        ),
        ("bytes", typed("bytes", "BYTES", InferTensorContents { bytes_contents: texts, ..empty() })),
        ("misfit", typed("int8", "INT8", InferTensorContents { int_contents: vec![-1, 128], ..empty() })),
        (
            "raw",
            request(
                vec![input("fp16", "FP16", &[2], None), input("uint8", "UINT8", &[1], None)],
                &[&[0, 60, 0, 64], &[9]],
            ),
        ),
        ("raw-bytes", request(vec![input("bytes", "BYTES", &[1], None)], &[b"\x02\0\0\0ab"])),
        ("empty", request(vec![input("int32", "INT32", &[0, 3], None)], &[b""])),
        ("negative", request(vec![input("int32", "INT32", &[-1], None)], &[b""])),
        ("full", full),
    ]
}

fn messages() -> Vec<Seed> {
    let named = ModelMetadataRequest { name: "any".into(), version: String::new() }.encode_to_vec();
    let load =
        RepositoryModelLoadRequest { model_name: "any".into(), ..RepositoryModelLoadRequest::default() };
    let infer = requests().into_iter().map(|(name, request)| (255, name, request.encode_to_vec()));
    let others = [(0, "live", Vec::new()), (4, "metadata", named.clone()), (5, "config", named.clone())];
    let more = [(6, "statistics", named), (8, "load", load.encode_to_vec()), (13, "health", Vec::new())];
    let last = [(14, "watch", Vec::new()), (15, "reflection", vec![0x3a, 0])];
    let all = infer.chain(others).chain(more).chain(last);
    all.map(|(method, name, message)| ("grpc", name.to_owned(), [&[method][..], &message].concat())).collect()
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[flag], &length[..], message].concat()
}

fn streams() -> Vec<Seed> {
    let messages: Vec<_> =
        requests().into_iter().map(|(name, request)| (name, request.encode_to_vec())).collect();
    let seed = |encoding: u8, size: u8, name: String, came: Vec<u8>| {
        ("stream", name, [&[encoding, size][..], &came].concat())
    };
    let mut seeds: Vec<Seed> = messages
        .windows(2)
        .map(|pair| {
            let came = pair.iter().flat_map(|(_, message)| framed(0, message)).collect();
            seed(3, 7, format!("{}-{}", pair[0].0, pair[1].0), came)
        })
        .collect();
    for (at, encoding, name) in [(0, Encoding::Gzip, "gzip"), (1, Encoding::Deflate, "deflate")] {
        let packed = messages.iter().take(3).flat_map(|(_, message)| framed(1, &encoding.compress(message)));
        seeds.push(seed(at, 50, name.to_owned(), packed.collect()));
    }
    let first = framed(0, messages.first().map(|(_, message)| message.as_slice()).unwrap_or_default());
    seeds.extend([
        seed(3, 1, "garbage".to_owned(), [&first[..], &framed(0, b"\xff\xff")].concat()),
        seed(3, 3, "cut".to_owned(), first[..first.len() - 1].to_vec()),
        seed(3, 3, "flag".to_owned(), framed(2, b"")),
        seed(3, 3, "too-large".to_owned(), [&first[..], &[0, 255, 255, 255, 255]].concat()),
        seed(3, 0, "nothing".to_owned(), framed(0, b"")),
    ]);
    seeds
}
