//! Work that lets answers go first: the loads of a server that is serving.
//!
//! A load takes a core for milliseconds up to minutes, and a scheduler leaves a core to whoever has it for a slice of
//! about a millisecond, however urgent the next one is: beside loads, a request of a tiny model would take several times
//! as long. So loaders run under Linux's policy for idle cores (`SCHED_IDLE`, sched(7)), from which every other thread
//! that wakes takes the core at once. On a machine that is never idle they would stand still: what is heavy and not done
//! in its time is done once more under the ordinary policy.
//!
//! A thread needs a privilege to leave that policy, and hands it on to threads that it starts. So a thread of the
//! ordinary policy, the nursery, starts those that answer requests.
use rustix::time::{ClockId, clock_gettime};
use std::{
    cell::Cell,
    io,
    panic::resume_unwind,
    sync::{
        Arc, OnceLock,
        mpsc::{self, SyncSender},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

type Job = Box<dyn FnOnce() + Send>;

static NURSERY: OnceLock<SyncSender<Job>> = OnceLock::new();

thread_local! {
    static GIVES_WAY: Cell<bool> = const { Cell::new(false) };
}

/// Lets this thread give way to all others, for good, once there is a nursery for those that it is to start.
pub(crate) fn give_way() {
    if GIVES_WAY.get() || NURSERY.get().is_none() {
        return;
    }
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    // A system that does not allow it runs loads like any other work.
    match set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
        Ok(()) => GIVES_WAY.set(true),
        Err(error) => tracing::debug!(?error, "loads run like any other work"),
    }
}

/// Starts the nursery. Whoever calls this has the ordinary policy.
///
/// # Errors
/// The system has no room for a thread.
pub(crate) fn prepare() -> io::Result<()> {
    if NURSERY.get().is_some() {
        return Ok(());
    }
    let (ask, asked) = mpsc::sync_channel::<Job>(64);
    Builder::new().name("nursery".into()).spawn(move || asked.into_iter().for_each(|job| job()))?;
    // Of two at the same time one stays, and the other's thread ends.
    let _ = NURSERY.set(ask);
    Ok(())
}

/// Starts a thread of the ordinary policy, whoever asks for it.
///
/// # Errors
/// The system has no room for it.
pub(crate) fn spawn<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let builder = Builder::new().name(name);
    let Some(nursery) = NURSERY.get().filter(|_| GIVES_WAY.get()) else { return builder.spawn(work) };
    let (tell, told) = mpsc::sync_channel(1);
    let gone = |_| io::Error::other("the thread that starts threads has ended");
    let job: Job = Box::new(move || drop(tell.send(builder.spawn(work))));
    nursery.send(job).map_err(|_| io::Error::other("the thread that starts threads has ended"))?;
    told.recv().map_err(gone)?
}

/// What reading and building a session over so many bytes takes, generously, where cores are idle now and then.
pub(crate) fn patience(bytes: u64) -> Duration {
    Duration::from_secs(2) + Duration::from_secs(bytes >> 25)
}

/// Does work; on a thread that gives way, once more under the ordinary policy if it does not come to its end in time.
pub(crate) fn aside<T, W>(patience: Duration, work: W) -> T
where
    T: Send + 'static,
    W: Fn() -> T + Send + Sync + 'static,
{
    if !GIVES_WAY.get() {
        return work();
    }
    let work = Arc::new(work);
    let quiet = Arc::clone(&work);
    let (done, outcome) = mpsc::sync_channel(1);
    // It inherits the policy. Nobody waits any more for what comes too late.
    let started = Builder::new().name("aside".into()).spawn(move || drop(done.send(quiet())));
    match started.map(|_| outcome.recv_timeout(patience)) {
        Ok(Ok(outcome)) => outcome,
        // Late, or it panicked and does so again where that is told, or there is no room for a thread.
        Ok(Err(_)) | Err(_) => ordinary(&work),
    }
}

/// Does work under the ordinary policy, because it starts threads or has waited long enough.
pub(crate) fn ordinary<T, W>(work: &Arc<W>) -> T
where
    T: Send + 'static,
    W: Fn() -> T + Send + Sync + 'static,
{
    if !GIVES_WAY.get() {
        return work();
    }
    let there = Arc::clone(work);
    match spawn("ordinary".into(), move || there()).map(JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => work(),
    }
}

/// How long work takes; of a thread that gives way, without the time that others took from it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch {
    Clock(Instant),
    Processor(Duration),
}

impl Watch {
    pub(crate) fn start() -> Self {
        if GIVES_WAY.get() { Self::Processor(processor()) } else { Self::Clock(Instant::now()) }
    }

    pub(crate) fn elapsed(self) -> Duration {
        match self {
            Self::Clock(started) => started.elapsed(),
            Self::Processor(started) => processor().saturating_sub(started),
        }
    }
}

/// Processor time of this thread.
fn processor() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let whole = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
    whole + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };
    use thread_priority::thread_schedule_policy;

    const IDLE: ThreadSchedulePolicy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);

    fn policy() -> ThreadSchedulePolicy {
        thread_schedule_policy().unwrap()
    }

    /// Runs on a thread that gives way.
    fn giving_way<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        prepare().unwrap();
        let lowered = || {
            give_way();
            work()
        };
        std::thread::spawn(lowered).join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_loader_gives_way_and_what_it_starts_to_answer_does_not() {
        let (own, work, answers) = giving_way(|| {
            let answers = spawn("answers".into(), policy).unwrap().join().unwrap();
            (policy(), aside(Duration::from_secs(600), policy), answers)
        });
        assert_eq!((own, work), (IDLE, IDLE));
        assert_eq!(answers, policy());
        // Whoever does not give way works where it is.
        let here = std::thread::current().id();
        assert_eq!(aside(Duration::ZERO, || std::thread::current().id()), here);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_that_stands_still_is_done_under_the_ordinary_policy() {
        let (runs, never) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let (counted, stands_still) = (Arc::clone(&runs), Arc::clone(&never));
        let by = giving_way(move || {
            aside(Duration::from_millis(1), move || {
                counted.fetch_add(1, SeqCst);
                if policy() == IDLE {
                    stands_still.wait();
                }
                policy()
            })
        });
        assert_eq!(by, policy());
        never.wait();
        assert!(runs.load(SeqCst) <= 2);
    }

    #[test]
    #[should_panic(expected = "no model")]
    fn a_panic_is_that_of_the_work() {
        giving_way(|| aside(Duration::from_secs(600), || panic!("no model")));
    }

    #[test]
    fn the_watch_of_a_thread_that_gives_way_counts_its_own_time_only() {
        let (tell, told) = mpsc::sync_channel::<()>(1);
        let waited = giving_way(move || {
            let watch = Watch::start();
            // Nobody tells anything: this waits.
            let _ = told.recv_timeout(Duration::from_millis(200));
            watch.elapsed()
        });
        drop(tell);
        assert!(waited < Duration::from_millis(150), "{waited:?}");
    }
}
