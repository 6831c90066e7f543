//! Work that lets answers go first: the loads of a server that is serving.
//!
//! A load takes a core for milliseconds up to minutes, and a scheduler leaves a core to whoever has it for a slice of
//! about a millisecond, however urgent the next one is: beside loads, a request of a tiny model would take ten times as
//! long. So a load runs under Linux's policy for idle cores (`SCHED_IDLE`, sched(7)), from which every other thread that
//! wakes takes the core at once. On a machine that is never idle such work would stand still: what is not done in its
//! time is done once more under the ordinary policy.
//!
//! A thread needs a privilege to leave that policy, and hands it on to threads that it starts. So each piece of work has
//! a thread of its own, and work that starts threads which answer requests must not be done here.
use std::{sync::Arc, sync::mpsc, time::Duration};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// What reading and building a session over so many bytes takes, generously, where cores are idle now and then.
pub(crate) fn patience(bytes: u64) -> Duration {
    Duration::from_secs(2) + Duration::from_secs(bytes >> 25)
}

/// Does work on a thread that gives way to all others; here, and once more, if it does not come to its end in time.
pub(crate) fn aside<T, W>(patience: Duration, work: W) -> T
where
    T: Send + 'static,
    W: Fn() -> T + Send + Sync + 'static,
{
    let work = Arc::new(work);
    let quiet = Arc::clone(&work);
    let (done, outcome) = mpsc::sync_channel(1);
    let give_way = move || {
        lower();
        // Nobody waits any more for what comes too late.
        let _ = done.send(quiet());
    };
    let started = std::thread::Builder::new().name("aside".into()).spawn(give_way);
    match started.map(|_| outcome.recv_timeout(patience)) {
        Ok(Ok(outcome)) => outcome,
        // Late, or it panicked and does so again where that is told, or there is no room for a thread.
        Ok(Err(_)) | Err(_) => work(),
    }
}

fn lower() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    // A system that does not allow it runs the work like any other.
    let outcome = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
    if let Err(error) = outcome {
        tracing::debug!(?error, "loads run like any other work");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };
    use thread_priority::thread_schedule_policy;

    fn policy() -> ThreadSchedulePolicy {
        thread_schedule_policy().unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_gives_way_and_the_thread_that_waits_stays_as_it_is() {
        let before = policy();
        let during = aside(Duration::from_secs(600), policy);
        assert_eq!(during, ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle));
        assert_eq!(policy(), before);
    }

    #[test]
    fn work_that_stands_still_is_done_under_the_ordinary_policy() {
        let (runs, never) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let counted = Arc::clone(&runs);
        let stands_still = Arc::clone(&never);
        let here = std::thread::current().id();
        let answer = aside(Duration::from_millis(1), move || {
            counted.fetch_add(1, SeqCst);
            if std::thread::current().id() != here {
                stands_still.wait();
            }
            std::thread::current().id()
        });
        assert_eq!(answer, here);
        never.wait();
        assert!(runs.load(SeqCst) <= 2);
    }

    #[test]
    #[should_panic(expected = "no model")]
    fn a_panic_is_that_of_the_work() {
        aside(Duration::from_secs(600), || panic!("no model"));
    }
}
