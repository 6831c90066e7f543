//! Ctrl-C of a subcommand that measures: the first one asks it to end and tell what it knows, the second ends it.
use std::{
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// As shells tell of SIGINT.
const INTERRUPTED: i32 = 130;

/// Watches for SIGINT from now on; the flag is set by the first one.
///
/// # Errors
/// The system refuses the handler or the thread.
pub(crate) fn on_interrupt() -> std::io::Result<Arc<AtomicBool>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut interrupts = {
        let _inside = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let asked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&asked);
    let watch = move || {
        runtime.block_on(interrupts.recv());
        flag.store(true, Relaxed);
        runtime.block_on(interrupts.recv());
        exit(INTERRUPTED);
    };
    std::thread::Builder::new().name("interrupts".into()).spawn(watch)?;
    Ok(asked)
}
