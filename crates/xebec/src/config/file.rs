//! The file of settings: YAML whose keys are the flags' names.
//!
//! A value is taken as it stands in the file, not as YAML would type it: `off` is a word and `1.10` is not `1.1`.
use super::{
    Faults,
    flags::{REPOSITORY, Setting},
};
use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{Options, Spanned};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) repositories: Vec<PathBuf>,
    /// Name, text and line of each setting.
    pub(super) values: Vec<(&'static str, String, u64)>,
    /// Keys that no setting has, and their lines.
    unknown: Vec<(String, u64)>,
}

/// Reads a file; `None` if it cannot be read at all.
pub(super) fn read(path: &Path, faults: &mut Faults) -> Option<File> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.add(format!("--config: cannot read {}: {error}", path.display()));
            return None;
        }
    };
    match parse(&text) {
        Ok(file) => {
            for (key, line) in &file.unknown {
                faults.add(format!(
                    "{} line {line}: '{key}' is not a setting; see xebec serve --help",
                    path.display()
                ));
            }
            Some(file)
        }
        Err(error) => {
            faults.add(format!("{}: {}", path.display(), said(&error)));
            None
        }
    }
}

fn parse(text: &str) -> Result<File, serde_saphyr::Error> {
    let file: Option<File> = serde_saphyr::from_str_with_options(text, options())?;
    Ok(file.unwrap_or_default())
}

/// One line a fault: an excerpt of the file would make a list of faults unreadable.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.with_snippet = false;
    options
}

/// What a reader of YAML said.
pub(crate) fn said(error: &serde_saphyr::Error) -> String {
    match error {
        serde_saphyr::Error::MultipleDocuments { location, .. } => {
            format!("a second document begins in line {}; a file of settings has one", location.line())
        }
        serde_saphyr::Error::DuplicateMappingKey { key, location } => {
            let key = key.as_deref().unwrap_or("a key");
            format!("{key} is there twice, again in line {}", location.line())
        }
        serde_saphyr::Error::Unexpected { expected: "string scalar", location } => {
            format!("a single value must stand in line {}", location.line())
        }
        other => other.to_string(),
    }
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> de::Visitor<'de> for Keys {
            type Value = File;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with values, such as http-port: 8000")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
                let mut file = File::default();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let line = key.referenced.line();
                    if key.value == REPOSITORY {
                        file.repositories = map.next_value::<Option<Folders>>()?.unwrap_or_default().0;
                    } else if let Some(setting) = Setting::named(&key.value) {
                        let text = map.next_value::<Option<Text>>()?;
                        file.values.extend(text.map(|text| (setting.name, text.0, line)));
                    } else {
                        map.next_value::<de::IgnoredAny>()?;
                        file.unknown.push((key.value, line));
                    }
                }
                Ok(file)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// A scalar as it stands in the file.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A string is what a scalar is before it is typed.
        String::deserialize(deserializer).map(Self)
    }
}

/// One folder, or a list of them.
#[derive(Default)]
struct Folders(Vec<PathBuf>);

impl<'de> Deserialize<'de> for Folders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> de::Visitor<'de> for OneOrMany {
            type Value = Folders;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a folder, or a list of folders")
            }
            fn visit_str<E: de::Error>(self, folder: &str) -> Result<Folders, E> {
                Ok(Folders(vec![folder.into()]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Folders, A::Error> {
                let mut folders = Vec::new();
                while let Some(folder) = seq.next_element::<String>()? {
                    folders.push(folder.into());
                }
                Ok(Folders(folders))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
