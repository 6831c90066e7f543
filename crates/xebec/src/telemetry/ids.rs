//! Random identities of traces and spans, and the draw of which calls are traced.
//!
//! Good enough to be told apart, and no secret: nobody is trusted for knowing one.
//!
//! # Source
//! SplitMix64: Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators".
use std::{
    cell::Cell,
    hash::{BuildHasher as _, RandomState},
};
use xebec_core::trace::{SpanId, TraceId};

thread_local! {
    /// Two streams, so that an identity of 128 bits has 128 bits behind it.
    static STATES: Cell<[u64; 2]> = Cell::new([seed(), seed()]);
}

/// Of the system's randomness, by way of the keys of hash maps.
fn seed() -> u64 {
    RandomState::new().hash_one(0_u64)
}

fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn random() -> [u64; 2] {
    STATES.with(|states| {
        let mut both = states.get();
        let drawn = [step(&mut both[0]), step(&mut both[1])];
        states.set(both);
        drawn
    })
}

fn of([high, low]: [u64; 2]) -> Option<TraceId> {
    TraceId::new(u128::from(high) << 64 | u128::from(low))
}

/// A new trace.
pub(super) fn trace() -> TraceId {
    loop {
        if let Some(trace) = of(random()) {
            return trace;
        }
    }
}

/// A new trace for one of so many calls, and none for the others. The low half of the identity decides, as samplers by
/// ratio of other servers do.
pub(super) fn trace_of_one_in(rate: u32) -> Option<TraceId> {
    let drawn = random();
    let [_, low] = drawn;
    if low <= u64::MAX / u64::from(rate.max(1)) { of(drawn) } else { None }
}

/// A new span.
pub(super) fn span() -> SpanId {
    loop {
        let [_, low] = random();
        if let Some(span) = SpanId::new(low) {
            return span;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn identities_differ_also_between_threads() {
        let draw = || (0..1000).map(|_| trace()).collect::<HashSet<_>>();
        let other = std::thread::spawn(draw).join().unwrap();
        assert_eq!(draw().union(&other).count(), 2000);
        assert_eq!((0..1000).map(|_| span()).collect::<HashSet<_>>().len(), 1000);
    }

    #[test]
    fn one_of_so_many_is_drawn() {
        assert!((0..1000).all(|_| trace_of_one_in(1).is_some()));
        let drawn = (0..100_000).filter(|_| trace_of_one_in(100).is_some()).count();
        // 1,000 with a standard deviation of 31.
        assert!((700..1300).contains(&drawn), "{drawn}");
    }
}
