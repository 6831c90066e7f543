//! What an answer says to people: objects in a picture, labels with scores, or tensors as they are.
//!
//! Outputs are known by their names: `boxes`, `scores` and `classes` are objects; `labels` and `scores` are labels; one
//! row of scores is labels too where the model, or the caller, has names for them.
//!
//! Not here: pictures that a model gives back (`saving`).
use super::{
    answer::{Answer, Cell, nested, numbers, texts},
    server::{Model, Wanted},
};
use anyhow::{Context as _, ensure};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Map, Value, json};
use std::path::Path;
use xebec_core::{Datatype, Tensor};

/// The output that is a picture.
pub(super) const PICTURE: &str = "image";

/// Largest file of labels.
const MOST_LABEL_BYTES: u64 = 16 << 20;

/// How answers are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Names of classes by their number; empty if nobody gave any.
    pub(super) names: Vec<String>,
    /// Most labels of an answer.
    pub(super) top: usize,
    /// The output that the server gives as classes.
    pub(super) classes: Option<String>,
}

/// An object in a picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    pub(super) label: String,
    pub(super) score: f64,
    /// Left, top, right, bottom, in pixels.
    pub(super) sides: [f64; 4],
}

/// A label and how sure the model is of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scored {
    pub(super) label: String,
    pub(super) score: f64,
}

/// What was found in an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Objects(Vec<Object>),
    /// The best first.
    Labels(Vec<Scored>),
    /// Nothing that has a name here.
    Tensors,
}

impl Reading {
    /// Reads the names of classes, a line each.
    ///
    /// # Errors
    /// The file cannot be read, or is no text.
    pub(super) fn new(labels: Option<&Path>, top: usize) -> anyhow::Result<Self> {
        let Some(file) = labels else { return Ok(Self { top, ..Self::default() }) };
        let unread = || format!("cannot read the labels in {}", file.display());
        let size = file.metadata().with_context(unread)?.len();
        ensure!(size <= MOST_LABEL_BYTES, "{} has {size} bytes: that is no list of labels", file.display());
        let text = std::fs::read_to_string(file).with_context(unread)?;
        let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        ensure!(!names.is_empty(), "{} is empty; write a label a line", file.display());
        Ok(Self { names, top, classes: None })
    }

    fn name(&self, class: f64) -> String {
        let known = self.names.iter().enumerate().find(|(index, _)| same(*index, class));
        known.map_or_else(|| class.to_string(), |(_, name)| name.clone())
    }

    /// Finds out which output the model has labels for, by asking for it as classes once; `inputs` is any good request.
    pub(super) fn probe(&mut self, model: &Model, wanted: &[Wanted], inputs: &[Tensor]) {
        if !self.names.is_empty() {
            return;
        }
        let Some(name) = candidate(model, wanted) else { return };
        let ask = [Wanted { name: name.clone(), classes: Some(self.top.max(1)) }];
        // What is wrong with the request is told by the one that counts.
        let Ok(answer) = model.ask(inputs, &ask) else { return };
        let labelled = answer.output(&name).and_then(texts).unwrap_or_default();
        if labelled.iter().any(|element| element.splitn(3, ':').count() == 3) {
            self.classes = Some(name);
        }
    }

    /// The outputs to ask for: where one comes as classes, it alone.
    pub(super) fn wanted(&self, wanted: Vec<Wanted>) -> Vec<Wanted> {
        match &self.classes {
            Some(name) => vec![Wanted { name: name.clone(), classes: Some(self.top.max(1)) }],
            None => wanted,
        }
    }

    /// Whether answers with these outputs are labels with scores.
    pub(super) fn gives_labels(&self, outputs: &[String]) -> bool {
        let has = |names: [&str; 2]| outputs.iter().any(|output| names.contains(&output.as_str()));
        let named = !self.names.is_empty() && outputs.len() == 1;
        self.classes.is_some()
            || !has(["boxes", "boxes"]) && (named || has(["labels", "label"]) && has(["scores", "score"]))
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// Outputs whose names say what they are have other forms.
    pub(super) fn read(&self, answer: &Answer) -> anyhow::Result<Found> {
        if let (Some(boxes), Some(scores)) = (answer.output("boxes"), answer.output("scores")) {
            let classes = answer.output("classes");
            let labels = answer.output("labels").and_then(texts);
            if classes.is_some() || labels.is_some() {
                return self.objects(boxes, scores, classes, labels);
            }
        }
        if let Some(element) = self.classes.as_ref().and_then(|name| answer.output(name)) {
            return Ok(Found::Labels(
                texts(element).unwrap_or_default().iter().filter_map(classified).collect(),
            ));
        }
        let labels = answer.output("labels").or_else(|| answer.output("label")).and_then(texts);
        let scores = answer.output("scores").or_else(|| answer.output("score")).and_then(numbers);
        if let (Some(labels), Some(scores)) = (labels, scores)
            && labels.len() == scores.len()
        {
            let labels = labels.into_iter().map(str::to_owned);
            return Ok(self.best(labels.zip(scores)));
        }
        // One row of scores, for which the caller has names.
        if let [scores] = answer.outputs.as_slice()
            && !self.names.is_empty()
            && matches!(scores.datatype, Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64)
        {
            let scores = numbers(scores).unwrap_or_default();
            ensure!(
                scores.len() == self.names.len(),
                "there are {} labels, and the answer has {} scores",
                self.names.len(),
                scores.len()
            );
            return Ok(self.best(self.names.iter().cloned().zip(scores)));
        }
        Ok(Found::Tensors)
    }

    fn objects(
        &self,
        boxes: &Tensor,
        scores: &Tensor,
        classes: Option<&Tensor>,
        labels: Option<Vec<&str>>,
    ) -> anyhow::Result<Found> {
        let sides = numbers(boxes).context("output 'boxes' holds no numbers")?;
        let scores = numbers(scores).context("output 'scores' holds no numbers")?;
        let labels: Vec<String> = match (labels, classes) {
            (Some(labels), _) => labels.into_iter().map(str::to_owned).collect(),
            (None, Some(classes)) => {
                let classes = numbers(classes).context("output 'classes' holds no numbers")?;
                classes.into_iter().map(|class| self.name(class)).collect()
            }
            (None, None) => Vec::new(),
        };
        let (boxes, rest) = sides.as_chunks::<4>();
        ensure!(
            rest.is_empty() && boxes.len() == scores.len() && boxes.len() == labels.len(),
            "the answer has {} sides of boxes, {} scores and {} classes, which do not belong together",
            sides.len(),
            scores.len(),
            labels.len()
        );
        let object =
            |((label, score), sides): ((String, f64), &[f64; 4])| Object { label, score, sides: *sides };
        Ok(Found::Objects(labels.into_iter().zip(scores).zip(boxes).map(object).collect()))
    }

    fn best(&self, labels: impl Iterator<Item = (String, f64)>) -> Found {
        let mut labels: Vec<Scored> = labels.map(|(label, score)| Scored { label, score }).collect();
        labels.sort_by(|a, b| b.score.total_cmp(&a.score));
        labels.truncate(self.top.max(1));
        Found::Labels(labels)
    }
}

/// Whether a number of a class is this place in a list.
#[expect(clippy::cast_precision_loss, reason = "no list of labels is that long")]
fn same(index: usize, class: f64) -> bool {
    (index as f64 - class).abs() < 0.5
}

/// An element of the classification extension: `score:index:label`.
fn classified(element: &&str) -> Option<Scored> {
    let mut parts = element.splitn(3, ':');
    let (score, index) = (parts.next()?.parse().ok()?, parts.next()?);
    Some(Scored { label: parts.next().unwrap_or(index).to_owned(), score })
}

/// The output that could be scores of labels: the first of floats with a row of several.
fn candidate(model: &Model, wanted: &[Wanted]) -> Option<String> {
    let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted.name == *name);
    let outputs: Vec<_> = model.outputs.iter().filter(|output| asked(&output.name)).collect();
    if outputs.iter().any(|output| ["boxes", "labels", "label"].contains(&output.name.as_str())) {
        return None;
    }
    let row = |shape: &[i64]| matches!(shape, [.., last] if *last != 1 && shape.len() <= 2);
    let floats = [Datatype::Fp32, Datatype::Fp64];
    let mut scores = outputs.iter().filter(|output| floats.contains(&output.datatype) && row(&output.shape));
    scores.next().map(|output| output.name.clone())
}

impl Found {
    /// As JSON: one entry, to be put beside what it is about.
    pub(super) fn json(&self, answer: &Answer) -> (&'static str, Value) {
        match self {
            Self::Objects(objects) => {
                let one = |object: &Object| json!({"label": object.label, "score": short(object.score), "box": object.sides.map(short)});
                ("objects", objects.iter().map(one).collect())
            }
            Self::Labels(labels) => {
                let one = |label: &Scored| json!({"label": label.label, "score": short(label.score)});
                ("labels", labels.iter().map(one).collect())
            }
            Self::Tensors => {
                let tensors = answer.outputs.iter().filter(|output| !is_picture(output));
                (
                    "outputs",
                    Value::Object(tensors.map(|t| (t.name.to_string(), nested(t))).collect::<Map<_, _>>()),
                )
            }
        }
    }

    /// As a table; `None` where there is nothing to show.
    pub(super) fn table(&self, answer: &Answer) -> anyhow::Result<Option<String>> {
        match self {
            Self::Objects(objects) if objects.is_empty() => Ok(None),
            Self::Objects(objects) => {
                let mut table = table(&["class", "score", "left", "top", "right", "bottom"]);
                for Object { label, score, sides } in objects {
                    let sides = sides.iter().map(|side| format!("{side:.1}"));
                    table.add_row([label.clone(), rounded(*score)].into_iter().chain(sides));
                }
                to_the_right(&mut table, 1..6);
                Ok(Some(table.to_string()))
            }
            Self::Labels(labels) => {
                let mut table = table(&["label", "score"]);
                for Scored { label, score } in labels {
                    table.add_row([label.clone(), rounded(*score)]);
                }
                to_the_right(&mut table, 1..2);
                Ok(Some(table.to_string()))
            }
            Self::Tensors => {
                let outputs = answer.outputs.iter().filter(|output| !is_picture(output)).cloned();
                let rest = Answer { outputs: outputs.collect(), ..answer.clone() };
                if rest.outputs.is_empty() { Ok(None) } else { super::request::table(&rest.json()).map(Some) }
            }
        }
    }
}

/// A table with a head.
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(head);
    table
}

/// Puts the numbers of columns below each other.
pub(super) fn to_the_right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// A score as people read it.
pub(super) fn rounded(score: f64) -> String {
    format!("{score:.3}")
}

/// A number of a float of 32 bits without the digits that it never had.
fn short(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "it was one of 32 bits")]
    let narrow = number as f32;
    let text =
        if f64::from(narrow).to_bits() == number.to_bits() { narrow.to_string() } else { number.to_string() };
    Cell::Number(text).json()
}

/// Whether an output is a picture: bytes that begin as a file of one does.
pub(super) fn is_picture(output: &Tensor) -> bool {
    *output.name == *PICTURE && picture(output).is_some()
}

/// The picture of an output, and its format.
pub(super) fn picture(output: &Tensor) -> Option<(&'static str, &[u8])> {
    if output.datatype != Datatype::Bytes {
        return None;
    }
    let mut elements = xebec_core::tensor::bytes_elements(&output.data);
    let (Some(Ok(only)), None) = (elements.next(), elements.next()) else { return None };
    Some((format(only)?, only))
}

/// The format of a picture by its first bytes, as its files are called.
pub(super) fn format(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::answer::tests::*, *};

    fn reading(names: &[&str]) -> Reading {
        Reading { names: names.iter().map(ToString::to_string).collect(), top: 2, classes: None }
    }

    #[test]
    fn boxes_scores_and_classes_are_objects_with_the_names_that_there_are() {
        let outputs = vec![
            reals("boxes", &[2, 4], &[1., 2., 3., 4., 5., 6., 7., 8.]),
            reals("scores", &[2], &[0.9, 0.25]),
            wholes("classes", &[1, 7]),
        ];
        let given = answer(outputs.clone());
        let Found::Objects(objects) = reading(&["cat", "dog"]).read(&given).unwrap() else { panic!() };
        assert_eq!((objects[0].label.as_str(), objects[1].label.as_str()), ("dog", "7"));
        assert_eq!(objects[1].sides, [5., 6., 7., 8.]);
        let found = Found::Objects(objects);
        let table = found.table(&given).unwrap().unwrap();
        assert!(table.contains("bottom") && table.contains("0.900") && table.contains("8.0"), "{table}");
        assert_eq!(found.json(&given).1[0], json!({"label": "dog", "score": 0.9, "box": [1, 2, 3, 4]}));
        // Labels of the graph go before numbers of classes.
        let with_labels = [outputs.clone(), vec![words("labels", &[2], &[b"a", b"b"])]].concat();
        let Found::Objects(objects) = reading(&[]).read(&answer(with_labels)).unwrap() else { panic!() };
        assert_eq!(objects[0].label, "a");
        // Three things that do not belong together are told, not cut.
        let short = vec![outputs[0].clone(), reals("scores", &[1], &[0.9]), outputs[2].clone()];
        assert!(
            reading(&[]).read(&answer(short)).unwrap_err().to_string().contains("8 sides of boxes, 1 scores")
        );
    }

    #[test]
    fn a_row_of_scores_is_labels_if_there_are_names_and_tensors_if_not() {
        let scores = || answer(vec![reals("p", &[1, 3], &[0.1, 0.7, 0.2])]);
        let Found::Labels(labels) = reading(&["a", "b", "c"]).read(&scores()).unwrap() else { panic!() };
        let labels: Vec<&str> = labels.iter().map(|scored| scored.label.as_str()).collect();
        assert_eq!(labels, ["b", "c"]);
        assert_eq!(reading(&[]).read(&scores()).unwrap(), Found::Tensors);
        let error = reading(&["a", "b"]).read(&scores()).unwrap_err().to_string();
        assert_eq!(error, "there are 2 labels, and the answer has 3 scores");
    }

    #[test]
    fn classes_of_the_server_and_labels_with_scores_are_labels() {
        let classes = Reading { classes: Some("p".into()), top: 5, names: vec![] };
        let given = answer(vec![words("p", &[1, 2], &[b"0.700000:1:a:b", b"0.2:0"])]);
        let want = |label: &str, score| Scored { label: label.into(), score };
        assert_eq!(classes.read(&given).unwrap(), Found::Labels(vec![want("a:b", 0.7), want("0", 0.2)]));
        let given = answer(vec![words("labels", &[2], &[b"x", b"y"]), reals("scores", &[2], &[0.25, 0.5])]);
        let found = reading(&[]).read(&given).unwrap();
        assert_eq!(found, Found::Labels(vec![want("y", 0.5), want("x", 0.25)]));
    }

    #[test]
    fn pictures_are_known_by_their_first_bytes() {
        assert_eq!(format(&[0xff, 0xd8, 0xff, 0xe0]), Some("jpg"));
        assert_eq!(format(b"\x89PNG\r\n\x1a\nrest"), Some("png"));
        assert_eq!(format(b"RIFF\0\0\0\0WEBPrest"), Some("webp"));
        assert_eq!(format(b"hello"), None);
        assert!(is_picture(&words("image", &[1], &[&[0xff, 0xd8, 0xff]])));
        assert!(!is_picture(&words("image", &[1], &[b"text"])));
    }
}
