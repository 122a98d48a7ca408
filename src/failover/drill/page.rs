//! The report as one HTML page, which needs nothing but itself.

use super::{
    checker::Breach,
    history::MarkKind,
    measures::{Availability, Chart, Percentiles},
    report::{Report, Round, Summary, seconds},
};
use serde::Serialize;
use std::fmt::Write as _;

const PAGE: &str = include_str!("page.html");

/// The chart's size, and the room around its plot, in SVG units.
const WIDTH: u32 = 960;
const HEIGHT: u32 = 260;
const LEFT: u32 = 48;
const RIGHT: u32 = 12;
const TOP: u32 = 26;
const BOTTOM: u32 = 30;
/// Between two marks' numbers that are not written over each other.
const MARK_GAP: f64 = 16.0;

/// The chart, measured out.
#[derive(Debug, Serialize)]
struct Figure {
    width: u32,
    height: u32,
    left: u32,
    right: u32,
    top: u32,
    bottom: u32,
    reads: String,
    writes: String,
    errors: String,
    rows: Vec<Tick>,
    columns: Vec<Tick>,
    marks: Vec<Place>,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: String,
    says: String,
}

/// A mark of the timeline, numbered as in the table beneath.
#[derive(Debug, Serialize)]
struct Place {
    number: usize,
    x: String,
    label_x: String,
    kind: MarkKind,
    at: String,
    says: String,
}

/// What the template is given.
#[derive(Serialize)]
struct View<'a> {
    report: &'a Report,
    summary: Summary,
    durability: &'static str,
    breaches: [&'static str; 9],
    rounds: Vec<RoundView<'a>>,
}

#[derive(Serialize)]
struct RoundView<'a> {
    round: &'a Round,
    clean: bool,
    word: &'static str,
    /// In the order of the view's `breaches`.
    counts: [usize; 9],
    regions: Vec<RegionView<'a>>,
    violations: Vec<ViolationView<'a>>,
    figure: Figure,
    bars: Vec<Bar>,
}

#[derive(Serialize)]
struct RegionView<'a> {
    name: &'a str,
    reads: Option<&'a Availability>,
    writes: Option<&'a Availability>,
    time: Option<&'a Percentiles>,
}

#[derive(Serialize)]
struct ViolationView<'a> {
    at: String,
    word: &'static str,
    says: &'a str,
}

/// One stretch of the chart, for whoever cannot see it.
#[derive(Serialize)]
struct Bar {
    at: String,
    reads: u32,
    writes: u32,
    errors: u32,
}

/// # Errors
/// When the template is broken, which its test would have found.
pub fn render(report: &Report) -> Result<String, minijinja::Error> {
    let mut environment = minijinja::Environment::new();
    environment.add_filter("seconds", |ms: Option<u64>| seconds(ms));
    environment.add_template("page.html", PAGE)?;
    let view = View {
        report,
        summary: report.summary(),
        durability: report.durability.word(),
        breaches: Breach::ALL.map(Breach::word),
        rounds: report.rounds.iter().map(round).collect(),
    };
    environment.get_template("page.html")?.render(minijinja::value::Serde(&view))
}

fn round(round: &Round) -> RoundView<'_> {
    let (measures, verdict) = (&round.measures, &round.verdict);
    let regions = measures.reads.iter().map(|(region, reads)| RegionView {
        name: region.as_str(),
        reads: Some(reads),
        writes: measures.writes.get(region),
        time: measures.write_time.get(region),
    });
    let violations = verdict.violations.iter().map(|one| ViolationView {
        at: seconds(Some(one.at_us / 1_000)),
        word: one.breach.word(),
        says: &one.says,
    });
    RoundView {
        round,
        clean: round.passed(),
        word: round.word(),
        counts: Breach::ALL.map(|breach| verdict.count(breach)),
        regions: regions.collect(),
        violations: violations.collect(),
        figure: figure(round),
        bars: bars(&measures.chart),
    }
}

fn bars(chart: &Chart) -> Vec<Bar> {
    let columns = chart.reads.iter().zip(&chart.writes).zip(&chart.errors);
    let starts_ms = (0..).map(|number: u64| number * chart.bucket_ms);
    let bar = |(((reads, writes), errors), at_ms): (((&u32, &u32), &u32), u64)| Bar {
        at: seconds(Some(at_ms)),
        reads: *reads,
        writes: *writes,
        errors: *errors,
    };
    columns.zip(starts_ms).map(bar).collect()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a drill are far below 2^52")]
fn figure(round: &Round) -> Figure {
    let chart = &round.measures.chart;
    let scale = Scale::of(chart);
    let mut label_x = f64::MIN;
    let place = |(index, mark): (usize, &super::history::Mark)| {
        let x = scale.x(mark.at_us as f64 / 1_000.0);
        label_x = x.max(label_x + MARK_GAP);
        Place {
            number: index + 1,
            x: format!("{x:.1}"),
            label_x: format!("{label_x:.1}"),
            kind: mark.kind,
            at: seconds(Some(mark.at_us / 1_000)),
            says: mark.says.clone(),
        }
    };
    Figure {
        width: WIDTH,
        height: HEIGHT,
        left: LEFT,
        right: WIDTH - RIGHT,
        top: TOP,
        bottom: HEIGHT - BOTTOM,
        reads: scale.line(&chart.reads),
        writes: scale.line(&chart.writes),
        errors: scale.area(&chart.errors),
        rows: scale.rows(),
        columns: scale.columns(),
        marks: round.measures.timeline.iter().enumerate().map(place).collect(),
    }
}

struct Scale {
    bucket_ms: f64,
    length_ms: f64,
    /// Requests a second at the upper edge.
    most: f64,
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a drill are far below 2^52")]
impl Scale {
    fn of(chart: &Chart) -> Self {
        let bucket_ms = chart.bucket_ms.max(1) as f64;
        let all = chart.reads.iter().chain(&chart.writes).chain(&chart.errors);
        let most = f64::from(all.copied().max().unwrap_or(0)) * 1_000.0 / bucket_ms;
        let length_ms = bucket_ms * chart.reads.len().max(1) as f64;
        Self { bucket_ms, length_ms, most: round_up(most) }
    }

    fn x(&self, ms: f64) -> f64 {
        let width = f64::from(WIDTH - LEFT - RIGHT);
        f64::from(LEFT) + width * (ms / self.length_ms).clamp(0.0, 1.0)
    }

    fn y(&self, per_second: f64) -> f64 {
        let height = f64::from(HEIGHT - TOP - BOTTOM);
        f64::from(HEIGHT - BOTTOM) - height * (per_second / self.most).clamp(0.0, 1.0)
    }

    /// Steps, each as wide as its stretch of time: what was counted, not drawn between.
    fn line(&self, counts: &[u32]) -> String {
        let mut path = String::new();
        for (number, count) in counts.iter().enumerate() {
            let y = self.y(f64::from(*count) * 1_000.0 / self.bucket_ms);
            let from = self.x(number as f64 * self.bucket_ms);
            let to = self.x((number + 1) as f64 * self.bucket_ms);
            let verb = if number == 0 { 'M' } else { 'L' };
            // Writing to a string does not fail.
            let _ = write!(path, "{verb}{from:.1} {y:.1}H{to:.1}");
        }
        path
    }

    fn area(&self, counts: &[u32]) -> String {
        if counts.iter().all(|count| *count == 0) {
            return String::new();
        }
        let (floor, left) = (self.y(0.0), self.x(0.0));
        format!("{}V{floor:.1}H{left:.1}Z", self.line(counts))
    }

    fn rows(&self) -> Vec<Tick> {
        let row = |part: u32| {
            let value = self.most * f64::from(part) / 4.0;
            Tick { at: format!("{:.1}", self.y(value)), says: format!("{value:.0}") }
        };
        (0..=4).map(row).collect()
    }

    fn columns(&self) -> Vec<Tick> {
        let seconds = self.length_ms / 1_000.0;
        let step = round_up(seconds / 10.0).max(1.0);
        let column =
            |at: f64| Tick { at: format!("{:.1}", self.x(at * 1_000.0)), says: format!("{at:.0}") };
        std::iter::successors(Some(0.0), |at| Some(at + step))
            .take_while(|at| *at <= seconds)
            .map(column)
            .collect()
    }
}

/// To 1, 2, 4 or 8 times a power of ten, so that its quarters read well.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests;
