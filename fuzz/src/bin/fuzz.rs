//! What libFuzzer calls with each input: the target that `XEBEC_FUZZ_TARGET` names. `make fuzz` runs it.
#![no_main]
#![allow(unsafe_code, reason = "libFuzzer's macro exports a function by its name")]
use std::sync::OnceLock;
use xebec_fuzz::{Target, target};

#[expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "libFuzzer has the command line for itself"
)]
fn chosen() -> Target {
    let name = std::env::var("XEBEC_FUZZ_TARGET").expect("XEBEC_FUZZ_TARGET names the target");
    target(&name).expect("the name of a target")
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    let _ = CHOSEN.get_or_init(chosen)(bytes);
});
