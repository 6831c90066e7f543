//! Requests in flight: several at a time, and their answers in the order of the requests.
//!
//! Invariants, each held by a test:
//! 1. answers come in order, and none is left out before one that comes;
//! 2. never are more in flight, or done and not yet taken, than twice the lanes;
//! 3. after a fault, or once somebody wants to stop, nothing new is begun.
use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

/// How the work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it is done.
    Whole,
    /// Somebody wanted to stop; what was in flight is done.
    Stopped,
}

/// A piece of work, and where its outcome is waited for.
type Job<T, R> = (T, SyncSender<anyhow::Result<R>>);

/// Does `work` on what `source` yields, in so many lanes, and gives the outcomes to `each` in order.
///
/// # Errors
/// The first in order of `source`, `work` and `each`. What came before it was given out.
pub(super) fn in_order<T: Send, R: Send>(
    lanes: usize,
    stop: &AtomicBool,
    source: impl Iterator<Item = anyhow::Result<T>>,
    work: impl Fn(T) -> anyhow::Result<R> + Sync,
    each: impl FnMut(R) -> anyhow::Result<()>,
) -> anyhow::Result<Ended> {
    let lanes = lanes.max(1);
    let (jobs, queue) = sync_channel(lanes);
    let (queue, over) = (Mutex::new(queue), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| lane(&queue, &over, &work));
        }
        let ended = feed(jobs, 2 * lanes - 1, stop, source, each);
        over.store(true, Relaxed);
        ended
    })
}

fn lane<T, R>(queue: &Mutex<Receiver<Job<T, R>>>, over: &AtomicBool, work: &impl Fn(T) -> anyhow::Result<R>) {
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok((job, outcome)) = next() {
        if over.load(Relaxed) {
            return;
        }
        // Nobody waits for it any more if something before it went wrong.
        let _ = outcome.send(work(job));
    }
}

fn feed<T, R>(
    jobs: SyncSender<Job<T, R>>,
    most: usize,
    stop: &AtomicBool,
    source: impl Iterator<Item = anyhow::Result<T>>,
    mut each: impl FnMut(R) -> anyhow::Result<()>,
) -> anyhow::Result<Ended> {
    let mut waiting = VecDeque::new();
    let (mut fault, mut stopped) = (None, false);
    for job in source {
        stopped = stop.load(Relaxed);
        if stopped {
            break;
        }
        let (outcome, first) = sync_channel(1);
        match job {
            Ok(job) => jobs.send((job, outcome)).map_err(|_| anyhow::anyhow!("a lane ended early"))?,
            Err(error) => {
                fault = Some(error);
                break;
            }
        }
        waiting.push_back(first);
        if !take(&mut waiting, most, stop, &mut each)? {
            return Ok(Ended::Stopped);
        }
    }
    drop(jobs);
    if !take(&mut waiting, 0, stop, &mut each)? {
        return Ok(Ended::Stopped);
    }
    match fault {
        Some(error) => Err(error),
        None if stopped => Ok(Ended::Stopped),
        None => Ok(Ended::Whole),
    }
}

/// Gives out what is done, and waits where too many wait; false if there is no use in going on.
fn take<R>(
    waiting: &mut VecDeque<Receiver<anyhow::Result<R>>>,
    most: usize,
    stop: &AtomicBool,
    each: &mut impl FnMut(R) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    while let Some(done) = ready(waiting, most) {
        match done {
            // What could not be done after somebody wanted to stop is left for the next time.
            Err(_) if stop.load(Relaxed) => return Ok(false),
            done => each(done?)?,
        }
    }
    Ok(true)
}

/// The first outcome, if it is there or too many wait behind it.
fn ready<R>(waiting: &mut VecDeque<Receiver<anyhow::Result<R>>>, most: usize) -> Option<anyhow::Result<R>> {
    let first = waiting.front()?;
    let outcome = if waiting.len() < most {
        match first.try_recv() {
            Err(TryRecvError::Empty) => return None,
            outcome => outcome.map_err(anyhow::Error::from),
        }
    } else {
        first.recv().map_err(anyhow::Error::from)
    };
    waiting.pop_front();
    Some(outcome.flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn numbers(count: usize) -> impl Iterator<Item = anyhow::Result<usize>> {
        (0..count).map(Ok)
    }

    #[test]
    fn outcomes_come_in_order_whatever_ends_first_and_no_more_wait_than_may() {
        for lanes in [1, 2, 5] {
            let (begun, taken, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
            let mut got = Vec::new();
            let work = |number: usize| {
                let ahead = begun.fetch_add(1, Relaxed) + 1 - taken.load(Relaxed);
                assert!(ahead <= 2 * lanes, "{ahead}");
                // Some take longer than others.
                (0..(number % 7) * 100).for_each(|_| std::thread::yield_now());
                Ok(number * 2)
            };
            let ended = in_order(lanes, &stop, numbers(200), work, |number| {
                taken.fetch_add(1, Relaxed);
                got.push(number);
                Ok(())
            });
            assert_eq!((ended.unwrap(), got), (Ended::Whole, (0..200).map(|n| n * 2).collect::<Vec<_>>()));
        }
    }

    #[test]
    fn a_fault_comes_behind_everything_before_it_and_ends_the_rest() {
        let (stop, mut got, begun) = (AtomicBool::new(false), Vec::new(), AtomicUsize::new(0));
        let work = |number| {
            begun.fetch_add(1, Relaxed);
            if number == 10 { anyhow::bail!("ten") } else { Ok(number) }
        };
        let error = in_order(3, &stop, numbers(1000), work, |number| {
            got.push(number);
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "ten");
        assert_eq!(got, (0..10).collect::<Vec<_>>());
        assert!(begun.load(Relaxed) < 30);
        let source = numbers(4).chain([Err(anyhow::anyhow!("source"))]);
        let mut got = Vec::new();
        let error = in_order(3, &stop, source, Ok, |number| {
            got.push(number);
            Ok(())
        });
        assert_eq!((error.unwrap_err().to_string().as_str(), got.len()), ("source", 4));
    }

    #[test]
    fn once_somebody_wants_to_stop_what_is_in_flight_is_given_out_and_nothing_begun() {
        let (stop, mut got) = (AtomicBool::new(false), 0);
        let ended = in_order(2, &stop, numbers(1000), Ok, |number| {
            got = number;
            stop.store(number >= 20, Relaxed);
            Ok(())
        });
        assert_eq!(ended.unwrap(), Ended::Stopped);
        assert!((20..30).contains(&got), "{got}");
    }
}
