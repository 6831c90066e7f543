//! The YAML of `xebec up`: every `*.yaml` and `*.yml` of a folder and its direct subfolders.
use crate::config::{Faults, yaml_options, yaml_said};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use xebec_core::resource::{API_VERSION, InferenceGraph, InferenceService, Metadata};
use xebec_engine::repository::{Candidate, RepositoryError};

const SERVICE: &str = "InferenceService";
const GRAPH: &str = "InferenceGraph";

/// A document that was read.
enum Resource {
    Service(InferenceService),
    Graph(InferenceGraph),
}

impl Resource {
    fn name(&self) -> &str {
        match self {
            Self::Service(service) => &service.metadata.name,
            Self::Graph(graph) => &graph.metadata.name,
        }
    }

    /// The models that it describes.
    fn candidates(&self, base: &Path) -> Result<Vec<Candidate>, RepositoryError> {
        match self {
            Self::Service(service) => Candidate::from_service(service, base).map(|candidate| vec![candidate]),
            Self::Graph(graph) => Candidate::from_graph(graph, base),
        }
    }
}

/// Reads the services and graphs of a folder, noting everything that is wrong.
pub fn read(folder: &Path, faults: &mut Faults) -> Vec<Candidate> {
    let files = match yaml_files(folder) {
        Ok(files) => files,
        Err(error) => {
            faults.add(format!("cannot read {}: {error}", folder.display()));
            return Vec::new();
        }
    };
    let mut places: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut candidates = Vec::new();
    for file in &files {
        for resource in documents(file, faults) {
            let name = resource.name().to_owned();
            let found = match resource.candidates(file.parent().unwrap_or(folder)) {
                Ok(found) => found,
                Err(error) => {
                    faults.add(format!("{}: {}", file.display(), chain(&error)));
                    continue;
                }
            };
            for candidate in found {
                let called = candidate.name.to_string();
                if let Some(first) = places.insert(called.clone(), file.clone()) {
                    faults.add(format!(
                        "two services are called '{called}': in {} and in {}",
                        first.display(),
                        file.display()
                    ));
                    continue;
                }
                match folder_of(&candidate) {
                    Some(path) => faults.add(format!(
                        "{}: service '{name}': spec.model.uri names the folder {}; name the .onnx file in it",
                        file.display(),
                        path.display()
                    )),
                    None => candidates.push(candidate),
                }
            }
        }
    }
    if places.is_empty() && faults.is_empty() {
        faults.add(format!(
            "no InferenceService in {} or its direct subfolders; a file begins with\n      apiVersion: {API_VERSION}\n      kind: {SERVICE}",
            folder.display()
        ));
    }
    candidates
}

/// The path of a model that is made of a file, if it is a folder.
fn folder_of(candidate: &Candidate) -> Option<&PathBuf> {
    if candidate.is_of_no_file().is_some() {
        return None;
    }
    candidate.versions.values().find(|path| path.is_dir())
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn yaml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            folders.push(path);
        }
    }
    for folder in folders {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if yaml && path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What a file describes. Each document is read by itself, so that a fault in one does not hide those of the next.
fn documents(file: &Path, faults: &mut Faults) -> Vec<Resource> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            faults.add(format!("cannot read {}: {error}", file.display()));
            return Vec::new();
        }
    };
    let mut all = Vec::new();
    for (index, document) in split(&text).iter().enumerate() {
        match resource(document) {
            Ok(found) => all.extend(found),
            Err(fault) => {
                let whose = fault
                    .whose
                    .map_or_else(|| format!("document {}", index + 1), |name| format!("service '{name}'"));
                faults.add(format!("{}: {whose}: {}", file.display(), fault.text));
            }
        }
    }
    all
}

/// Divides a stream of YAML at its markers, which stand at the begin of a line and nowhere else. Blank lines take the
/// place of what came before, so that an error names the line of the file.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marks = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marks {
            documents.push("\n".repeat(number));
        }
        if let Some(document) = documents.last_mut() {
            document.push_str(line);
        }
    }
    if documents.len() > 1 && is_bare(&documents[0]) {
        documents.remove(0);
    }
    documents
}

/// Whether nothing stands there but comments: what is before the first marker is then no document.
fn is_bare(document: &str) -> bool {
    document.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

/// What is wrong with a document, and whose it is.
struct Fault {
    whose: Option<String>,
    text: String,
}

/// What tells documents apart; everything else is read when that is known.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    metadata: Option<HeadMetadata>,
}

#[derive(Deserialize)]
struct HeadMetadata {
    #[serde(default)]
    name: Option<String>,
}

/// The whole document. Not a type with a tag: the place of an error would be lost.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document<S> {
    api_version: String,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    metadata: Metadata,
    spec: S,
}

/// What a document describes; `None` if it is empty.
fn resource(document: &str) -> Result<Option<Resource>, Fault> {
    let fault = |whose: Option<&str>, text: String| Fault { whose: whose.map(str::to_owned), text };
    let read = |error: serde_saphyr::Error| yaml_said(&error);
    let head: Option<Head> = serde_saphyr::from_str_with_options(document, yaml_options())
        .map_err(|error| fault(None, read(error)))?;
    let Some(head) = head else { return Ok(None) };
    let name = head.metadata.as_ref().and_then(|metadata| metadata.name.as_deref());
    match (head.api_version.as_deref(), head.kind.as_deref()) {
        (Some(API_VERSION), Some(SERVICE)) => {
            let whole = whole(document).map_err(|text| fault(name, text))?;
            let Document { api_version, metadata, spec, .. } = whole;
            Ok(Some(Resource::Service(InferenceService { api_version, metadata, spec })))
        }
        (Some(API_VERSION), Some(GRAPH)) => {
            let whole = whole(document).map_err(|text| fault(name, text))?;
            let Document { api_version, metadata, spec, .. } = whole;
            Ok(Some(Resource::Graph(InferenceGraph { api_version, metadata, spec })))
        }
        (Some(API_VERSION), Some(kind)) => {
            Err(fault(name, format!("kind is '{kind}', but this version has {SERVICE} and {GRAPH} alone")))
        }
        (Some(API_VERSION), None) => {
            Err(fault(name, format!("kind is missing; write kind: {SERVICE} or {GRAPH}")))
        }
        (Some(version), _) => {
            Err(fault(name, format!("apiVersion is '{version}', but must be {API_VERSION}")))
        }
        (None, _) => Err(fault(name, format!("apiVersion is missing; write apiVersion: {API_VERSION}"))),
    }
}

/// The whole document, now that its kind is known.
fn whole<S: DeserializeOwned>(document: &str) -> Result<Document<S>, String> {
    serde_saphyr::from_str_with_options(document, yaml_options()).map_err(|error| yaml_said(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        std::fs::write(folder.path().join("a.onnx"), "").unwrap();
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let mut faults = Faults::default();
        read(folder.path(), &mut faults);
        let place = format!("{}/", folder.path().display());
        faults.as_slice().iter().map(|fault| fault.replace(&place, "")).collect()
    }

    fn document(name: &str, model: &str) -> String {
        format!(
            "apiVersion: {API_VERSION}\nkind: {SERVICE}\nmetadata: {{name: {name}}}\nspec:\n  model: {{{model}}}\n"
        )
    }

    #[test]
    fn a_fault_in_one_document_hides_no_other_and_each_names_service_field_and_line() {
        let text = [
            document("a", "uri: a.onnx, colour: red"),
            "a: [\n".into(),
            document("b", "uri: a.onnx, format: tflite"),
            document("c", "uri: a.onnx"),
            document("d", "uri: nowhere.onnx"),
        ]
        .join("---\n");
        let found = faults(&text);
        assert_eq!(found.len(), 4, "{found:#?}");
        for (fault, words) in found.iter().zip([
            ["a.yaml: service 'a'", "colour", "line 5"],
            ["a.yaml: document 2", "", "line 7"],
            ["a.yaml: service 'b'", "tflite", "line 13"],
            ["a.yaml: ", "nowhere.onnx", ""],
        ]) {
            assert!(words.iter().all(|word| fault.contains(word)), "{words:?} is missing in {fault}");
        }
    }

    #[test]
    fn a_document_of_another_system_is_refused_by_its_version_and_kind() {
        let kserve = "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: k}\nspec: {predictor: {}}\n";
        let want = format!(
            "a.yaml: service 'k': apiVersion is 'serving.kserve.io/v1beta1', but must be {API_VERSION}"
        );
        assert_eq!(faults(kserve), [want]);
        let found = faults(&format!("apiVersion: {API_VERSION}\nkind: Tenant\n"));
        assert_eq!(
            found,
            [
                "a.yaml: document 1: kind is 'Tenant', but this version has InferenceService and InferenceGraph alone"
            ]
        );
        assert!(faults("kind: InferenceService\n")[0].contains("apiVersion is missing"));
    }

    #[test]
    fn a_uri_that_is_a_folder_says_the_way_out() {
        let found = faults(&document("a", "uri: folder"));
        assert!(found[0].ends_with("name the .onnx file in it"), "{found:?}");
    }

    #[test]
    fn comments_and_empty_documents_are_none() {
        let text = format!("# ours\n---\n{}---\n# nothing\n---\n", document("a", "uri: a.onnx"));
        assert!(faults(&text).is_empty(), "{:?}", faults(&text));
    }
}
