//! Which points are measured, and which is best: faster than trying them all.
//!
//! 1. A few points that lie evenly over the space race against the arrangement at hand and the default.
//! 2. From the winner, one axis after another: all its values race, the others stay; until a pass changes nothing.
//! 3. The best of all race once more, longer.
//!
//! In a race everybody is measured in turn, a slice each, and again; only slices of the same race are compared, because
//! the machine changes between races. Who at his best has not reached what the first has in the middle is out, and of a
//! large field the lower half.
//!
//! Not here: how a slice is measured ([`Measure`]).
use super::{
    record::{Goal, Record, Slice, better},
    space::{AXES, Point, Space},
};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Measures points.
pub(super) trait Measure {
    /// One slice of a point; `None` when time is up.
    ///
    /// # Errors
    /// The point cannot be measured at all.
    fn slice(&mut self, point: Point) -> anyhow::Result<Option<Slice>>;

    /// Share of the time that is left, from 1 to 0.
    fn left(&self) -> f64;

    /// What goes on, for people.
    fn doing(&mut self, what: &str);
}

/// Everything that was measured.
pub(super) type Ledger = BTreeMap<Point, Record>;

/// Points of the first race beside the given ones.
const SPREAD: u32 = 14;
/// Rounds of a race.
const ROUNDS: usize = 3;
/// A field is halved while it has more than this.
const SMALL_FIELD: usize = 4;
/// Rounds and runners of the last race.
const LAST_ROUNDS: usize = 5;
const FINALISTS: usize = 4;
/// A challenger must be better by this share: less is noise.
const MARGIN: f64 = 0.01;
/// Who is behind by this share may yet win.
const SLACK: f64 = 0.03;
/// Scores within this share of the best are as good.
const EQUAL: f64 = 0.02;
/// Share of the time that the passes leave to the last race.
const RESERVE: f64 = 0.2;
/// Passes over all axes.
const PASSES: usize = 4;
/// Slices that a point of the front should have.
const WELL_KNOWN: usize = 3;

/// A search that goes on.
pub(super) struct Search<'a, M> {
    pub(super) space: &'a Space,
    pub(super) goal: Goal,
    pub(super) measure: &'a mut M,
    pub(super) ledger: Ledger,
    /// Whether time is up.
    pub(super) over: bool,
}

impl<M: Measure> Search<'_, M> {
    /// Finds the best point, beginning at `given`; `None` if nothing could be measured.
    ///
    /// # Errors
    /// A point that cannot be measured.
    pub(super) fn run(&mut self, given: &[Point]) -> anyhow::Result<Option<Point>> {
        self.measure.doing("a spread of arrangements");
        let mut field = given.to_vec();
        field.extend(self.space.spread(SPREAD).into_iter().filter(|point| !given.contains(point)));
        // What is there now may be outside of what was asked for: it is measured and not chosen.
        let mut order = self.race(&field, ROUNDS)?.into_iter().map(|(point, _)| point).collect::<Vec<_>>();
        order.extend(self.ranked());
        let Some(mut best) = order.into_iter().find(|point| self.space.contains(*point)) else {
            return Ok(None);
        };
        for _ in 0..PASSES {
            let before = best;
            for axis in AXES {
                if self.over || self.measure.left() < RESERVE {
                    break;
                }
                self.measure.doing(&format!("{axis:?} around {}", best.arrangement).to_lowercase());
                best = self.along(axis, best)?;
            }
            if best == before {
                break;
            }
        }
        let as_is = given.first().map(|point| Point { load: best.load, ..*point });
        self.last(best, as_is).map(Some)
    }

    fn along(&mut self, axis: super::space::Axis, best: Point) -> anyhow::Result<Point> {
        let mut field = vec![best];
        field.extend(self.space.along(axis, best));
        if field.len() == 1 {
            return Ok(best);
        }
        let order = self.race(&field, ROUNDS)?;
        let Some((first, record)) = order.first() else { return Ok(best) };
        let score = |record: &Record| self.goal.score(&record.summary());
        // As good as the one at hand is not better: that one stays.
        let kept = order.iter().find(|(point, _)| *point == best).map(|(_, record)| score(record));
        let wins = kept.is_none_or(|kept| better(score(record), kept, MARGIN));
        Ok(if wins { *first } else { best })
    }

    /// The last race: the winner so far against the best that were seen anywhere, and what is there now, under the
    /// same load, to tell the difference.
    fn last(&mut self, best: Point, as_is: Option<Point>) -> anyhow::Result<Point> {
        self.measure.doing("the best again");
        let mut field = vec![best];
        let others = self.ranked().into_iter().filter(|point| *point != best && self.space.contains(*point));
        field.extend(others.take(FINALISTS - 1));
        field.extend(as_is.filter(|point| !field.contains(point)));
        let mut order = self.laps(&field, LAST_ROUNDS)?;
        order.retain(|(point, _)| self.space.contains(*point));
        Ok(self.choose(&order).unwrap_or(best))
    }

    /// The best of a race that was run in full: of those that are as good, the one that answers soonest.
    pub(super) fn choose(&self, order: &[(Point, Record)]) -> Option<Point> {
        let top = order.first().map(|(_, record)| self.goal.score(&record.summary()))?;
        let p99 = |record: &Record| record.summary().p99_us;
        let equal = order
            .iter()
            .filter(|(_, record)| !better(top, self.goal.score(&record.summary()), EQUAL))
            .min_by(|(_, a), (_, b)| p99(a).total_cmp(&p99(b)));
        equal.map(|(point, _)| *point)
    }

    /// All points that were measured, the best first.
    pub(super) fn ranked(&self) -> Vec<Point> {
        let score = |record: &Record| self.goal.score(&record.summary());
        let mut all: Vec<(Point, f64)> =
            self.ledger.iter().map(|(point, record)| (*point, score(record))).collect();
        all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        all.into_iter().map(|(point, _)| point).collect()
    }

    /// Measures points of the front until they are well known, as far as time allows.
    ///
    /// # Errors
    /// A point that cannot be measured.
    pub(super) fn confirm(&mut self, points: &[Point]) -> anyhow::Result<()> {
        self.measure.doing("the front again");
        for _ in 0..WELL_KNOWN {
            for point in points {
                let known = self.ledger.get(point).map_or(0, Record::slices);
                if self.over || known >= WELL_KNOWN {
                    continue;
                }
                self.one(*point)?;
            }
        }
        Ok(())
    }

    /// What stands when everything is measured. The last race is a few slices; if all slices together say that its winner
    /// does not do what is wanted, the best of all is chosen, which may.
    pub(super) fn settled(&self, chosen: Point) -> Point {
        let score = |record: &Record| self.goal.score(&record.summary());
        if self.ledger.get(&chosen).is_some_and(|record| Goal::does(score(record))) {
            return chosen;
        }
        self.ranked().into_iter().find(|point| self.space.contains(*point)).unwrap_or(chosen)
    }

    /// Everybody in turn, the best first at the end; who falls back drops out.
    fn race(&mut self, field: &[Point], rounds: usize) -> anyhow::Result<Vec<(Point, Record)>> {
        let mut runners: Vec<(Point, Record)> =
            field.iter().map(|point| (*point, Record::default())).collect();
        for _ in 0..rounds {
            self.lap(&mut runners)?;
            let goal = self.goal;
            let Some(bar) = runners.first().map(|(_, record)| goal.score(&record.summary())) else { break };
            runners.retain(|(_, record)| !better(bar, goal.best_score(&record.summary()), SLACK));
            if runners.len() > SMALL_FIELD {
                runners.truncate(runners.len().div_ceil(2).max(SMALL_FIELD));
            }
            if self.over || runners.len() < 2 {
                break;
            }
        }
        Ok(runners)
    }

    /// Everybody in turn, so many times, and nobody drops out.
    ///
    /// # Errors
    /// A point that cannot be measured.
    pub(super) fn laps(&mut self, field: &[Point], laps: usize) -> anyhow::Result<Vec<(Point, Record)>> {
        let mut runners: Vec<(Point, Record)> =
            field.iter().map(|point| (*point, Record::default())).collect();
        for _ in 0..laps {
            self.lap(&mut runners)?;
        }
        Ok(runners)
    }

    /// One slice each; sorts, and takes out who has none because time was up.
    fn lap(&mut self, runners: &mut Vec<(Point, Record)>) -> anyhow::Result<()> {
        for (point, record) in runners.iter_mut() {
            let Some(slice) = self.one(*point)? else { break };
            record.add(&slice);
        }
        runners.retain(|(_, record)| record.slices() > 0);
        let score = |record: &Record| self.goal.score(&record.summary());
        runners.sort_by(|(_, a), (_, b)| score(b).total_cmp(&score(a)));
        Ok(())
    }

    fn one(&mut self, point: Point) -> anyhow::Result<Option<Slice>> {
        if self.over {
            return Ok(None);
        }
        let slice = self.measure.slice(point)?;
        match &slice {
            Some(slice) => self.ledger.entry(point).or_default().add(slice),
            None => self.over = true,
        }
        Ok(slice)
    }
}
