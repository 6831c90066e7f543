//! The arrangements of a model that are tried, and under how much load.
//!
//! Invariant: two points that would run the same are one: a model that runs inline waits for no company, and neither
//! does one that runs every request alone.
//!
//! Not here: which are measured, and in which order (`search`).
use std::{collections::BTreeSet, fmt};

/// Where runs happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// On the thread that read the request: no instance count.
    Inline,
    /// On instance threads, which share so many threads of the engine.
    Queued {
        /** Runs side by side. */
        instances: u32,
        /** Threads that a run may use. */
        threads: u32,
    },
}

/// How a model is arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Arrangement {
    pub(super) class: Class,
    /// Most rows of a run and of a request; 0 if the model has no batch axis that requests could share.
    pub(super) batch: u32,
    /// How long a busy instance waits for company.
    pub(super) delay_us: u64,
}

/// An arrangement under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Point {
    pub(super) arrangement: Arrangement,
    /// Requests in flight; 0 in an open loop.
    pub(super) load: u32,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline => f.write_str("inline"),
            Self::Queued { instances, threads } => write!(f, "{instances} x {threads}"),
        }
    }
}

impl fmt::Display for Arrangement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Class::Inline => f.write_str("inline (no instance count)")?,
            Class::Queued { instances, threads } => {
                let plural = |count: u32| if count == 1 { "" } else { "s" };
                write!(f, "{instances} instance{}, {threads} thread{}", plural(instances), plural(threads))?;
            }
        }
        match (self.batch, self.delay_us) {
            (0, _) => f.write_str(", requests run alone"),
            (batch, 0) => write!(f, ", batch {batch}"),
            (batch, delay) => write!(f, ", batch {batch}, delay {delay} us"),
        }
    }
}

impl Arrangement {
    /// The one point of all that run the same.
    fn canonical(self) -> Self {
        let waits = self.class != Class::Inline && self.batch > 1;
        Self { delay_us: if waits { self.delay_us } else { 0 }, ..self }
    }
}

/// What can be varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// [`Class`]: instances and threads together, because they share the cores.
    Class,
    /// Most rows of a run.
    Batch,
    /// Requests in flight.
    Load,
    /// Wait for company.
    Delay,
}

/// In the order of what they usually change.
pub(super) const AXES: [Axis; 4] = [Axis::Class, Axis::Load, Axis::Batch, Axis::Delay];

/// The values of each axis; none is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) classes: Vec<Class>,
    pub(super) batches: Vec<u32>,
    pub(super) delays_us: Vec<u64>,
    pub(super) loads: Vec<u32>,
}

impl Space {
    /// Every point once.
    pub(super) fn all(&self) -> Vec<Point> {
        let mut all = BTreeSet::new();
        for &class in &self.classes {
            for &batch in &self.batches {
                for &delay_us in &self.delays_us {
                    let arrangement = Arrangement { class, batch, delay_us }.canonical();
                    all.extend(self.loads.iter().map(|&load| Point { arrangement, load }));
                }
            }
        }
        all.into_iter().collect()
    }

    /// Whether a point is one of them.
    pub(super) fn contains(&self, point: Point) -> bool {
        let Point { arrangement: Arrangement { class, batch, .. }, load } = point;
        let mut delays = self.delays_us.iter();
        self.classes.contains(&class)
            && self.batches.contains(&batch)
            && self.loads.contains(&load)
            && delays.any(|&delay_us| {
                Arrangement { class, batch, delay_us }.canonical() == point.arrangement.canonical()
            })
    }

    /// The points that differ from `from` in one axis, without itself.
    pub(super) fn along(&self, axis: Axis, from: Point) -> Vec<Point> {
        let with = |arrangement: Arrangement, load| Point { arrangement: arrangement.canonical(), load };
        let (here, load) = (from.arrangement, from.load);
        let all: BTreeSet<Point> = match axis {
            Axis::Class => {
                self.classes.iter().map(|&class| with(Arrangement { class, ..here }, load)).collect()
            }
            Axis::Batch => {
                self.batches.iter().map(|&batch| with(Arrangement { batch, ..here }, load)).collect()
            }
            Axis::Delay => {
                self.delays_us.iter().map(|&delay_us| with(Arrangement { delay_us, ..here }, load)).collect()
            }
            Axis::Load => self.loads.iter().map(|&load| with(here, load)).collect(),
        };
        all.into_iter().filter(|point| *point != from).collect()
    }

    /// Up to `count` points that lie evenly over all axes together, the same ones every time.
    ///
    /// # Source
    /// The additive recurrence with the powers of 1/1.16730, the root of x^5 = x + 1 (M. Roberts, "The unreasonable
    /// effectiveness of quasirandom sequences").
    pub(super) fn spread(&self, count: u32) -> Vec<Point> {
        const STEPS: [f64; 4] = [0.856_674_9, 0.733_891_9, 0.628_706_7, 0.538_597_3];
        let at = |step: f64, turn: u32, len: usize| {
            let place = (0.5 + step * f64::from(turn)).fract();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "from 0 to a short length"
            )]
            let index = (place * len as f64) as usize;
            index.min(len.saturating_sub(1))
        };
        let point = |turn| {
            let class = *self.classes.get(at(STEPS[0], turn, self.classes.len()))?;
            let batch = *self.batches.get(at(STEPS[1], turn, self.batches.len()))?;
            let load = *self.loads.get(at(STEPS[2], turn, self.loads.len()))?;
            let delay_us = *self.delays_us.get(at(STEPS[3], turn, self.delays_us.len()))?;
            Some(Point { arrangement: Arrangement { class, batch, delay_us }.canonical(), load })
        };
        let mut seen = BTreeSet::new();
        (0..count).filter_map(point).filter(|point| seen.insert(*point)).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tune) fn space() -> Space {
        let queued = |instances, threads| Class::Queued { instances, threads };
        Space {
            classes: vec![Class::Inline, queued(1, 1), queued(2, 1), queued(1, 2), queued(2, 2)],
            batches: vec![1, 4, 16, 64],
            delays_us: vec![0, 500, 5000],
            loads: vec![1, 16, 64],
        }
    }

    #[test]
    fn points_that_run_the_same_are_one() {
        let all = space().all();
        // Inline has no delay, and batch 1 neither.
        assert_eq!(all.len(), (4 + 4 * (1 + 3 * 3)) * 3);
        assert!(all.iter().all(|point| space().contains(*point)));
        assert!(!space().contains(Point { load: 2, ..all[0] }));
        let inline = |point: &&Point| point.arrangement.class == Class::Inline;
        assert!(all.iter().filter(inline).all(|point| point.arrangement.delay_us == 0));
    }

    #[test]
    fn along_an_axis_nothing_else_changes() {
        let class = Class::Queued { instances: 1, threads: 1 };
        let from = Point { arrangement: Arrangement { class, batch: 16, delay_us: 500 }, load: 16 };
        assert_eq!(space().along(Axis::Batch, from).len(), 3);
        assert_eq!(space().along(Axis::Class, from).len(), 4);
        assert_eq!(space().along(Axis::Delay, from).len(), 2);
        for point in space().along(Axis::Load, from) {
            assert_eq!(point.arrangement, from.arrangement);
            assert_ne!(point.load, from.load);
        }
    }

    #[test]
    fn a_spread_reaches_every_value_of_every_axis() {
        let (space, spread) = (space(), space().spread(16));
        assert!(space.classes.iter().all(|class| spread.iter().any(|p| p.arrangement.class == *class)));
        assert!(space.batches.iter().all(|batch| spread.iter().any(|p| p.arrangement.batch == *batch)));
        assert!(space.loads.iter().all(|load| spread.iter().any(|p| p.load == *load)));
        assert_eq!(spread, space.spread(16));
    }
}
