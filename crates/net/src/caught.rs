//! A future whose panic is an outcome.
//!
//! One request that meets a bug of ours must not end the connection it shares with others.
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

/// The future panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs a pinned future; see [`caught`].
#[derive(Debug)]
pub(crate) struct Caught<F>(F);

/// Turns a panic of `future` into [`Panicked`]. It is not polled again after one.
pub(crate) fn caught<F: Future + Unpin>(future: F) -> Caught<F> {
    Caught(future)
}

impl<F: Future + Unpin> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = Pin::new(&mut self.0);
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}
