//! The chart of a search: throughput against p99, every point, the front, and the one that was chosen. SVG by hand.
//!
//! p99 is on a logarithmic axis, because arrangements and loads differ in it by powers of ten.
use super::{
    record::micros,
    report::{Report, front, milliseconds},
    space::Point,
};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 70.0;
/// Ticks of the axis of throughput, about.
const TICKS: f64 = 5.0;

/// From figures to places.
struct Scale {
    /// Decimal logarithms of the bounds of p99, in milliseconds.
    from: f64,
    to: f64,
    /// The highest throughput of the axis, and its step.
    top: f64,
    step: f64,
}

impl Scale {
    fn new(points: &[(Point, f64, f64)], slo_ms: Option<f64>) -> Self {
        let all = points.iter().map(|(_, ms, _)| *ms).chain(slo_ms).filter(|ms| *ms > 0.0);
        let (least, most) = all.fold((f64::INFINITY, 0.0), |(a, b), ms| (f64::min(a, ms), f64::max(b, ms)));
        let (least, most) = if least <= most { (least, most) } else { (1.0, 10.0) };
        // A tenth of a decade of air on both sides, and a third of a decade at least.
        let (from, to) = (least.log10() - 0.1, most.log10() + 0.1);
        let highest = points.iter().map(|(_, _, per_second)| *per_second).fold(1.0, f64::max) * 1.08;
        let step = nice(highest / TICKS);
        Self { from, to: to.max(from + 0.33), top: (highest / step).ceil() * step, step }
    }

    fn x(&self, ms: f64) -> f64 {
        LEFT + (ms.log10() - self.from) / (self.to - self.from) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, per_second: f64) -> f64 {
        HEIGHT - BOTTOM - per_second / self.top * (HEIGHT - TOP - BOTTOM)
    }

    /// 1, 2 and 5 of every decade within.
    fn ticks(&self) -> Vec<f64> {
        #[expect(clippy::cast_possible_truncation, reason = "decades of milliseconds")]
        let decades = (self.from.floor() as i32)..=(self.to.ceil() as i32);
        let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)));
        all.filter(|ms| (self.from..=self.to).contains(&ms.log10())).collect()
    }
}

/// The next of 1, 2, 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.max(1e-9).log10().floor());
    let digit = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= step).unwrap_or(10.0);
    digit * power
}

/// The chart.
pub(super) fn svg(report: &Report) -> String {
    let known =
        |point: &Point| report.summary(*point).filter(|summary| summary.failed == 0 && summary.p99_us > 0.0);
    let points: Vec<(Point, f64, f64)> = report
        .ledger
        .keys()
        .filter_map(|point| known(point).map(|summary| (*point, summary.p99_us / 1000.0, summary.per_second)))
        .collect();
    let slo_ms = report.goal.slo.map(|slo| micros(slo) / 1000.0);
    let scale = Scale::new(&points, slo_ms);
    let mut out = head(report);
    axes(&scale, &mut out);
    for (_, ms, per_second) in &points {
        let (x, y) = (scale.x(*ms), scale.y(*per_second));
        out.push_str(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#9aa5b1\"/>\n"));
    }
    line(report, &points, &scale, &mut out);
    if let Some(ms) = slo_ms {
        let (x, bottom) = (scale.x(ms), HEIGHT - BOTTOM);
        out.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#b45309\" stroke-dasharray=\"6 4\"/>\n"
        ));
        out.push_str(&text(
            x - 6.0,
            TOP + 14.0,
            "end",
            "#b45309",
            &format!("objective {} ms", milliseconds(ms * 1000.0)),
        ));
    }
    let place = |wanted: Point| points.iter().find(|(point, _, _)| *point == wanted);
    if let Some((_, ms, per_second)) = place(report.start) {
        let (x, y) = (scale.x(*ms), scale.y(*per_second));
        out.push_str(&format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"none\" stroke=\"#374151\" stroke-width=\"2\"/>\n",
            x - 5.0,
            y - 5.0
        ));
        out.push_str(&label(x, y + 22.0, "#374151", "as it is"));
    }
    if let Some((point, ms, per_second)) = report.chosen.and_then(place) {
        let (x, y) = (scale.x(*ms), scale.y(*per_second));
        out.push_str(&format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\" fill=\"none\" stroke=\"#b91c1c\" stroke-width=\"3\"/>\n"
        ));
        out.push_str(&label(x, y - 16.0, "#b91c1c", &format!("chosen: {}", point.arrangement)));
    }
    out.push_str("</svg>\n");
    out
}

fn head(report: &Report) -> String {
    let title = format!("{}: throughput against p99", report.model);
    let what = format!(
        "{} points measured in {:.0} s; {}",
        report.ledger.len(),
        report.elapsed.as_secs_f64(),
        report.engine.split(" (").next().unwrap_or_default()
    );
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    out.push_str(&format!(
        "<text x=\"{LEFT}\" y=\"28\" font-size=\"18\" font-weight=\"bold\" fill=\"#111827\">{}</text>\n",
        escaped(&title)
    ));
    out.push_str(&text(LEFT, 48.0, "start", "#4b5563", &what));
    out
}

fn axes(scale: &Scale, out: &mut String) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let rule = |x1: f64, y1: f64, x2: f64, y2: f64, colour: &str| {
        format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>\n")
    };
    for ms in scale.ticks() {
        let x = scale.x(ms);
        out.push_str(&rule(x, TOP, x, bottom, "#e5e7eb"));
        out.push_str(&text(x, bottom + 20.0, "middle", "#374151", &format!("{ms}")));
    }
    let mut per_second = 0.0;
    while per_second <= scale.top * 1.0001 {
        let y = scale.y(per_second);
        out.push_str(&rule(LEFT, y, right, y, "#e5e7eb"));
        out.push_str(&text(LEFT - 8.0, y + 4.0, "end", "#374151", &thousands(per_second)));
        per_second += scale.step;
    }
    out.push_str(&rule(LEFT, bottom, right, bottom, "#374151"));
    out.push_str(&rule(LEFT, TOP, LEFT, bottom, "#374151"));
    let middle = f64::midpoint(LEFT, right);
    out.push_str(&text(
        middle,
        HEIGHT - 22.0,
        "middle",
        "#111827",
        "p99 of a request, in milliseconds (logarithmic)",
    ));
    let y = f64::midpoint(TOP, bottom);
    out.push_str(&format!(
        "<text transform=\"translate(22 {y:.1}) rotate(-90)\" text-anchor=\"middle\" fill=\"#111827\">requests a second</text>\n"
    ));
}

/// The front, as steps: between two points nothing better is known than the one before.
fn line(report: &Report, points: &[(Point, f64, f64)], scale: &Scale, out: &mut String) {
    let mut path = String::new();
    let mut dots = String::new();
    for point in front(&report.ledger) {
        let Some((_, ms, per_second)) = points.iter().find(|(known, _, _)| *known == point) else { continue };
        let (x, y) = (scale.x(*ms), scale.y(*per_second));
        path.push_str(&if path.is_empty() { format!("M{x:.1} {y:.1}") } else { format!("H{x:.1}V{y:.1}") });
        dots.push_str(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"#1d4ed8\"/>\n"));
    }
    out.push_str(&format!(
        "<path d=\"{path}\" fill=\"none\" stroke=\"#1d4ed8\" stroke-width=\"1.5\"/>\n{dots}"
    ));
}

/// A text beside a point, on the side where there is room.
fn label(x: f64, y: f64, colour: &str, what: &str) -> String {
    let anchor = if x > WIDTH / 2.0 { "end" } else { "start" };
    text(x, y.max(TOP - 4.0), anchor, colour, what)
}

fn text(x: f64, y: f64, anchor: &str, colour: &str, what: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{}</text>\n",
        escaped(what)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// 12500 as 12,500.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if number > 0.0 && number < 5.0 { format!("{number}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_of_the_kind_that_people_read() {
        assert_eq!([0.3, 7.0, 1200.0, 90_000.0].map(nice), [0.5, 10.0, 2000.0, 100_000.0]);
        assert_eq!([0.0, 999.0, 12_500.0, 1e6].map(thousands), ["0", "999", "12,500", "1,000,000"]);
    }

    #[test]
    fn every_point_lies_within_the_axes_also_a_single_one() {
        let class = super::super::space::Class::Inline;
        let arrangement = super::super::space::Arrangement { class, batch: 1, delay_us: 0 };
        let point = Point { arrangement, load: 1 };
        for points in [vec![], vec![(point, 0.05, 9e5)], vec![(point, 0.05, 9e5), (point, 900.0, 1.0)]] {
            let scale = Scale::new(&points, Some(10.0));
            for (_, ms, per_second) in &points {
                assert!((LEFT..=WIDTH - RIGHT).contains(&scale.x(*ms)));
                assert!((TOP..=HEIGHT - BOTTOM).contains(&scale.y(*per_second)));
            }
            assert!(!scale.ticks().is_empty());
        }
    }

    #[test]
    fn a_name_cannot_break_the_picture() {
        assert_eq!(escaped("<a & b>"), "&lt;a &amp; b&gt;");
    }
}
