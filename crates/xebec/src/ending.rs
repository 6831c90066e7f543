//! The way to the end: the first signal drains, and whatever happens then, the process ends.
//!
//! Invariants: the handlers are there before anything else is, so that no signal finds the process without; nothing
//! that may block (standard error, a thread, the engine) stands between a signal and the end.
use std::{
    process::exit,
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

/// What the process gets beyond the time to drain, to join its threads and write its last lines.
const GRACE: Duration = Duration::from_secs(2);

/// Installs the handlers of SIGTERM and SIGINT. The first signal calls `first` and is then told over the channel; a
/// second one ends the process at once, and so does the time to drain when it has passed.
///
/// # Errors
/// The system refuses the handlers or the thread.
pub(crate) fn on_signal(
    bound: Duration,
    first: impl FnOnce() + Send + 'static,
) -> std::io::Result<Receiver<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = Signals::install(&runtime)?;
    let (tell, told) = sync_channel(1);
    let watch = move || {
        runtime.block_on(signals.next());
        first();
        // The receiver is gone if the server ends for another reason: the bound holds for that end too.
        let _ = tell.send(());
        let _ = runtime.block_on(async { timeout(bound + GRACE, signals.next()).await });
        exit(1);
    };
    thread::Builder::new().name("signals".into()).spawn(watch)?;
    Ok(told)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install(runtime: &Runtime) -> std::io::Result<Self> {
        let _inside = runtime.enter();
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}
