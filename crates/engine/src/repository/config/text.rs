//! From text to a message: what people leave out, and where a fault is.
use miette::Diagnostic as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, text_format::ParseError};

/// A fault of the text, by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong, and what was perhaps meant.
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Parses text by its schema.
///
/// # Errors
/// The first fault.
pub fn parse(schema: &MessageDescriptor, text: &str) -> Result<DynamicMessage, Fault> {
    let text = &with_colons(text);
    DynamicMessage::parse_text_format(schema.clone(), text).map_err(|error| place(schema, &error, text))
}

/// Writes the colon before a list of messages, which the text format lets people leave out (`input [ { ... } ]`) and
/// the parser wants. It takes the place of a blank where there is one, so that columns stay what they are.
///
/// # Source
/// Protocol Buffers, "Text Format Language Specification", "Field": the colon is optional before messages and lists of
/// them.
fn with_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut quote = None;
    let mut escaped = false;
    let mut comment = false;
    for letter in text.chars() {
        if comment {
            comment = letter != '\n';
        } else if let Some(open) = quote {
            if !escaped && letter == open {
                quote = None;
            }
            escaped = !escaped && letter == '\\';
        } else {
            match letter {
                '#' => comment = true,
                '"' | '\'' => quote = Some(letter),
                '[' => colon(&mut out),
                _ => (),
            }
        }
        out.push(letter);
    }
    out
}

/// Puts a colon behind the field's name that `out` ends with, if it does.
fn colon(out: &mut String) {
    let name = out.trim_end_matches([' ', '\t']);
    if !name.ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_') {
        return;
    }
    let at = name.len();
    if at < out.len() {
        out.replace_range(at..=at, ":");
    } else {
        out.push(':');
    }
}

/// The parser's words with line and column, and the name that was perhaps meant.
fn place(schema: &MessageDescriptor, error: &ParseError, text: &str) -> Fault {
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    let before = text.get(..offset.unwrap_or(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    let said = error.to_string();
    let message = match way_out(schema, &said) {
        Some(way_out) => format!("{said}; {way_out}"),
        None => said,
    };
    Fault { line, column, message }
}

/// What other formats and languages call the datatypes of the schema.
const ALIASES: [(&str, &str); 6] = [
    ("TYPE_FLOAT", "TYPE_FP32"),
    ("TYPE_DOUBLE", "TYPE_FP64"),
    ("TYPE_HALF", "TYPE_FP16"),
    ("TYPE_BFLOAT16", "TYPE_BF16"),
    ("TYPE_LONG", "TYPE_INT64"),
    ("TYPE_BYTES", "TYPE_STRING"),
];

/// The known name that was perhaps meant by the unknown one in the parser's words, or else those that a value may have.
fn way_out(schema: &MessageDescriptor, said: &str) -> Option<String> {
    let mut quoted = said.split('\'').skip(1).step_by(2);
    let (name, place) = (quoted.next()?, quoted.next()?);
    let pool = schema.parent_pool();
    let meant = |known: &[String]| {
        let alias =
            ALIASES.iter().find(|(alias, _)| name.eq_ignore_ascii_case(alias)).map(|(_, meant)| *meant);
        let alias = alias.filter(|meant| known.iter().any(|known| known == meant));
        let meant = alias.or_else(|| nearest(name, known.iter().map(String::as_str)))?;
        Some(format!("did you mean '{meant}'?"))
    };
    if said.starts_with("field ") {
        let message = pool.get_message_by_name(place)?;
        return meant(&message.fields().map(|field| field.name().to_owned()).collect::<Vec<_>>());
    }
    if said.starts_with("value ") {
        let values = pool.get_enum_by_name(place)?;
        let known: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
        return meant(&known).or_else(|| Some(format!("known are {}", known.join(", "))));
    }
    None
}

/// The name that differs least, if it does not differ much.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let close = (name.chars().count() / 3).max(2);
    let by_distance = known.map(|known| (distance(name, known), known)).filter(|(far, _)| *far <= close);
    by_distance.min().map(|(_, known)| known)
}

/// Letters to change, add or leave out, of the first hundred. Case counts for nothing.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| -> Vec<char> { text.to_lowercase().chars().take(100).collect() };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (place, y) in row.iter_mut().skip(1).zip(&b) {
            let cell = (diagonal + usize::from(x != y)).min(left + 1).min(*place + 1);
            (diagonal, left, *place) = (*place, cell, cell);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters_to_change() {
        for (a, b, far) in
            [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("A", "a", 0)]
        {
            assert_eq!((distance(a, b), distance(b, a)), (far, far), "{a} {b}");
        }
    }
}
