//! What the machine says: cores and variables. The only reader of the environment.
use std::{collections::BTreeMap, path::PathBuf};
use xebec_engine::backend::library::{Search, VARIABLE};

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What the variables of our settings begin with.
const PREFIX: &str = "XEBEC_";

/// The variables with our prefix.
pub fn environment() -> BTreeMap<String, String> {
    let all = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
    all.filter(|(name, _)| name.starts_with(PREFIX)).collect()
}

#[expect(clippy::disallowed_methods, reason = "the one place where other programs' variables are read")]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where ONNX Runtime's library may be; `flag` was named on the command line.
pub fn search(flag: Option<PathBuf>) -> Search {
    let home = variable("HOME");
    let cache = variable("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
    let roots = [variable("VIRTUAL_ENV"), variable("CONDA_PREFIX"), home.map(|home| home.join(".local"))];
    let system = ["/usr/local", "/usr"].map(|root| Some(PathBuf::from(root)));
    Search {
        flag,
        variable: variable(VARIABLE),
        executable_folder: std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from)),
        cache: variable("XEBEC_ENGINE_CACHE").or_else(|| cache.map(|cache| cache.join("xebec/engine"))),
        python_roots: roots.into_iter().chain(system).flatten().collect(),
    }
}
