//! Every point of the grid, and how near a search came to the best of them.
//!
//! The best of many noisy figures is better than it is: so the best of the grid and the point that the search chose race
//! again, and only the slices of that race count.
use super::{
    house::House,
    record::{Goal, Summary},
    search::{Ledger, Measure as _, Search},
    space::{Point, Space},
};
use indicatif::ProgressBar;

/// A point that reaches less than this share of the best is not the best: it is measured once, the others twice.
const HOPELESS: f64 = 0.6;
/// Points of the grid that race again, and how often.
const RUNNERS: usize = 6;
const LAPS: usize = 9;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) points: usize,
    pub(super) seconds: f64,
    pub(super) best: Point,
    pub(super) best_summary: Summary,
    pub(super) chosen_summary: Summary,
    /// Score of the chosen point over that of the best; `None` if the best does not do what is wanted.
    pub(super) ratio: Option<f64>,
}

/// Measures the grid.
///
/// # Errors
/// A point that cannot be measured, or an end before the last race.
pub(super) fn measure(
    space: &Space,
    goal: Goal,
    house: &mut House,
    chosen: Point,
    bar: &ProgressBar,
) -> anyhow::Result<Grid> {
    let all = space.all();
    house.start_clock(None, bar.clone());
    house.doing(&format!("every one of {} points", all.len()));
    let mut search = Search { space, goal, measure: house, ledger: Ledger::new(), over: false };
    let first = search.laps(&all, 1)?;
    let bar = first.first().map_or(0.0, |(_, record)| goal.score(&record.summary())) * HOPELESS;
    let hopeful = first.iter().filter(|(_, record)| bar <= 0.0 || goal.score(&record.summary()) >= bar);
    let hopeful: Vec<Point> = hopeful.map(|(point, _)| *point).collect();
    search.laps(&hopeful, 1)?;
    let mut field: Vec<Point> = search.ranked().into_iter().take(RUNNERS).collect();
    if !field.contains(&chosen) {
        field.push(chosen);
    }
    let race = search.laps(&field, LAPS)?;
    anyhow::ensure!(!search.over, "interrupted before the grid was measured");
    let summary =
        |wanted: Point| race.iter().find(|(point, _)| *point == wanted).map(|(_, record)| record.summary());
    let (best, chosen_summary) = (race.first().map(|(point, _)| *point), summary(chosen));
    let (Some(best), Some(chosen_summary)) = (best, chosen_summary) else {
        anyhow::bail!("the grid has no points");
    };
    let best_summary = summary(best).unwrap_or(chosen_summary);
    let (top, mine) = (goal.score(&best_summary), goal.score(&chosen_summary));
    let ratio = Goal::does(top).then(|| (mine / top).max(0.0));
    let seconds = house.elapsed().as_secs_f64();
    Ok(Grid { points: all.len(), seconds, best, best_summary, chosen_summary, ratio })
}
