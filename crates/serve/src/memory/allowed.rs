//! Which names of POSIX shared memory callers may register.

/// Names, and beginnings of names, that the operator allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    text: String,
    /// Longer names that begin so are meant as well.
    begins: bool,
}

impl Allowed {
    /// Reads a list of names, separated by commas; `*` at the end of one stands for any ending.
    ///
    /// # Errors
    /// What is wrong, in words. A `*` alone is: whatever any program keeps in shared memory would be open.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split(',').map(|name| pattern(name.trim())).collect::<Result<_, _>>().map(Self)
    }

    /// The name of the file that a key stands for, if it may be registered. Keys begin with a slash or do not.
    pub(super) fn file_name<'k>(&self, key: &'k str) -> Option<&'k str> {
        let name = key.strip_prefix('/').unwrap_or(key);
        let fits = |pattern: &Pattern| match pattern.begins {
            true => name.starts_with(&pattern.text),
            false => name == pattern.text,
        };
        (is_name(name) && self.0.iter().any(fits)).then_some(name)
    }
}

fn pattern(raw: &str) -> Result<Pattern, String> {
    let name = raw.strip_prefix('/').unwrap_or(raw);
    let (text, begins) = name.strip_suffix('*').map_or((name, false), |text| (text, true));
    if !is_name(text) || text.contains('*') {
        return Err(format!(
            "'{raw}' is not a name of shared memory: one name in a folder, with '*' only at its end and not alone"
        ));
    }
    Ok(Pattern { text: text.to_owned(), begins })
}

/// Whether it is one name in a folder.
fn is_name(name: &str) -> bool {
    let bad = |c: char| c == '/' || c.is_control();
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_listed_is_allowed_and_a_key_is_never_a_path() {
        let allowed = Allowed::parse("/input, out-*").unwrap();
        for (key, name) in [
            ("input", Some("input")),
            ("/input", Some("input")),
            ("/out-1", Some("out-1")),
            ("out-", Some("out-")),
            ("input2", None),
            ("other", None),
            ("out-/../secret", None),
            ("out-/x", None),
            ("//input", None),
            ("../input", None),
            ("out-\0", None),
            ("out-\n", None),
            ("", None),
            ("/", None),
        ] {
            assert_eq!(allowed.file_name(key), name, "{key:?}");
        }
        assert_eq!(allowed.file_name(&format!("out-{}", "x".repeat(300))), None);
    }

    #[test]
    fn a_list_that_would_open_everything_or_names_a_path_is_refused() {
        for text in ["", "*", "/*", "a,*", "a,,b", "a*b", "**", "..", ".", "a/b", "../x*", "a\0"] {
            assert!(Allowed::parse(text).is_err(), "{text:?}");
        }
    }
}
