//! How much memory a piece of work takes at its peak: what bounds say about it can be asserted.
//!
//! Counts what this thread allocates, so that tests beside it do not count.
#![allow(unsafe_code, reason = "an allocator cannot be written otherwise; it only counts and passes on")]
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

fn count(bytes: isize) {
    // A thread that ends allocates behind its thread-locals; nobody asks what.
    let _ = NOW.try_with(|now| {
        let sum = now.get().wrapping_add(bytes);
        now.set(sum);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(sum)));
    });
}

// SAFETY: every call goes on to the system's allocator as it is; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps what `GlobalAlloc` asks for, and so does the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the block came from the system's allocator, by `alloc` above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Does `work`, and tells how many bytes it held at its peak beyond what was held before.
pub fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    PEAK.set(before);
    let done = work();
    (done, usize::try_from(PEAK.get() - before).unwrap_or(0))
}

/// What a call over any transport may take beside what its input makes it take: error texts, headers, records.
const CALL_BYTES: usize = 64 << 10;

/// Bytes for each byte of input: a number of JSON takes 2 and becomes 8, in a buffer that grows by doubling and is
/// written again in the answer.
const PER_BYTE: usize = 64;

/// Does `work` and asserts that it takes no more than an input of so many bytes may cost.
pub(crate) fn bounded<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    within(CALL_BYTES, PER_BYTE, input_bytes, work)
}

/// Does `work` and asserts that it takes no more than so many bytes, and so many for each byte of its input.
pub(crate) fn within<T>(bytes: usize, per_byte: usize, input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let (done, took) = peak(work);
    let most = bytes + per_byte * input_bytes;
    assert!(took <= most, "an input of {input_bytes} bytes took {took} bytes of memory; {most} are the most");
    done
}
