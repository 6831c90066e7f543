//! `xebec infer` with the rows of tables: their answers, what goes wrong, and work that is interrupted.
use crate::wire::{get, until};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use xebec_e2e::{
    generate::root,
    server::{Server, binary},
};

const TRANSACTIONS: &str = "examples/fraud-detection/data/transactions.csv";
/// The same rows, written by pyarrow: `write_table(read_csv(...), row_group_size=128, compression="zstd", use_dictionary=False)`.
const PARQUET: &str = "e2e/tests/it/infer/transactions.parquet";

/// `xebec infer MODEL --url ...` from the root of the repository.
pub(crate) fn command(server: &Server, model: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(binary().unwrap());
    command.current_dir(root()).args(["infer", model, "--url", &format!("http://{}", server.http)]);
    command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit status, standard output and standard error.
pub(crate) fn run(server: &Server, model: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    said(command(server, model, flags).output().unwrap())
}

fn said(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn good(server: &Server, model: &str, flags: &[&str]) -> String {
    let (code, out, error) = run(server, model, flags);
    assert_eq!(code, Some(0), "{flags:?}: {error}");
    out
}

/// The cells of a file without quotes.
fn cells(file: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn fraud() -> Server {
    Server::start(&["up", "examples/fraud-detection"]).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn rows_of_csv_come_back_with_onnxruntimes_answers_behind_them() {
    let server = fraud();
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(root().join("examples/fraud-detection/data/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let source = cells(&root().join(TRANSACTIONS));
    for (model, more) in [("fraud-mlp", &[][..]), ("fraud-trees", &["--rows", "7", "--in-flight", "3"])] {
        let out = folder.path().join(format!("{model}.csv"));
        let flags = [&["--csv", TRANSACTIONS, "--without", "fraud", "--out", path(&out)], more].concat();
        assert_eq!(good(&server, model, &flags), format!("200 rows in {}\n", out.display()));
        let got = cells(&out);
        assert_eq!(got.len(), 201);
        let at = got[0].iter().position(|name| name == "probabilities_1").unwrap();
        for (row, (got, want)) in got[1..].iter().zip(expected[model].as_array().unwrap()).enumerate() {
            let (got, want) = (got[at].parse::<f64>().unwrap(), want.as_f64().unwrap());
            assert!((got - want).abs() < 1e-5, "{model}, row {row}: {got} and not {want}");
        }
        for (got, source) in got.iter().zip(&source) {
            assert_eq!(&got[..source.len()], source, "the rows stay as they were");
        }
    }
    assert_eq!(names(folder.path()), ["fraud-mlp.csv", "fraud-trees.csv"]);
    // Inputs of several values by the names of columns, and several inputs.
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    let head: Vec<String> =
        (0..2).flat_map(|input| (0..16).map(move |index| format!("INPUT{input}_{index}"))).collect();
    let row = |row: usize| (0..32).map(|cell| (row * 100 + cell).to_string()).collect::<Vec<_>>().join(",");
    let rows: Vec<String> = (0..20).map(row).collect();
    let (file, out) = (folder.path().join("sums.csv"), folder.path().join("summed.csv"));
    fs::write(&file, format!("{}\n{}\n", head.join(","), rows.join("\n"))).unwrap();
    good(&server, "simple", &["--csv", path(&file), "--out", path(&out), "--outputs", "OUTPUT0"]);
    let got = cells(&out);
    assert_eq!((got.len(), got[0].len(), got[0][32].as_str()), (21, 48, "OUTPUT0_0"));
    assert_eq!(got[3][32..34], ["416", "418"], "200 + 216, 201 + 217");
}

#[test]
fn rows_of_parquet_come_back_as_parquet_and_as_csv() {
    let server = fraud();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (csv, from_csv, columns) = (at("a.csv"), at("b.csv"), at("c.parquet"));
    let model = "fraud-trees";
    good(&server, model, &["--csv", TRANSACTIONS, "--without", "fraud", "--out", path(&from_csv)]);
    good(&server, model, &["--parquet", PARQUET, "--without", "fraud", "--out", path(&csv)]);
    let (a, b) = (cells(&csv), cells(&from_csv));
    assert_eq!((a.len(), &a[0]), (b.len(), &b[0]));
    for (a, b) in a[1..].iter().zip(&b[1..]) {
        // Answers to the same floats are the same; the columns before may be written in another way.
        assert_eq!(a[31..], b[31..]);
        let number = |cell: &String| cell.parse::<f64>().unwrap();
        assert!(a.iter().zip(b).all(|(a, b)| (number(a) - number(b)).abs() < 1e-9), "{a:?} {b:?}");
    }
    good(
        &server,
        model,
        &["--parquet", PARQUET, "--without", "fraud", "--rows", "13", "--out", path(&columns)],
    );
    // What was written is read again: its lists of probabilities become text, and its labels a column.
    let again = at("again.csv");
    let without = "fraud,label,probabilities";
    good(&server, model, &["--parquet", path(&columns), "--without", without, "--out", path(&again)]);
    let text = fs::read_to_string(&again).unwrap();
    let head = text.lines().next().unwrap();
    assert!(head.contains("fraud,") && head.contains(&format!("{model}.label")), "{head}");
    assert_eq!(text.lines().count(), 201);
    assert!(text.lines().nth(1).unwrap().contains(",\"[0."), "{text:.600}");
    assert_eq!(names(folder.path()), ["a.csv", "again.csv", "b.csv", "c.parquet"]);
}

/// A server of models that take their time, and a table for them.
struct Slow {
    server: Server,
    folder: tempfile::TempDir,
}

const ROWS: usize = 300;

impl Slow {
    fn new() -> Self {
        let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let row = |row: usize| format!("{row},{},{},0.5\n", row % 7, row % 11);
        let rows: String = (0..ROWS).map(row).collect();
        fs::write(folder.path().join("x.csv"), format!("a,b,c,d\n{rows}")).unwrap();
        Self { server, folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, source: &str, out: &str, more: &[&str]) -> Command {
        let (kind, source, out) =
            (if source.ends_with("csv") { "--csv" } else { "--parquet" }, self.at(source), self.at(out));
        let flags = [kind, path(&source), "--rows", "1", "--in-flight", "2", "--out", path(&out)];
        command(&self.server, "medium", &[&flags, more].concat())
    }

    fn whole(&self, source: &str, out: &str, more: &[&str]) {
        let (code, _, error) = said(self.command(source, out, more).output().unwrap());
        assert_eq!(code, Some(0), "{error}");
    }

    /// Begins, and waits until some rows are done.
    fn begun(&self, source: &str, out: &str) -> Child {
        let child = self.command(source, out, &[]).spawn().unwrap();
        let journal = self.at(&format!("{out}.journal"));
        until("some rows are done", || {
            fs::read_to_string(&journal).is_ok_and(|journal| journal.lines().count() > 20)
        });
        child
    }

    /// Rows that the model answered.
    fn answered(&self) -> u64 {
        let stats = get(self.server.http, "/v2/models/medium/stats").json();
        stats["model_stats"][0]["inference_count"].as_u64().unwrap()
    }
}

#[test]
fn work_that_was_killed_goes_on_where_it_stopped_and_ends_as_if_nothing_had_been() {
    let slow = Slow::new();
    slow.whole("x.csv", "want.csv", &[]);
    let before = slow.answered();
    let mut child = slow.begun("x.csv", "y.csv");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!slow.at("y.csv").exists());
    let (code, _, error) = said(slow.command("x.csv", "y.csv", &[]).output().unwrap());
    assert!(
        code == Some(1) && error.contains("--resume goes on") && error.contains("--overwrite"),
        "{error}"
    );
    slow.whole("x.csv", "y.csv", &["--resume"]);
    assert_eq!(fs::read(slow.at("y.csv")).unwrap(), fs::read(slow.at("want.csv")).unwrap());
    // What was in flight was asked twice, and nothing else.
    let asked = slow.answered() - before;
    assert!((ROWS as u64..ROWS as u64 + 8).contains(&asked), "{asked}");
    assert_eq!(names(slow.folder.path()), ["want.csv", "x.csv", "y.csv"]);
    // A second time there is nothing to do.
    let (code, out, _) = said(slow.command("x.csv", "y.csv", &["--resume"]).output().unwrap());
    assert!(code == Some(0) && out.contains("is whole already"), "{out}");
}

#[test]
fn ctrl_c_keeps_what_is_done_and_says_how_to_go_on() {
    let slow = Slow::new();
    let child = slow.begun("x.csv", "y.csv");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let (code, _, error) = said(child.wait_with_output().unwrap());
    assert_eq!(code, Some(130), "{error}");
    assert!(
        error.contains("rows are done; go on with: ") && error.trim_end().ends_with("--resume"),
        "{error}"
    );
    // Other work does not go on with it.
    let (code, _, error) =
        said(slow.command("x.csv", "y.csv", &["--resume", "--columns", "d,c,b,a"]).output().unwrap());
    assert!(
        code == Some(1) && error.contains("begun by other work") && error.contains("inputs: "),
        "{error}"
    );
    // Rows that are done and were changed since are told, too.
    let text = fs::read_to_string(slow.at("x.csv")).unwrap();
    fs::write(slow.at("x.csv"), text.replace("3,3,3,0.5\n", "3,3,4,0.5\n")).unwrap();
    let (code, _, error) = said(slow.command("x.csv", "y.csv", &["--resume"]).output().unwrap());
    assert!(code == Some(1) && error.contains("not the same any more"), "{error}");
    fs::write(slow.at("x.csv"), text).unwrap();
    slow.whole("x.csv", "y.csv", &["--resume"]);
    assert_eq!(cells(&slow.at("y.csv")).len(), ROWS + 1);
}

#[test]
fn a_cell_that_is_wrong_is_corrected_and_the_work_goes_on() {
    let slow = Slow::new();
    let text = fs::read_to_string(slow.at("x.csv")).unwrap();
    fs::write(slow.at("x.csv"), text.replace("\n250,", "\nmany,")).unwrap();
    let (code, _, error) = said(slow.command("x.csv", "y.csv", &[]).output().unwrap());
    assert!(
        code == Some(1) && error.contains("x.csv: line 252, column 'a': 'many' is not a number"),
        "{error}"
    );
    assert!(error.contains("250 rows are done and kept; go on with: "), "{error}");
    fs::write(slow.at("x.csv"), &text).unwrap();
    let before = slow.answered();
    slow.whole("x.csv", "y.csv", &["--resume"]);
    assert_eq!((slow.answered() - before, cells(&slow.at("y.csv")).len()), (50, ROWS + 1));
}

#[test]
fn parquet_that_was_interrupted_goes_on_too() {
    let slow = Slow::new();
    let flags =
        ["--parquet", PARQUET, "--columns", "amount,hour,weekday,fraud", "--rows", "1", "--in-flight", "2"];
    let medium = |out: &str, more: &[&str]| {
        let out = slow.at(out);
        command(&slow.server, "medium", &[&flags, &["--out", path(&out)][..], more].concat())
    };
    let mut child = medium("y.parquet", &[]).spawn().unwrap();
    let journal = slow.at("y.parquet.journal");
    until("some rows are done", || {
        fs::read_to_string(&journal).is_ok_and(|journal| journal.lines().count() > 20)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, out, error) = said(medium("y.parquet", &["--resume"]).output().unwrap());
    assert!(code == Some(0) && out.starts_with("200 rows in "), "{error}");
    // As rows that were never interrupted.
    let (code, _, error) = said(medium("want.csv", &[]).output().unwrap());
    assert_eq!(code, Some(0), "{error}");
    let (from, to) = (slow.at("y.parquet"), slow.at("got.csv"));
    let again = ["--parquet", path(&from), "--columns", "amount,hour,weekday,fraud", "--out", path(&to)];
    good(&slow.server, "medium", &again);
    let (want, got) = (cells(&slow.at("want.csv")), cells(&to));
    assert_eq!((want.len(), got.len()), (201, 201));
    for (want, got) in want.iter().zip(&got).skip(1) {
        assert_eq!(want[..], got[..want.len()]);
    }
}

#[test]
fn what_is_wrong_with_a_table_is_told_with_its_place_and_what_to_do() {
    let server = fraud();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = fs::read_to_string(root().join(TRANSACTIONS)).unwrap();
    let (head, first) = (text.lines().next().unwrap(), text.lines().nth(1).unwrap());
    let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
    write("empty.csv", "");
    write("head.csv", &format!("{head}\n"));
    write("numbers.csv", &format!("{first}\n{first}\n"));
    write("short.csv", &format!("{head}\n{first}\n1,2,3\n"));
    write("text.csv", &format!("{head}\n{}\n", first.replacen("42.7272", "cheap", 1)));
    write("gap.csv", &format!("{head}\n{}\n", first.replacen("42.7272", "", 1)));
    write("half.csv", "amount,hour\n1,2\n");
    write("no.parquet", "this is no Parquet file");
    write("there.csv", "precious");
    let out = at("out.csv");
    let error = |model: &str, source: &str, out: &Path, more: &[&str]| {
        let source = if source.contains('/') { PathBuf::from(source) } else { at(source) };
        let kind =
            if source.extension().is_some_and(|ending| ending == "parquet") { "--parquet" } else { "--csv" };
        let flags = [&[kind, path(&source), "--out", path(out)], more].concat();
        let (code, said, error) = run(&server, model, &flags);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{source:?}: {error}");
        error
    };
    let fraud = &["--without", "fraud"][..];
    for (source, more, want) in [
        ("empty.csv", &[][..], "the file is empty; it needs a line with the names of columns"),
        ("head.csv", &[], "there are no rows behind the names of the columns"),
        ("numbers.csv", &[], "line 1 has numbers where the names of columns should be"),
        ("short.csv", fraud, "short.csv: line 3 has 3 cells, and there are 31 columns"),
        ("gap.csv", fraud, "line 2, column 'amount': the cell is empty; --empty VALUE says"),
        ("half.csv", &[], "has 30 numbers, and there are 2 columns of numbers, the last of which is 'hour'"),
        ("text.csv", fraud, "has 30 numbers, and there are 29 columns of numbers"),
        (TRANSACTIONS, &[], "there are 31 columns of numbers, the last of which is 'fraud'; name those"),
        (TRANSACTIONS, &["--without", "frod"], "there is no column 'frod'; the columns are amount, hour"),
        (TRANSACTIONS, &["--without", "fraud", "--outputs", "probs"], "its outputs are probabilities"),
        (TRANSACTIONS, &["--without", "fraud", "--rows", "65"], "the model takes at most 64 rows a request"),
        ("nowhere.csv", &[], "cannot read"),
        ("no.parquet", &[], "no.parquet is no Parquet file that can be read"),
    ] {
        let error = error("fraud-mlp", source, &out, more);
        assert!(error.contains(want), "{source} {more:?}: {error}");
    }
    let error_of = |model, out: &Path| error(model, TRANSACTIONS, out, fraud);
    let unknown = error_of("fraud-mpl", &out);
    assert!(
        unknown.contains("there is no model 'fraud-mpl'") && unknown.contains("fraud-mlp, fraud-trees"),
        "{unknown}"
    );
    let there = error_of("fraud-mlp", &at("there.csv"));
    assert!(there.contains("there.csv is there already; --overwrite replaces it"), "{there}");
    assert_eq!(fs::read_to_string(at("there.csv")).unwrap(), "precious");
    assert!(error_of("fraud-mlp", &at("out.xlsx")).contains("rows of a CSV file go to a .csv file"));
    // Nothing that failed before its first row stays behind.
    assert!(names(folder.path()).iter().all(|name| !name.starts_with("out")), "{:?}", names(folder.path()));
    let flags = ["--csv", TRANSACTIONS, "--without", "fraud", "--out", path(&at("there.csv")), "--overwrite"]
        .map(str::to_owned);
    good(&server, "fraud-mlp", &flags.each_ref().map(String::as_str));
    assert_eq!(cells(&at("there.csv")).len(), 201);
    let (code, _, error) = run(&server, "fraud-mlp", &["--csv", TRANSACTIONS]);
    assert!(code == Some(64) && error.contains("--out"), "{error}");
}

#[test]
fn a_server_that_goes_away_leaves_work_that_another_one_finishes() {
    let slow = Slow::new();
    let child = slow.command("x.csv", "y.csv", &["--timeout", "1"]).spawn().unwrap();
    let journal = slow.at("y.csv.journal");
    until("some rows are done", || {
        fs::read_to_string(&journal).is_ok_and(|journal| journal.lines().count() > 20)
    });
    let Slow { server, folder } = slow;
    drop(server);
    let (code, _, error) = said(child.wait_with_output().unwrap());
    assert!(code == Some(1) && error.contains("no answer from") && error.contains("go on with: "), "{error}");
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    let slow = Slow { server, folder };
    slow.whole("x.csv", "y.csv", &["--resume"]);
    assert_eq!(cells(&slow.at("y.csv")).len(), ROWS + 1);
}

#[test]
fn a_request_as_json_is_still_sent_as_it_is() {
    // What was there before: a request as it is, and lines of numbers.
    let server = fraud();
    let out =
        good(&server, "fraud-mlp", &["--input", "examples/fraud-detection/request.json", "--output", "json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["outputs"][0]["shape"], json!([3, 2]));
}
