//! Rust from `proto/*.proto`, without a `protoc`.
//!
//! The output is committed, so that a build needs none of this; `tests/it/generated.rs` compares.
use anyhow::Context as _;
use prost::Message as _;
use prost_build::Config;
use std::path::{Path, PathBuf};

mod reference;

/// One generated file.
#[derive(Debug)]
pub struct Generated {
    /// Path from the repository's root.
    pub path: &'static str,
    /// What belongs there.
    pub content: Vec<u8>,
}

const CONFIG: &str = "crates/core/src/model_config/generated.rs";
const DESCRIPTOR: &str = "crates/core/src/model_config/descriptor.bin";
const SERVICE: &str = "crates/net/src/wire/inference.rs";
const HEALTH: &str = "crates/net/src/wire/health.rs";
const REFLECTION: &str = "crates/net/src/wire/reflection.rs";
const OTLP: &str = "crates/net/src/wire/otlp.rs";
const SERVICES: &str = "crates/net/src/wire/descriptor.bin";
const REFERENCE: &str = "docs/reference/config.md";
const ONNX: &str = "crates/engine/src/onnx/generated.rs";

/// The repository's root, from this crate's place in it.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Generates every file anew.
///
/// # Errors
/// A proto file does not compile.
pub fn all() -> anyhow::Result<Vec<Generated>> {
    let config = descriptors("model_config.proto")?;
    Ok(vec![
        Generated { path: DESCRIPTOR, content: config.encode_to_vec() },
        rust(CONFIG, "inference", &mut settings(), &config)?,
        rust(SERVICE, "inference", &mut with_config_from_core(&config), &descriptors("grpc_service.proto")?)?,
        rust(HEALTH, "grpc.health.v1", &mut settings(), &descriptors("health.proto")?)?,
        rust(REFLECTION, "grpc.reflection.v1", &mut settings(), &descriptors("reflection_v1.proto")?)?,
        rust(OTLP, "otlp", &mut settings(), &descriptors("otlp.proto")?)?,
        Generated { path: SERVICES, content: services()?.encode_to_vec() },
        rust(ONNX, "onnx", &mut settings(), &descriptors("onnx.proto")?)?,
        Generated { path: REFERENCE, content: reference::page()?.into() },
    ])
}

fn descriptors(file: &str) -> anyhow::Result<prost_types::FileDescriptorSet> {
    let folder = root().join("proto");
    protox::compile([folder.join(file)], [&folder]).with_context(|| format!("proto/{file} does not compile"))
}

/// The schema of every service, as reflection gives it to callers: without comments.
fn services() -> anyhow::Result<prost_types::FileDescriptorSet> {
    let folder = root().join("proto");
    let files = ["grpc_service.proto", "health.proto", "reflection_v1.proto", "reflection_v1alpha.proto"];
    let mut all = protox::compile(files.map(|file| folder.join(file)), [&folder])
        .context("the services below proto/ do not compile")?;
    all.file.iter_mut().for_each(|file| file.source_code_info = None);
    Ok(all)
}

fn settings() -> Config {
    let mut config = Config::new();
    // Tensors stay views on the received bytes, and maps keep a stable order without a random state.
    config.bytes(["."]).btree_map(["."]).disable_comments(["."]);
    config
}

/// The configuration's messages live in core, where the engine and the protocols both see them.
fn with_config_from_core(config: &prost_types::FileDescriptorSet) -> Config {
    let mut settings = settings();
    for file in &config.file {
        let names = file.message_type.iter().map(|m| m.name()).chain(file.enum_type.iter().map(|e| e.name()));
        for name in names {
            settings.extern_path(format!(".inference.{name}"), format!("::xebec_core::model_config::{name}"));
        }
    }
    settings
}

fn rust(
    path: &'static str,
    package: &str,
    config: &mut Config,
    descriptors: &prost_types::FileDescriptorSet,
) -> anyhow::Result<Generated> {
    let folder = tempfile::tempdir()?;
    config.out_dir(folder.path()).compile_fds(descriptors.clone())?;
    let text = std::fs::read_to_string(folder.path().join(format!("{package}.rs")))?;
    // prost says the same in its own first line, but not with which command.
    let body = text.split_once('\n').map_or(text.as_str(), |(_, body)| body);
    Ok(Generated {
        path,
        content: format!("// @generated from proto/ by `make generate`. Do not edit.\n{body}").into(),
    })
}
