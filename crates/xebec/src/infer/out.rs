//! A file that is written as the work goes on: never half there under its own name, and to be gone on with.
//!
//! Until it is whole its bytes lie in `FILE.part`. `FILE.journal` tells of which work they are, and then, a line each time
//! that something was added, how far it is. Whatever ends the process, what a line of the journal tells of is there.
//!
//! Invariants, each held by a test:
//! 1. under its own name a file is whole, or what it was before;
//! 2. bytes that the journal does not tell of are cut off before the work goes on;
//! 3. other work never goes on with it, and no two processes at once.
//!
//! Not here: what the bytes are (`sheet`, `pictures`, `parquet`).
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// What becomes of a file that is there, or was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// There must be none.
    New,
    /// It is replaced, once the new one is whole.
    Overwrite,
    /// Work that was interrupted goes on.
    Resume,
}

/// How far the work is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    /// Rows, or files.
    pub(super) items: u64,
    /// What the source says about the last of them.
    pub(super) mark: String,
    /// Bytes of the part.
    bytes: u64,
    /// The version of the model that answered; told where it is new.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) version: String,
    /// What the answers add to each row; told where it is new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) columns: Vec<String>,
}

/// What is added at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) items: u64,
    pub(super) mark: String,
    /// Empty if nobody answered.
    pub(super) version: String,
    pub(super) columns: Vec<String>,
}

/// A file in work.
#[derive(Debug)]
pub(super) struct Out {
    file: PathBuf,
    part: (PathBuf, File),
    journal: (PathBuf, File),
    done: Done,
    /// The mark of every piece that is there.
    marks: Vec<String>,
}

/// A name beside another.
fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    file.with_file_name(name)
}

impl Out {
    /// Begins a file, or goes on with one; `None` if it is whole and nothing is to do.
    ///
    /// # Errors
    /// It is there and may not be replaced; it was begun by other work; another process writes it; it cannot be written.
    pub(super) fn open(file: &Path, work: &Value, how: How) -> anyhow::Result<Option<Self>> {
        ensure!(file.file_name().is_some(), "--out {}: that is no name of a file", file.display());
        ensure!(!file.is_dir(), "--out {}: that is a folder; name a file in it", file.display());
        let (part, journal) = (beside(file, "part"), beside(file, "journal"));
        let begun = part.exists() && journal.exists();
        match how {
            How::New if begun => bail!(
                "{} is there: a run was interrupted; --resume goes on with it, and --overwrite begins anew",
                part.display()
            ),
            How::New if file.exists() => {
                bail!("{} is there already; --overwrite replaces it", file.display())
            }
            How::Resume if !begun && file.exists() => return Ok(None),
            _ => (),
        }
        let open = |path: &Path| {
            let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            opened.with_context(|| format!("cannot write {}", path.display()))
        };
        let log = open(&journal)?;
        // Where the file system has no locks, nobody is told of another process.
        if let Err(TryLockError::WouldBlock) = log.try_lock() {
            bail!("another xebec writes {}", file.display());
        }
        let part = open(&part).map(|opened| (part, opened))?;
        let (done, marks) = (Done::default(), Vec::new());
        let mut out = Self { file: file.to_owned(), part, journal: (journal, log), done, marks };
        if begun && how == How::Resume {
            out.go_on(work)?
        } else {
            out.begin(work)?
        }
        Ok(Some(out))
    }

    fn begin(&mut self, work: &Value) -> anyhow::Result<()> {
        for opened in [&mut self.part.1, &mut self.journal.1] {
            opened.set_len(0)?;
            opened.rewind()?;
        }
        self.journal.1.write_all(format!("{work}\n").as_bytes())?;
        Ok(())
    }

    fn go_on(&mut self, work: &Value) -> anyhow::Result<()> {
        let mut text = String::new();
        let (path, log) = &mut self.journal;
        log.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
        let mut lines = text.split_inclusive('\n');
        let head = lines.next().unwrap_or_default();
        // A journal without a whole first line was begun, and no more.
        let Ok(was) = serde_json::from_str::<Value>(head) else { return self.begin(work) };
        let file = self.file.display();
        same(&was, work).with_context(|| {
            format!("--resume: {file} was begun by other work; --overwrite begins it anew")
        })?;
        let (there, mut end) = (self.part.1.metadata()?.len(), head.len());
        for line in lines {
            let Ok(told) = serde_json::from_str::<Done>(line) else { break };
            if told.bytes > there {
                break;
            }
            end += line.len();
            self.marks.push(told.mark.clone());
            self.done.take(told);
        }
        log.set_len(end as u64)?;
        log.seek(SeekFrom::End(0))?;
        self.part.1.set_len(self.done.bytes)?;
        self.part.1.seek(SeekFrom::End(0))?;
        Ok(())
    }

    /// The file as it is called once it is whole.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// How far it is.
    pub(super) fn done(&self) -> &Done {
        &self.done
    }

    /// The mark of every piece that was there when the work went on.
    pub(super) fn marks(&self) -> &[String] {
        &self.marks
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// It cannot be written, or was made by another version of the model than the pieces before.
    pub(super) fn add(&mut self, piece: Piece) -> anyhow::Result<()> {
        let (was, is) = (&self.done.version, &piece.version);
        ensure!(
            was.is_empty() || is.is_empty() || was == is,
            "version {is} of the model answers now, and what is done is of version {was}; \
             --resume --model-version {was} goes on with that one, --overwrite begins anew"
        );
        let unwritten = |path: &Path| format!("cannot write {}", path.display());
        self.part.1.write_all(&piece.bytes).with_context(|| unwritten(&self.part.0))?;
        let mut now = Done {
            items: self.done.items + piece.items,
            bytes: self.done.bytes + piece.bytes.len() as u64,
            mark: piece.mark,
            version: piece.version,
            columns: piece.columns,
        };
        let whole = now.clone();
        if now.version == self.done.version {
            now.version.clear();
        }
        if now.columns == self.done.columns {
            now.columns.clear();
        }
        let line = format!("{}\n", serde_json::to_string(&now)?);
        self.journal.1.write_all(line.as_bytes()).with_context(|| unwritten(&self.journal.0))?;
        self.done.take(whole);
        Ok(())
    }

    /// Gives the file its name; `convert` makes it of the part where the two are not the same.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(
        self,
        convert: Option<impl FnOnce(&Path, &Path) -> anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let unwritten = || format!("cannot write {}", self.file.display());
        if let Some(convert) = convert {
            let new = beside(&self.file, "new");
            convert(&self.part.0, &new)?;
            File::open(&new)?.sync_all().with_context(unwritten)?;
            fs::rename(&new, &self.file).with_context(unwritten)?;
            fs::remove_file(&self.part.0)?;
        } else {
            self.part.1.sync_all().with_context(unwritten)?;
            fs::rename(&self.part.0, &self.file).with_context(unwritten)?;
        }
        fs::remove_file(&self.journal.0)?;
        Ok(())
    }

    /// Ends before it is whole; what nothing is in does not stay behind. Returns how many items stay.
    pub(super) fn leave(self) -> u64 {
        if self.done.items == 0 {
            // What cannot be removed is in nobody's way: it is begun anew.
            let _ = fs::remove_file(&self.journal.0);
            let _ = fs::remove_file(&self.part.0);
        }
        self.done.items
    }
}

impl Done {
    /// Goes on to what a later line tells.
    fn take(&mut self, told: Self) {
        let version = if told.version.is_empty() { std::mem::take(&mut self.version) } else { told.version };
        let columns = if told.columns.is_empty() { std::mem::take(&mut self.columns) } else { told.columns };
        *self = Self { version, columns, ..told };
    }
}

/// Refuses work that differs from what it was.
fn same(was: &Value, is: &Value) -> anyhow::Result<()> {
    if was == is {
        return Ok(());
    }
    let keys = is.as_object().into_iter().flatten().map(|(key, _)| key);
    match { keys }.find(|key| was[key.as_str()] != is[key.as_str()]) {
        Some(key) => bail!("{key}: {} then, {} now", was[key.as_str()], is[key.as_str()]),
        None => bail!("it was {was}"),
    }
}

/// Writes a file whole, or leaves what was there.
///
/// # Errors
/// It cannot be written.
pub(super) fn whole(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let (new, unwritten) = (beside(file, "new"), || format!("cannot write {}", file.display()));
    fs::write(&new, bytes).with_context(unwritten)?;
    fs::rename(&new, file).with_context(unwritten)
}

/// The command line of this process, to go on.
pub(super) fn resume_command(args: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = |arg: String| {
        if !arg.is_empty() && arg.chars().all(plain) {
            arg
        } else {
            format!("'{}'", arg.replace('\'', r"'\''"))
        }
    };
    let kept = args.filter(|arg| arg != "--overwrite" && arg != "--resume");
    kept.map(quoted).chain(["--resume".to_owned()]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Convert = fn(&Path, &Path) -> anyhow::Result<()>;

    fn piece(text: &str, mark: &str) -> Piece {
        Piece {
            bytes: text.into(),
            items: 1,
            mark: mark.into(),
            version: "1".into(),
            columns: vec!["y".into()],
        }
    }

    fn open(file: &Path, model: &str, how: How) -> anyhow::Result<Option<Out>> {
        Out::open(file, &json!({"model": model, "source": "x.csv"}), how)
    }

    fn files(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_interrupted_goes_on_behind_what_the_journal_tells_of() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("y.csv");
        let mut out = open(&file, "m", How::New).unwrap().unwrap();
        out.add(piece("one\n", "1")).unwrap();
        out.add(piece("two\n", "2")).unwrap();
        drop(out);
        assert_eq!(files(folder.path()), ["y.csv.journal", "y.csv.part"]);
        // The process ended in the middle of a piece, and of a line of the journal.
        let append = |path: PathBuf, text: &[u8]| {
            OpenOptions::new().append(true).open(path).unwrap().write_all(text).unwrap();
        };
        append(beside(&file, "part"), b"thr");
        append(beside(&file, "journal"), b"{\"items\": 3, \"by");
        let said = open(&file, "m", How::New).unwrap_err().to_string();
        assert!(said.contains("--resume") && said.contains("--overwrite"), "{said}");
        let mut out = open(&file, "m", How::Resume).unwrap().unwrap();
        let done =
            Done { items: 2, mark: "2".into(), bytes: 8, version: "1".into(), columns: vec!["y".into()] };
        assert_eq!((out.done(), out.marks()), (&done, &["1".to_owned(), "2".to_owned()][..]));
        out.add(piece("three\n", "3")).unwrap();
        assert!(!file.exists());
        out.finish(None::<Convert>).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(files(folder.path()), ["y.csv"]);
        // It is whole, and nothing is to do.
        assert!(open(&file, "m", How::Resume).unwrap().is_none());
        assert!(open(&file, "m", How::New).unwrap_err().to_string().contains("--overwrite replaces it"));
    }

    #[test]
    fn a_part_that_lost_its_end_goes_on_where_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("y.csv");
        let mut out = open(&file, "m", How::New).unwrap().unwrap();
        ["one\n", "two\n"].into_iter().for_each(|text| out.add(piece(text, text)).unwrap());
        out.part.1.set_len(6).unwrap();
        drop(out);
        let out = open(&file, "m", How::Resume).unwrap().unwrap();
        assert_eq!(
            (out.done().items, fs::read_to_string(beside(&file, "part")).unwrap()),
            (1, "one\n".into())
        );
    }

    #[test]
    fn other_work_and_another_process_never_go_on_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("y.csv");
        let mut out = open(&file, "m", How::New).unwrap().unwrap();
        out.add(piece("one\n", "1")).unwrap();
        let said = open(&file, "m", How::Resume).unwrap_err().to_string();
        assert!(said.contains("another xebec writes"), "{said}");
        let newer = Piece { version: "2".into(), ..piece("two\n", "2") };
        assert!(out.add(newer).unwrap_err().to_string().contains("--model-version 1"));
        drop(out);
        let said = format!("{:#}", open(&file, "n", How::Resume).unwrap_err());
        assert!(said.contains("model: \"m\" then, \"n\" now"), "{said}");
        assert!(beside(&file, "part").exists());
    }

    #[test]
    fn a_file_that_is_replaced_is_the_old_one_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("y.csv");
        fs::write(&file, "old").unwrap();
        let mut out = open(&file, "m", How::Overwrite).unwrap().unwrap();
        out.add(piece("new", "1")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        drop(out);
        let mut out = open(&file, "m", How::Resume).unwrap().unwrap();
        out.add(piece("er", "2")).unwrap();
        let convert = |part: &Path, new: &Path| Ok(fs::write(new, fs::read_to_string(part)?.to_uppercase())?);
        out.finish(Some(convert)).unwrap();
        assert_eq!(
            (fs::read_to_string(&file).unwrap(), files(folder.path())),
            ("NEWER".into(), vec!["y.csv".into()])
        );
    }

    #[test]
    fn work_that_did_nothing_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("y.csv");
        assert_eq!(open(&file, "m", How::New).unwrap().unwrap().leave(), 0);
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn the_command_to_go_on_is_one_that_a_shell_takes() {
        let args = ["xebec", "infer", "m", "--csv", "it's here.csv", "--overwrite"];
        let command = resume_command(args.into_iter().map(str::to_owned));
        assert_eq!(command, r"xebec infer m --csv 'it'\''s here.csv' --resume");
    }
}
