//! The few fields of a `config.pbtxt` that tuning sets, changed in its text: comments and everything else stay.
//!
//! Invariant: a changed text parses to the old configuration with exactly these fields changed, or there is none.
//!
//! # Source
//! Protocol Buffers, "Text Format Language Specification".
use super::space::{Arrangement, Class};
use std::ops::Range;
use xebec_core::model_config::{
    ModelConfig, ModelDynamicBatching, ModelInstanceGroup, ModelParameter, model_config::SchedulingChoice,
    model_instance_group::Kind,
};
use xebec_engine::repository::config::parse;

#[cfg(test)]
mod tests;

/// Key of the parameter that Triton's backend for ONNX Runtime takes for the threads of a run.
pub(super) const THREADS: &str = "intra_op_thread_count";

/// The threads of a run that a configuration asks for.
pub(super) fn threads(config: &ModelConfig) -> Option<u32> {
    config.parameters.get(THREADS)?.string_value.trim().parse().ok()
}

/// The first field of the instance groups that says more than how many run on the CPU: what is measured has none of it.
pub(super) fn beyond(config: &ModelConfig) -> Option<&'static str> {
    let elsewhere = |kind: i32| kind != Kind::Cpu as i32 && kind != Kind::Auto as i32;
    config.instance_group.iter().find_map(|group| {
        let fields = [
            (elsewhere(group.kind), "kind"),
            (!group.gpus.is_empty(), "gpus"),
            (group.rate_limiter.is_some(), "rate_limiter"),
            (group.passive, "passive"),
        ];
        fields.into_iter().find_map(|(said, field)| said.then_some(field))
    })
}

/// The fields of an arrangement, as lines of their own.
pub(super) fn lines(arrangement: Arrangement) -> String {
    let Arrangement { class, batch, delay_us } = arrangement;
    let mut text = String::new();
    if batch > 0 {
        text.push_str(&format!("max_batch_size: {batch}\n"));
        text.push_str(&format!("dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}\n"));
    }
    match class {
        Class::Inline => text.push_str("# no instance_group: the model is tiny and runs inline\n"),
        Class::Queued { instances, threads } => {
            text.push_str(&format!("{}\n{}\n", group(instances), parameter(threads)));
        }
    }
    text
}

fn group(instances: u32) -> String {
    format!("instance_group [ {{ count: {instances} kind: KIND_CPU }} ]")
}

fn parameter(threads: u32) -> String {
    format!("parameters {{ key: \"{THREADS}\" value: {{ string_value: \"{threads}\" }} }}")
}

/// A text with the fields of an arrangement; `None` if it has a form that is not changed safely.
pub(super) fn changed(text: &str, arrangement: Arrangement) -> Option<String> {
    let wanted = wanted(parse(text).ok()?, arrangement);
    let Arrangement { class, batch, delay_us } = arrangement;
    let mut edit = Edit { text: text.to_owned() };
    if batch > 0 {
        edit.set("max_batch_size", &format!("max_batch_size: {batch}"))?;
        edit.batching(delay_us)?;
    }
    match class {
        Class::Inline => {
            edit.remove("instance_group")?;
            edit.threads(None)?;
        }
        Class::Queued { instances, threads } => {
            edit.set("instance_group", &group(instances))?;
            edit.threads(Some(threads))?;
        }
    }
    (parse(&edit.text).ok()? == wanted).then_some(edit.text)
}

/// What the changed text is to say.
fn wanted(mut config: ModelConfig, arrangement: Arrangement) -> ModelConfig {
    let Arrangement { class, batch, delay_us } = arrangement;
    if batch > 0 {
        config.max_batch_size = i32::try_from(batch).unwrap_or(i32::MAX);
        let mut dynamic = match config.scheduling_choice.take() {
            Some(SchedulingChoice::DynamicBatching(dynamic)) => dynamic,
            _ => ModelDynamicBatching::default(),
        };
        dynamic.preferred_batch_size.clear();
        dynamic.max_queue_delay_microseconds = delay_us;
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(dynamic));
    }
    config.instance_group.clear();
    config.parameters.remove(THREADS);
    if let Class::Queued { instances, threads } = class {
        let count = i32::try_from(instances).unwrap_or(i32::MAX);
        let kind = Kind::Cpu as i32;
        config.instance_group = vec![ModelInstanceGroup { count, kind, ..ModelInstanceGroup::default() }];
        let parameter = ModelParameter { string_value: threads.to_string() };
        config.parameters.insert(THREADS.to_owned(), parameter);
    }
    config
}

/// A text that is being changed.
struct Edit {
    text: String,
}

/// Where a field of a message is.
struct Field {
    name: String,
    /// From its name to the end of its value.
    whole: Range<usize>,
    value: Range<usize>,
}

impl Edit {
    fn fields(&self, within: Range<usize>) -> Option<Vec<Field>> {
        Scanner { text: &self.text, at: within.start, end: within.end }.fields()
    }

    fn named(&self, name: &str) -> Option<Vec<Field>> {
        let fields = self.fields(0..self.text.len())?;
        Some(fields.into_iter().filter(|field| field.name == name).collect())
    }

    /// Puts one field in the place of all of a name, or at the end.
    fn set(&mut self, name: &str, field: &str) -> Option<()> {
        let mut found = self.named(name)?;
        if found.is_empty() {
            self.append(field);
            return Some(());
        }
        let first = found.remove(0);
        found.iter().rev().for_each(|field| self.cut(field.whole.clone()));
        self.text.replace_range(first.whole, field);
        Some(())
    }

    fn remove(&mut self, name: &str) -> Option<()> {
        self.named(name)?.iter().rev().for_each(|field| self.cut(field.whole.clone()));
        Some(())
    }

    /// Sets the delay of `dynamic_batching` and takes the preferred sizes out; its other fields stay.
    fn batching(&mut self, delay_us: u64) -> Option<()> {
        let delay = format!("max_queue_delay_microseconds: {delay_us}");
        let found = self.named("dynamic_batching")?;
        let Some(message) = found.first() else {
            self.append(&format!("dynamic_batching {{ {delay} }}"));
            return Some(());
        };
        let inner = self.inside(&message.value)?;
        let fields = self.fields(inner.clone())?;
        let mut placed = false;
        // From behind, so that what stands before keeps its place.
        for field in fields.iter().rev() {
            match field.name.as_str() {
                "max_queue_delay_microseconds" => {
                    self.text.replace_range(field.whole.clone(), &delay);
                    placed = true;
                }
                "preferred_batch_size" => self.cut(field.whole.clone()),
                _ => (),
            }
        }
        if !placed {
            self.text.insert_str(inner.start, &format!(" {delay}"));
        }
        Some(())
    }

    fn threads(&mut self, threads: Option<u32>) -> Option<()> {
        let found = self.named("parameters")?;
        let ours = |field: &&Field| self.text[field.value.clone()].contains(THREADS);
        let mut ours: Vec<Range<usize>> =
            found.iter().filter(ours).map(|field| field.whole.clone()).collect();
        match (ours.pop(), threads) {
            (Some(whole), Some(threads)) => self.text.replace_range(whole, &parameter(threads)),
            (Some(whole), None) => self.cut(whole),
            (None, Some(threads)) => self.append(&parameter(threads)),
            (None, None) => (),
        }
        ours.is_empty().then_some(())
    }

    /// The text between the braces of a message, or of a list of one.
    fn inside(&self, value: &Range<usize>) -> Option<Range<usize>> {
        let text = self.text.get(value.clone())?;
        text.starts_with('{').then(|| value.start + 1..value.end - 1)
    }

    fn append(&mut self, field: &str) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str(field);
        self.text.push('\n');
    }

    /// Takes a field out, and its line if nothing else stands there.
    fn cut(&mut self, whole: Range<usize>) {
        let begin = self.text[..whole.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[whole.end..].find('\n').map_or(self.text.len(), |at| whole.end + at + 1);
        let alone = self.text[begin..whole.start].trim().is_empty()
            && self.text[whole.end..end].trim_matches([' ', '\t', '\n', '\r', ',', ';']).is_empty();
        self.text.replace_range(if alone { begin..end } else { whole }, "");
    }
}

/// Finds the fields of a message without knowing its schema.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    end: usize,
}

impl Scanner<'_> {
    fn fields(mut self) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            self.blank(b",;");
            if self.at >= self.end {
                return Some(fields);
            }
            let begin = self.at;
            while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                self.at += 1;
            }
            let name = self.text.get(begin..self.at).filter(|name| !name.is_empty())?.to_owned();
            self.blank(b":");
            let value = self.value()?;
            fields.push(Field { name, whole: begin..value.end, value });
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied().filter(|_| self.at < self.end)
    }

    /// Passes blanks, comments and what else may stand there.
    fn blank(&mut self, also: &[u8]) {
        while let Some(byte) = self.peek() {
            match byte {
                b'#' => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                byte if byte.is_ascii_whitespace() || also.contains(&byte) => self.at += 1,
                _ => return,
            }
        }
    }

    fn value(&mut self) -> Option<Range<usize>> {
        let begin = self.at;
        match self.peek()? {
            b'{' | b'[' | b'<' => self.nested()?,
            b'"' | b'\'' => self.strings()?,
            _ => {
                while self
                    .peek()
                    .is_some_and(|byte| !byte.is_ascii_whitespace() && !b",;}]>#".contains(&byte))
                {
                    self.at += 1;
                }
            }
        }
        (self.at > begin).then_some(begin..self.at)
    }

    /// A message or a list, to its end.
    fn nested(&mut self) -> Option<()> {
        let mut depth = 0usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' | b'[' | b'<' => depth += 1,
                b'}' | b']' | b'>' => depth = depth.checked_sub(1)?,
                b'"' | b'\'' => {
                    self.string()?;
                    continue;
                }
                b'#' => {
                    self.blank(b"");
                    continue;
                }
                _ => (),
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
        None
    }

    /// Texts beside each other are one.
    fn strings(&mut self) -> Option<()> {
        self.string()?;
        loop {
            let end = self.at;
            self.blank(b"");
            if !matches!(self.peek(), Some(b'"' | b'\'')) {
                self.at = end;
                return Some(());
            }
            self.string()?;
        }
    }

    fn string(&mut self) -> Option<()> {
        let quote = self.peek()?;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                return Some(());
            }
        }
        None
    }
}
