use super::*;
use proptest::prelude::*;

/// Runs what is proposed `runs` times; time of a row in a run of so many rows by `cost`. The sizes that were run.
fn serve(pace: &mut Pace, row_bytes: u64, room: u64, runs: usize, cost: impl Fn(u64) -> f64) -> Vec<u64> {
    serve_by(1, pace, row_bytes, room, runs, cost)
}

/// The same with requests of `each` rows.
fn serve_by(
    each: u64,
    pace: &mut Pace,
    row_bytes: u64,
    room: u64,
    runs: usize,
    cost: impl Fn(u64) -> f64,
) -> Vec<u64> {
    let run = |_| {
        let limit = pace.rows(row_bytes, room);
        let rows = (limit / each * each).max(each);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        pace.learn(row_bytes, limit, rows, Duration::from_secs_f64(cost(rows) * rows as f64));
        rows
    };
    (0..runs).map(run).collect()
}

/// A model that reads its weights once a run: the more rows the better.
fn weights(rows: u64) -> f64 {
    1e-5 + 1e-3 / f64::from(u32::try_from(rows).unwrap())
}

/// A model whose rows leave the cache above 16.
fn caches(rows: u64) -> f64 {
    if rows > 16 { 1.1e-3 } else { weights(rows) / 100.0 + 1e-3 }
}

fn most_frequent(sizes: &[u64]) -> u64 {
    let count = |size: u64| sizes.iter().filter(|other| **other == size).count();
    *sizes.iter().max_by_key(|size| count(**size)).unwrap()
}

#[test]
fn nothing_known_means_all_there_is() {
    assert_eq!(Pace::new().rows(4, 48), 48);
}

#[test]
fn the_size_with_the_fastest_rows_is_found_and_kept() {
    let mut pace = Pace::new();
    let sizes = serve(&mut pace, 256, 64, 640, weights);
    assert_eq!(most_frequent(&sizes[20..]), 64);
    assert!(sizes.iter().filter(|size| **size < 64).count() < 40);
    assert_eq!(sizes.iter().min(), Some(&32), "a size far from the good one was tried");
    // Rows of another size are judged anew; of what is equally fast, 1 to 16, the middle is taken.
    let sizes = serve(&mut pace, 4096, 100, 640, caches);
    assert_eq!(sizes[0], 100);
    assert_eq!(most_frequent(&sizes[60..]), 4);
    assert!(sizes[60..].iter().filter(|size| **size != 4).count() < 40);
}

#[test]
fn requests_of_several_rows_never_leave_it_at_a_size_that_they_cannot_fill() {
    for each in [3, 5, 6, 7, 9, 33] {
        let sizes = serve_by(each, &mut Pace::new(), 256, 30, 640, weights);
        assert_eq!(most_frequent(&sizes[20..]), (30 / each * each).max(each), "requests of {each} rows");
    }
}

#[test]
fn a_machine_that_changes_is_noticed() {
    let mut pace = Pace::new();
    serve(&mut pace, 256, 64, 200, caches);
    let sizes = serve(&mut pace, 256, 64, 6000, weights);
    assert_eq!(most_frequent(&sizes[5000..]), 64);
}

proptest! {
    #[test]
    fn proposals_are_possible(
        runs in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>()), 0..200),
        row_bytes in any::<u64>(),
        room in 1..=u64::MAX,
    ) {
        let mut pace = Pace::new();
        for (bytes, rows, micros) in runs {
            pace.learn(bytes, rows, rows, Duration::from_micros(micros.into()));
            let rows = pace.rows(row_bytes, room);
            prop_assert!((1..=room).contains(&rows));
        }
    }
}
