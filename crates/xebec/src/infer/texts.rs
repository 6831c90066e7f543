//! Texts in, from the flags or a line each from standard input, and what the model says of each.
use super::{
    Form, InferArgs,
    answer::Answer,
    flow,
    found::{Found, Reading, Scored, rounded, table, to_the_right},
    server::{Model, Wanted, one_element, wanted},
};
use crate::{cli::show, inputs::Slot};
use anyhow::{Context as _, ensure};
use serde_json::json;
use std::{
    io::{BufRead as _, IsTerminal as _, stdin},
    process::ExitCode,
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

/// Most characters of a text that a table shows.
const MOST_SHOWN: usize = 60;

/// Sends the texts.
///
/// # Errors
/// There is none; the model takes none; the server's faults.
pub(super) fn command(args: &InferArgs, model: &Model) -> anyhow::Result<ExitCode> {
    let slot = model.bytes_input(args.input_name.as_deref(), "text")?;
    let outputs = wanted(model, &args.outputs)?;
    let reading = Mutex::new((false, Reading::new(args.labels.as_deref(), args.top)?));
    let sender = Sender { model, slot, outputs, reading };
    let from_stdin = args.text.iter().any(|text| text == "-");
    // Who types sees the answer to a line before the next.
    let lanes = if from_stdin && stdin().is_terminal() { 1 } else { args.in_flight };
    let (stop, mut all) = (AtomicBool::new(false), Vec::new());
    flow::in_order(
        lanes,
        &stop,
        texts(&args.text),
        |text| sender.send(text),
        |outcome| {
            if args.output == Form::Json {
                show(format!("{}\n", record(&outcome)).as_bytes())?;
            }
            all.push(outcome);
            if args.output == Form::Json {
                all.truncate(1);
            }
            Ok(())
        },
    )?;
    ensure!(!all.is_empty(), "there is no text; standard input has no line that is not empty");
    if args.output == Form::Table {
        show(shown(&all)?.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The texts, with the lines of standard input in the place of `-`.
fn texts(given: &[String]) -> impl Iterator<Item = anyhow::Result<String>> {
    given.iter().flat_map(|text| -> Box<dyn Iterator<Item = anyhow::Result<String>>> {
        if text != "-" {
            return Box::new(std::iter::once(Ok(text.clone())));
        }
        let lines = stdin().lock().lines().map(|line| line.context("cannot read standard input"));
        Box::new(lines.filter(|line| !line.as_ref().is_ok_and(|line| line.trim().is_empty())))
    })
}

struct Sender<'a> {
    model: &'a Model,
    slot: &'a Slot,
    outputs: Vec<Wanted>,
    /// Whether it was looked for labels, and what came of it.
    reading: Mutex<(bool, Reading)>,
}

struct Outcome {
    text: String,
    answer: Answer,
    found: Found,
}

impl Sender<'_> {
    fn send(&self, text: String) -> anyhow::Result<Outcome> {
        let tensor = one_element(self.slot, text.as_bytes())?;
        let reading = {
            let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::mem::replace(&mut reading.0, true) {
                reading.1.probe(self.model, &self.outputs, std::slice::from_ref(&tensor));
            }
            reading.1.clone()
        };
        let answer = self.model.ask(&[tensor], &reading.wanted(self.outputs.clone()))?;
        let found = reading.read(&answer)?;
        Ok(Outcome { text, answer, found })
    }
}

fn record(outcome: &Outcome) -> serde_json::Value {
    let (key, value) = outcome.found.json(&outcome.answer);
    json!({"text": outcome.text, key: value})
}

/// The answers for people: one table where all are labels.
fn shown(all: &[Outcome]) -> anyhow::Result<String> {
    let labels = |outcome: &Outcome| matches!(outcome.found, Found::Labels(_));
    if let [one] = all {
        return Ok(one.found.table(&one.answer)?.unwrap_or_default() + "\n");
    }
    if !all.iter().all(labels) {
        let one = |outcome: &Outcome| -> anyhow::Result<String> {
            let table = outcome.found.table(&outcome.answer)?.unwrap_or_default();
            Ok(format!("{}\n{table}\n", cut(&outcome.text)))
        };
        return all.iter().map(one).collect();
    }
    let mut table = table(&["text", "label", "score"]);
    for outcome in all {
        let Found::Labels(labels) = &outcome.found else { continue };
        for (index, Scored { label, score }) in labels.iter().enumerate() {
            let text = if index == 0 { cut(&outcome.text) } else { String::new() };
            table.add_row([text, label.clone(), rounded(*score)]);
        }
    }
    to_the_right(&mut table, 2..3);
    Ok(format!("{table}\n"))
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MOST_SHOWN {
        return text.to_owned();
    }
    text.chars().take(MOST_SHOWN - 3).collect::<String>() + "..."
}

#[cfg(test)]
mod tests {
    use super::{super::answer::tests::*, *};

    fn outcome(text: &str, labels: &[(&str, f64)]) -> Outcome {
        let scored = |(label, score): &(&str, f64)| Scored { label: (*label).into(), score: *score };
        let found = Found::Labels(labels.iter().map(scored).collect());
        Outcome { text: text.into(), answer: answer(vec![]), found }
    }

    #[test]
    fn several_texts_are_one_table_with_each_text_once() {
        let all = [
            outcome("good film", &[("joy", 0.9), ("anger", 0.0625)]),
            outcome(&"x".repeat(99), &[("fear", 0.5)]),
        ];
        let table = shown(&all).unwrap();
        assert_eq!(table.matches("good film").count(), 1);
        assert!(
            table.contains("0.900") && table.contains("xxx...") && !table.contains(&"x".repeat(61)),
            "{table}"
        );
        let one = shown(&all[..1]).unwrap();
        assert!(one.contains("joy") && !one.contains("good film"), "{one}");
        assert_eq!(record(&all[0])["labels"][1], json!({"label": "anger", "score": 0.0625}));
    }

    #[test]
    fn what_is_no_label_is_shown_as_it_is() {
        let tensors = |text: &str| Outcome {
            text: text.into(),
            answer: answer(vec![reals("y", &[1, 2], &[1.5, 2.5])]),
            found: Found::Tensors,
        };
        let all = shown(&[tensors("a"), tensors("b")]).unwrap();
        assert!(all.starts_with("a\n") && all.matches("1.5  2.5").count() == 2, "{all}");
        assert_eq!(record(&tensors("a")), json!({"text": "a", "outputs": {"y": [[1.5, 2.5]]}}));
    }
}
