//! Tries the inputs in files once more: `replay TARGET FILE...`. A finding is a panic that says what does not hold.
use std::process::ExitCode;
use xebec_fuzz::{TARGETS, target};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let Some(target) = target(&name) else {
        let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: replay TARGET FILE...; '{name}' is no target: they are {}", known.join(", "));
        return ExitCode::from(64);
    };
    let mut tried = 0;
    for path in arguments {
        match std::fs::read(&path) {
            Ok(bytes) => println!("{path}: {}", if target(&bytes) { "taken" } else { "refused" }),
            Err(error) => {
                eprintln!("cannot read {path}: {error}");
                return ExitCode::from(66);
            }
        }
        tried += 1;
    }
    println!("{tried} inputs of {name}, and every property holds");
    ExitCode::SUCCESS
}
