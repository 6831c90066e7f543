//! Paths of the protocol, read once into what they mean.
//!
//! A model's name is percent-decoded once, as one segment: an encoded slash is part of a name, never of a path.
use percent_encoding::percent_decode_str;
use xebec_core::InferError;

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Server,
    Live,
    Ready,
    Models,
    /// The same as the repository's index.
    Index {
        repository: String,
    },
    Load {
        repository: String,
        model: String,
    },
    Unload {
        repository: String,
        model: String,
    },
    /// Of all models.
    Statistics,
    Model {
        verb: Verb,
        model: String,
        version: String,
    },
    /// Regions of system shared memory; `None` for a path below theirs that means nothing.
    SharedMemory(Option<Region>),
    /// The regions of CUDA's memory, of which there are never any; of one, or of all where the name is empty.
    CudaStatus(String),
    CudaUnregister,
    /// The log's settings.
    Logging,
    /// The settings of traces, of all models if it is empty.
    Trace {
        model: String,
    },
    /// Known, but not offered, by name.
    NotOffered(String),
}

/// What is wanted of regions of shared memory: of one, or of all where the name is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Region {
    Status(String),
    Register(String),
    Unregister(String),
}

/// What is wanted of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Metadata,
    Ready,
    Config,
    Statistics,
    Infer,
}

/// Reads a path.
///
/// # Errors
/// [`InferError::UnknownPath`] for one that the protocol does not have.
pub(super) fn parse(path: &str) -> Result<Target, InferError> {
    let unknown = || InferError::UnknownPath { path: path.chars().take(200).collect() };
    let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
    let segments: Vec<&str> = rest.trim_end_matches('/').split('/').skip(1).collect();
    match segments.as_slice() {
        [] => Ok(Target::Server)
            .and_then(|target| if rest.is_empty() || rest == "/" { Ok(target) } else { Err(unknown()) }),
        ["health", "live"] => Ok(Target::Live),
        ["health", "ready"] => Ok(Target::Ready),
        ["models"] => Ok(Target::Models),
        ["models", "stats"] => Ok(Target::Statistics),
        // An empty version would be "the newest" to what reads it further on.
        ["models", "", ..] | ["models", _, "versions", "", ..] => Err(unknown()),
        ["models", model, "versions", version, verb @ ..] => target(model, version, verb).ok_or_else(unknown),
        ["models", model, verb @ ..] => target(model, "", verb).ok_or_else(unknown),
        ["repository", "index"] => Ok(Target::Index { repository: String::new() }),
        ["repository", repository, "index"] => Ok(Target::Index { repository: decode(repository) }),
        ["repository", repository @ .., "models", model, verb @ ("load" | "unload")] => {
            let repository = match repository {
                [] => String::new(),
                [repository] => decode(repository),
                _ => return Err(unknown()),
            };
            let model = decode(model);
            Ok(match *verb {
                "load" => Target::Load { repository, model },
                _ => Target::Unload { repository, model },
            })
        }
        ["systemsharedmemory", rest @ ..] => Ok(Target::SharedMemory(region(rest))),
        ["cudasharedmemory", rest @ ..] => Ok(match region(rest) {
            Some(Region::Status(name)) => Target::CudaStatus(name),
            Some(Region::Unregister(_)) => Target::CudaUnregister,
            Some(Region::Register(_)) | None => Target::NotOffered("CUDA shared memory".into()),
        }),
        ["trace", "setting"] => Ok(Target::Trace { model: String::new() }),
        ["logging"] => Ok(Target::Logging),
        _ => Err(unknown()),
    }
}

fn region(rest: &[&str]) -> Option<Region> {
    Some(match rest {
        ["status"] => Region::Status(String::new()),
        ["unregister"] => Region::Unregister(String::new()),
        // An empty name would be "all" to what reads it further on.
        ["region", "", ..] => return None,
        ["region", name, "status"] => Region::Status(decode(name)),
        ["region", name, "register"] => Region::Register(decode(name)),
        ["region", name, "unregister"] => Region::Unregister(decode(name)),
        _ => return None,
    })
}

fn target(model: &str, version: &str, verb: &[&str]) -> Option<Target> {
    let verb = match verb {
        [] => Verb::Metadata,
        ["ready"] => Verb::Ready,
        ["config"] => Verb::Config,
        ["infer"] => Verb::Infer,
        ["stats"] => Verb::Statistics,
        ["generate"] => return Some(Target::NotOffered("the verb 'generate'".into())),
        ["generate_stream"] => return Some(Target::NotOffered("the verb 'generate_stream'".into())),
        // Versions of a model have them together, as with Triton.
        ["trace", "setting"] => return Some(Target::Trace { model: decode(model) }),
        _ => return None,
    };
    Some(Target::Model { verb, model: decode(model), version: decode(version) })
}

/// What is not UTF-8 becomes a name that nothing has.
fn decode(raw: &str) -> String {
    percent_decode_str(raw).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(verb: Verb, model: &str, version: &str) -> Target {
        Target::Model { verb, model: model.into(), version: version.into() }
    }

    fn memory(region: Region) -> Target {
        Target::SharedMemory(Some(region))
    }

    #[test]
    fn every_path_of_the_protocol_is_read() {
        let cases = [
            ("/v2", Target::Server),
            ("/v2/", Target::Server),
            ("/v2/health/live", Target::Live),
            ("/v2/health/ready", Target::Ready),
            ("/v2/models", Target::Models),
            ("/v2/repository/index", Target::Index { repository: String::new() }),
            ("/v2/repository/a%20b/index", Target::Index { repository: "a b".into() }),
            ("/v2/models/stats", Target::Statistics),
            ("/v2/logging", Target::Logging),
            ("/v2/trace/setting", Target::Trace { model: String::new() }),
            ("/v2/models/m/trace/setting", Target::Trace { model: "m".into() }),
            ("/v2/models/m/versions/2/trace/setting", Target::Trace { model: "m".into() }),
            ("/v2/systemsharedmemory/status", memory(Region::Status(String::new()))),
            ("/v2/systemsharedmemory/unregister", memory(Region::Unregister(String::new()))),
            ("/v2/systemsharedmemory/region/a%20b/status", memory(Region::Status("a b".into()))),
            ("/v2/systemsharedmemory/region/r/register", memory(Region::Register("r".into()))),
            ("/v2/systemsharedmemory/region/r/unregister", memory(Region::Unregister("r".into()))),
            ("/v2/systemsharedmemory/register", Target::SharedMemory(None)),
            ("/v2/systemsharedmemory/region//unregister", Target::SharedMemory(None)),
            ("/v2/systemsharedmemory", Target::SharedMemory(None)),
            ("/v2/repository/models/m/load", Target::Load { repository: String::new(), model: "m".into() }),
            (
                "/v2/repository/r/models/a%2fb/unload",
                Target::Unload { repository: "r".into(), model: "a/b".into() },
            ),
            ("/v2/models/stats/versions/1", model(Verb::Metadata, "stats", "1")),
            ("/v2/models/m/versions/2/stats", model(Verb::Statistics, "m", "2")),
            ("/v2/models/m", model(Verb::Metadata, "m", "")),
            ("/v2/models/m/versions/3/infer", model(Verb::Infer, "m", "3")),
            ("/v2/models/m/ready", model(Verb::Ready, "m", "")),
            ("/v2/models/a%20b/config", model(Verb::Config, "a b", "")),
            ("/v2/models/..%2f..%2fetc/infer", model(Verb::Infer, "../../etc", "")),
        ];
        for (path, want) in cases {
            assert_eq!(parse(path), Ok(want), "{path}");
        }
        for path in [
            "/",
            "/v1/models",
            "/v2x",
            "/v2/health",
            "/v2/repository/a/b/models/m/load",
            "/v2/models/m/nothing",
            "/v2/models/m/infer/x",
            "/v2/models/m/versions",
            "/v2/models/m/versions/",
            "/v2/models/m/versions//infer",
            "/v2/models/m/versions//ready",
            "/v2/models//infer",
            "/v2/models//versions/1/infer",
        ] {
            assert!(matches!(parse(path), Err(InferError::UnknownPath { .. })), "{path}");
        }
    }

    #[test]
    fn what_triton_has_and_this_server_has_not_is_named() {
        for path in [
            "/v2/models/m/generate",
            "/v2/models/m/generate_stream",
            "/v2/cudasharedmemory/region/r/register",
        ] {
            assert!(matches!(parse(path), Ok(Target::NotOffered(_))), "{path}");
        }
    }
}
