//! Files of pictures in: what is in each as a table, and the picture that comes back as a file; or a line for each in a file.
use super::{
    Form, InferArgs,
    answer::{Answer, nested},
    batch::{self, Batch, Step},
    csv, flow,
    found::{Found, PICTURE, Reading, format},
    out::{Out, Piece},
    saving::{Saving, is_own},
    server::{Fault, Model, Wanted, one_element, wanted},
};
use crate::{
    cli::{say, show},
    inputs::Slot,
};
use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

/// Endings of the pictures that are taken from a folder.
const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
/// Largest picture that is sent.
const MOST_BYTES: u64 = 1 << 30;

/// Sends the pictures.
///
/// # Errors
/// There are none; one that is alone is no picture; the server's faults; as [`Batch::run`].
pub(super) fn command(args: &InferArgs, model: &Model) -> anyhow::Result<ExitCode> {
    let files = collect(&args.image)?;
    let slot = model.bytes_input(args.input_name.as_deref(), "picture")?;
    let saving = Saving::new(args.save.as_deref(), &files, args.overwrite)?;
    let reading = Reading::new(args.labels.as_deref(), args.top)?;
    let outputs = outputs(args, model)?;
    // With a file for what is found, pictures are saved if somebody says where.
    let saving = Some(saving).filter(|_| args.out.is_none() || args.save.is_some());
    if let Some(saving) = saving.as_ref().filter(|_| model.outputs.iter().any(is_drawn)) {
        saving.check(&files)?;
    }
    let mut sender = Sender { model, slot, reading, outputs, saving };
    sender.probe(&files);
    match &args.out {
        Some(target) => to_file(args, &sender, &files, target),
        None => to_screen(args, &sender, &files),
    }
}

/// The files, and those of the folders, in the order of their names.
fn collect(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            walk(path, &mut files).with_context(|| format!("cannot read {}", path.display()))?;
            ensure!(
                files.len() > before,
                "there is no picture in {}; its files would end in .jpg, .jpeg, .png or .webp",
                path.display()
            );
        } else {
            ensure!(path.exists(), "there is no file {}", path.display());
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        // A link to a folder may lead back up.
        if entry.file_type()?.is_dir() {
            walk(&path, files)?;
        } else if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && !is_own(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// A picture's bytes.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let unread = || format!("cannot read {}", file.display());
    let size = file.metadata().with_context(unread)?.len();
    ensure!(size <= MOST_BYTES, "{} has {size} bytes; at most {MOST_BYTES} are sent", file.display());
    let bytes = fs::read(file).with_context(unread)?;
    ensure!(!bytes.is_empty(), "{} is empty", file.display());
    if format(&bytes).is_none() {
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
        bail!("{} is no picture: a JPEG, PNG or WebP file does not begin with {begin:?}", file.display());
    }
    Ok(bytes)
}

/// The outputs to ask for. A picture is not drawn if nobody will see it.
fn outputs(args: &InferArgs, model: &Model) -> anyhow::Result<Vec<Wanted>> {
    let outputs = wanted(model, &args.outputs)?;
    let others = model.outputs.iter().filter(|output| !is_drawn(output));
    let others: Vec<Wanted> =
        others.map(|output| Wanted { name: output.name.clone(), classes: None }).collect();
    let unseen = args.out.is_some() && args.save.is_none() && outputs.is_empty();
    Ok(if unseen && others.len() < model.outputs.len() && !others.is_empty() { others } else { outputs })
}

fn is_drawn(output: &Slot) -> bool {
    output.name == PICTURE
}

/// Everything that a picture meets.
struct Sender<'a> {
    model: &'a Model,
    slot: &'a Slot,
    reading: Reading,
    outputs: Vec<Wanted>,
    /// `None` if pictures that come back are not saved.
    saving: Option<Saving>,
}

/// What came of a picture.
struct Outcome {
    file: PathBuf,
    /// How far it is in the list, from 1.
    position: u64,
    answer: anyhow::Result<(Answer, Found, Option<PathBuf>)>,
}

impl Sender<'_> {
    /// Looks with the first good picture whether the model has labels.
    fn probe(&mut self, files: &[PathBuf]) {
        let Some(bytes) = files.iter().find_map(|file| read(file).ok()) else { return };
        let Ok(tensor) = one_element(self.slot, &bytes) else { return };
        self.reading.probe(self.model, &self.outputs, &[tensor]);
        let before = std::mem::take(&mut self.outputs);
        let drawn = before.is_empty() && self.saving.is_some() && self.model.outputs.iter().any(is_drawn);
        self.outputs = self.reading.wanted(before);
        if drawn && !self.outputs.is_empty() {
            self.outputs.push(Wanted { name: PICTURE.into(), classes: None });
        }
    }

    fn send(&self, (position, file): (u64, PathBuf), stop: &AtomicBool) -> anyhow::Result<Outcome> {
        let answer = self.answer(&file, stop);
        match answer {
            // What is wrong with the server is wrong with all pictures.
            Err(error) if !is_of_one(&error) => Err(error.context(file.display().to_string())),
            answer => Ok(Outcome { file, position, answer }),
        }
    }

    fn answer(&self, file: &Path, stop: &AtomicBool) -> anyhow::Result<(Answer, Found, Option<PathBuf>)> {
        let bytes = read(file).map_err(of_one)?;
        let tensor = one_element(self.slot, &bytes)?;
        drop(bytes);
        let answer = self.model.ask_patiently(&[tensor], &self.outputs, stop)?;
        let found = self.reading.read(&answer)?;
        let saved = self.saving.as_ref().map(|saving| saving.save(&answer, file)).transpose()?.flatten();
        Ok((answer, found, saved))
    }
}

/// Something is wrong with one picture, and not with others.
#[derive(Debug)]
struct OfOne(String);

fn of_one(error: anyhow::Error) -> anyhow::Error {
    OfOne(format!("{error:#}")).into()
}

impl std::fmt::Display for OfOne {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OfOne {}

fn is_of_one(error: &anyhow::Error) -> bool {
    let refused = |fault: &Fault| matches!(fault.status, 400 | 413 | 422 | 500);
    error.is::<OfOne>() || error.downcast_ref().is_some_and(refused)
}

fn to_screen(args: &InferArgs, sender: &Sender<'_>, files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let (stop, mut failed) = (AtomicBool::new(false), 0u64);
    let jobs = (1..).zip(files.iter().cloned()).map(Ok);
    let work = |job| sender.send(job, &stop);
    flow::in_order(args.in_flight, &stop, jobs, work, |outcome| {
        match (&outcome.answer, args.output) {
            (Err(error), _) if files.len() == 1 => bail!("{error:#}"),
            (Err(error), Form::Table) => {
                failed += 1;
                say(&format!("error: {}", with_name(&outcome.file, error)));
            }
            (Ok((answer, found, saved)), Form::Table) => {
                show(shown(&outcome.file, answer, found, saved.as_deref())?.as_bytes())?;
            }
            (answer, Form::Json) => {
                failed += u64::from(answer.is_err());
                show(format!("{}\n", record(&outcome)).as_bytes())?;
            }
        }
        Ok(())
    })?;
    ensure!(failed == 0, "{failed} of {} pictures failed", files.len());
    Ok(ExitCode::SUCCESS)
}

/// An error with the name of its file, once.
fn with_name(file: &Path, error: &anyhow::Error) -> String {
    let (name, said) = (file.display().to_string(), format!("{error:#}"));
    if said.contains(&name) { said } else { format!("{name}: {said}") }
}

/// What was found in a picture, for people.
fn shown(file: &Path, answer: &Answer, found: &Found, saved: Option<&Path>) -> anyhow::Result<String> {
    let what = match found {
        Found::Objects(objects) if objects.is_empty() => ": nothing was found".to_owned(),
        Found::Objects(objects) if objects.len() == 1 => ": 1 object".to_owned(),
        Found::Objects(objects) => format!(": {} objects", objects.len()),
        Found::Labels(_) | Found::Tensors => String::new(),
    };
    let mut text = format!("{}{what}\n", file.display());
    if let Some(table) = found.table(answer)? {
        text.push_str(&table);
        text.push('\n');
    }
    if let Some(saved) = saved {
        text.push_str(&format!("saved as {}\n", saved.display()));
    }
    Ok(text)
}

/// What came of a picture, for programs.
fn record(outcome: &Outcome) -> Value {
    let mut record = json!({"file": outcome.file.display().to_string()});
    match &outcome.answer {
        Ok((answer, found, saved)) => {
            let (key, value) = found.json(answer);
            record[key] = value;
            if let Some(saved) = saved {
                record["saved"] = json!(saved.display().to_string());
            }
        }
        Err(error) => record["error"] = json!(format!("{error:#}")),
    }
    record
}

/// How the lines of a file are written.
enum Lines {
    Json,
    /// Names of the outputs, or none where they are a label and its score.
    Csv(char, Vec<String>),
}

impl Lines {
    fn new(args: &InferArgs, sender: &Sender<'_>, target: &Path) -> anyhow::Result<Self> {
        match target.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl" | "ndjson") => Ok(Self::Json),
            Some("csv") => {
                let all = sender.model.outputs.iter().map(|output| output.name.clone());
                let asked = sender.outputs.iter().map(|wanted| wanted.name.clone());
                let names: Vec<String> =
                    if sender.outputs.is_empty() { all.collect() } else { asked.collect() };
                let mut names: Vec<String> = names.into_iter().filter(|name| name != PICTURE).collect();
                if sender.reading.gives_labels(&names) {
                    names.clear();
                }
                Ok(Self::Csv(args.delimiter, names))
            }
            _ => bail!("--out {}: what is in pictures goes to a .jsonl or a .csv file", target.display()),
        }
    }

    fn head(&self) -> String {
        let Self::Csv(delimiter, names) = self else { return String::new() };
        let outputs = if names.is_empty() {
            vec!["label", "score"]
        } else {
            names.iter().map(String::as_str).collect()
        };
        let cells = ["file"].into_iter().chain(outputs).chain(["saved", "error"]);
        csv::row(cells, *delimiter) + "\n"
    }

    fn line(&self, outcome: &Outcome) -> String {
        let (delimiter, names) = match self {
            Self::Json => return format!("{}\n", record(outcome)),
            Self::Csv(delimiter, names) => (delimiter, names),
        };
        let mut cells = vec![outcome.file.display().to_string()];
        let width = names.len().max(1) + usize::from(names.is_empty());
        match &outcome.answer {
            Ok((_, Found::Labels(labels), _)) if names.is_empty() => {
                let best = labels.first().map(|best| [best.label.clone(), best.score.to_string()]);
                cells.extend(best.unwrap_or_default());
            }
            Ok((answer, _, _)) => cells.extend(names.iter().map(|name| cell(answer, name))),
            Err(_) => (),
        }
        cells.resize(width + 1, String::new());
        let saved = outcome.answer.as_ref().ok().and_then(|(_, _, saved)| saved.as_ref());
        cells.push(saved.map(|saved| saved.display().to_string()).unwrap_or_default());
        cells.push(outcome.answer.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default());
        csv::row(cells.iter().map(String::as_str), *delimiter) + "\n"
    }
}

/// An output in one cell: its only value, or all of them as JSON.
fn cell(answer: &Answer, name: &str) -> String {
    let mut value = answer.output(name).map(nested).unwrap_or_default();
    while let Some([only]) = value.as_array().map(Vec::as_slice) {
        value = only.clone();
    }
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        value => value.to_string(),
    }
}

fn to_file(
    args: &InferArgs,
    sender: &Sender<'_>,
    files: &[PathBuf],
    target: &Path,
) -> anyhow::Result<ExitCode> {
    let lines = Lines::new(args, sender, target)?;
    let work = json!({
        "model": sender.model.name(), "input": sender.slot.name,
        "outputs": args.outputs, "saved pictures": args.save, "labels": args.labels, "kind": lines.head(),
    });
    let Some(out) = Out::open(target, &work, batch::how(args))? else { return batch::whole_already(target) };
    let done: HashSet<String> = out.marks().iter().cloned().collect();
    let name = |file: &PathBuf| file.display().to_string();
    let left: Vec<PathBuf> = files.iter().filter(|file| !done.contains(&name(file))).cloned().collect();
    let mut began = out.done().items > 0;
    let before = u64::try_from(files.len() - left.len())?;
    let batch = Batch::new(args, u64::try_from(files.len())?, "pictures")?;
    let (failed, count) = (AtomicU64::new(0), left.len());
    let encode = |outcome: Outcome| -> anyhow::Result<Step> {
        failed.fetch_add(u64::from(outcome.answer.is_err()), Relaxed);
        let head = if began { String::new() } else { lines.head() };
        began = true;
        let version =
            outcome.answer.as_ref().map(|(answer, _, _)| answer.version.clone()).unwrap_or_default();
        let (bytes, mark) = ((head + &lines.line(&outcome)).into_bytes(), name(&outcome.file));
        Ok((Piece { bytes, items: 1, mark, version, columns: Vec::new() }, before + outcome.position))
    };
    let jobs = (1..).zip(left).map(Ok);
    let code = batch.run(out, jobs, |job| sender.send(job, &batch.stop), encode, None)?;
    match failed.load(Relaxed) {
        0 => Ok(code),
        failed => Err(anyhow!("{failed} of {count} pictures failed; {} says why", target.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::answer::tests::{answer, reals, words},
        *,
    };

    #[test]
    fn folders_give_their_pictures_in_order_and_none_that_this_command_made() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.JPG", "a.png", "notes.txt", "a.boxes.jpg", "sub/c.webp"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let files = collect(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> =
            files.iter().map(|file| file.strip_prefix(folder.path()).unwrap().to_owned()).collect();
        assert_eq!(names, ["a.png", "b.JPG", "sub/c.webp"].map(PathBuf::from));
        let said = |path: &str| collect(&[folder.path().join(path)]).unwrap_err().to_string();
        assert!(said("none.jpg").starts_with("there is no file"));
        fs::create_dir(folder.path().join("empty")).unwrap();
        assert!(said("empty").contains("there is no picture in"));
    }

    #[test]
    fn a_file_that_is_no_picture_is_told_by_what_it_begins_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.jpg");
        fs::write(&file, "<html>hello").unwrap();
        let error = read(&file).unwrap_err();
        assert!(
            error.to_string().contains("a.jpg is no picture") && error.to_string().contains("<html>he"),
            "{error}"
        );
        assert!(is_of_one(&of_one(error)));
        fs::write(&file, "").unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("is empty"));
    }

    fn outcome(answer: anyhow::Result<(Answer, Found, Option<PathBuf>)>) -> Outcome {
        Outcome { file: "a.jpg".into(), position: 1, answer }
    }

    #[test]
    fn a_picture_is_a_line_of_json_or_of_csv_also_where_it_failed() {
        let outputs = vec![reals("p", &[1, 2], &[0.25, 0.75]), words("t", &[1], &[b"x, y"])];
        let good = outcome(Ok((answer(outputs), Found::Tensors, Some("a.boxes.jpg".into()))));
        let bad = outcome(Err(anyhow!("no picture")));
        let want =
            json!({"file": "a.jpg", "outputs": {"p": [[0.25, 0.75]], "t": ["x, y"]}, "saved": "a.boxes.jpg"});
        assert_eq!(serde_json::from_str::<Value>(&Lines::Json.line(&good)).unwrap(), want);
        assert_eq!(record(&bad), json!({"file": "a.jpg", "error": "no picture"}));
        let lines = Lines::Csv(',', vec!["p".into(), "t".into()]);
        assert_eq!(lines.head(), "file,p,t,saved,error\n");
        assert_eq!(lines.line(&good), "a.jpg,\"[0.25,0.75]\",\"x, y\",a.boxes.jpg,\n");
        assert_eq!(lines.line(&bad), "a.jpg,,,,no picture\n");
        let labels = Found::Labels(vec![super::super::found::Scored { label: "cat".into(), score: 0.5 }]);
        let lines = Lines::Csv(',', vec![]);
        assert_eq!(lines.head(), "file,label,score,saved,error\n");
        assert_eq!(lines.line(&outcome(Ok((answer(vec![]), labels, None)))), "a.jpg,cat,0.5,,\n");
        assert_eq!(lines.line(&bad), "a.jpg,,,,no picture\n");
    }
}
