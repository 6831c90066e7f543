//! Names from outside, parsed once.
//!
//! A value of these types is safe inside a path, a label and a log line. Not here: who may use a
//! name (`permit`).
use std::{collections::BTreeMap, fmt, num::NonZeroU64, sync::Arc};

/// Name of a tenant: one RFC 1123 label, so it is also a legal Kubernetes namespace.
///
/// Holding one proves the name is well formed, not that the caller may act for that tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Name of a model: 1 to 255 bytes, no path separator, no control character, not `.` or `..`.
///
/// # Source
/// Triton's repository layout, where the name is a folder's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

/// Version of a model: a positive decimal number without a leading zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(NonZeroU64);

/// Name that an owner gives to a version: 1 to 64 letters, digits, `_`, `-` and `.`, the first a letter.
///
/// So it is never a number, and needs no escape in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionLabel(Arc<str>);

/// The labels of a model.
pub type VersionLabels = BTreeMap<VersionLabel, Version>;

/// Which version a caller asks for. Nothing is copied, and a text that is no number is only looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionRef<'a> {
    /// The newest that is served.
    Newest,
    /// This one.
    Number(Version),
    /// The one that its owner calls so, if any.
    Label(&'a str),
}

/// A text was not a name of the kind wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not an RFC 1123 label.
    #[error("a tenant name is 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends")]
    Tenant,
    /// Empty, too long, a path or with control characters.
    #[error("a model name is 1 to 255 bytes without '/', '\\' or control characters, and is not '.' or '..'")]
    Model,
    /// Not a positive number.
    #[error("a model version is a positive decimal number without a leading zero")]
    Version,
    /// Empty, too long, or not of the letters of a label.
    #[error("a label of a version is 1 to 64 of letters, digits, '_', '-' and '.', and begins with a letter")]
    Label,
}

impl TenantId {
    /// The tenant of everything on a machine where no tenants are declared.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }

    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidName::Tenant`] if `raw` is not an RFC 1123 label.
    pub fn parse(raw: &str) -> Result<Self, InvalidName> {
        let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = raw.as_bytes();
        let ends = bytes.first().is_some_and(alnum) && bytes.last().is_some_and(alnum);
        let inside = bytes.len() <= 63 && bytes.iter().all(|b| alnum(b) || *b == b'-');
        if ends && inside { Ok(Self(raw.into())) } else { Err(InvalidName::Tenant) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ModelName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidName::Model`] if `raw` could not be one folder's name.
    pub fn parse(raw: &str) -> Result<Self, InvalidName> {
        let bad = |c: char| c == '/' || c == '\\' || c.is_control();
        let ok = !raw.is_empty() && raw.len() <= 255 && raw != "." && raw != ".." && !raw.contains(bad);
        if ok { Ok(Self(raw.into())) } else { Err(InvalidName::Model) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Version {
    /// Version 1, which a bare model file has.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// Checks a version.
    ///
    /// # Errors
    /// [`InvalidName::Version`] for anything but a positive number without a leading zero.
    pub fn parse(raw: &str) -> Result<Self, InvalidName> {
        let digits = !raw.is_empty() && raw.bytes().all(|b| b.is_ascii_digit()) && !raw.starts_with('0');
        let number = if digits { raw.parse().ok() } else { None };
        number.map(Self).ok_or(InvalidName::Version)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl VersionLabel {
    /// Checks a label.
    ///
    /// # Errors
    /// [`InvalidName::Label`] if `raw` is empty, too long, begins with something else than a letter or has other signs.
    pub fn parse(raw: &str) -> Result<Self, InvalidName> {
        let letter = raw.starts_with(|c: char| c.is_ascii_alphabetic());
        let inside = raw.len() <= 64
            && raw.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if letter && inside { Ok(Self(raw.into())) } else { Err(InvalidName::Label) }
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'a> VersionRef<'a> {
    /// Reads what a caller wrote: nothing, a number, or else a label.
    pub fn read(text: &'a str) -> Self {
        match Version::parse(text) {
            Ok(version) => Self::Number(version),
            Err(_) if text.is_empty() => Self::Newest,
            Err(_) => Self::Label(text),
        }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for VersionLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// Maps keyed by a name are asked with the text of a request, without making a name of it first.
impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for VersionLabel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names_that_could_escape_a_path_or_a_label_are_refused() {
        for raw in ["", "-a", "a-", "a/b", "..", "A", "a\n", &"a".repeat(64)] {
            assert_eq!(TenantId::parse(raw), Err(InvalidName::Tenant), "{raw:?}");
        }
        assert!(TenantId::parse("team-7").is_ok());
    }

    #[test]
    fn model_names_that_could_leave_their_folder_are_refused() {
        for raw in ["", ".", "..", "a/b", "a\\b", "a\0", "a\nb", &"a".repeat(256)] {
            assert_eq!(ModelName::parse(raw), Err(InvalidName::Model), "{raw:?}");
        }
        assert!(ModelName::parse("fraud-mlp_v2.1 (ü)").is_ok());
    }

    #[test]
    fn versions_are_positive_numbers_without_leading_zero() {
        for raw in ["", "0", "01", "-1", "1.0", "a", "99999999999999999999999"] {
            assert_eq!(Version::parse(raw), Err(InvalidName::Version), "{raw:?}");
        }
        assert_eq!(Version::parse("17").map(Version::get), Ok(17));
    }

    #[test]
    fn a_label_is_never_a_number_and_needs_no_escape() {
        for raw in ["", "1", "2b", "-a", ".", "_x", "a/b", "a b", "a%", "é", "a\n", &"a".repeat(65)] {
            assert_eq!(VersionLabel::parse(raw), Err(InvalidName::Label), "{raw:?}");
        }
        for raw in ["a", "stable", "v1.2-rc_3", "V", &"a".repeat(64)] {
            assert_eq!(VersionLabel::parse(raw).unwrap().as_str(), raw);
        }
    }

    #[test]
    fn a_version_is_asked_for_by_nothing_a_number_or_a_label() {
        assert_eq!(VersionRef::read(""), VersionRef::Newest);
        assert_eq!(VersionRef::read("1"), VersionRef::Number(Version::FIRST));
        for text in ["stable", "0", "01", "-1", "99999999999999999999999"] {
            assert_eq!(VersionRef::read(text), VersionRef::Label(text));
        }
    }
}
