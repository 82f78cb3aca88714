//! Curves from a run's history: what is drawn of them, smoothed, cut and thinned out. No widget in here.

use std::ops::RangeInclusive;

use egui_plot::PlotPoint;

use crate::app::history::History;
use crate::train::events::{StepMetrics, ValidationMetrics};

/// What a curve is of.
#[derive(Debug, Clone, Copy)]
pub enum Quantity {
    /// One number a step.
    Step(fn(&StepMetrics) -> f64),
    /// One of the model's own losses, by its name.
    Term(&'static str),
    /// One number a validation; `None` where there was nothing to score.
    Validation(fn(&ValidationMetrics) -> Option<f64>),
}

impl Quantity {
    /// Its number of a step; NaN if it has none.
    pub fn of_step(self, metrics: &StepMetrics) -> f64 {
        match self {
            Quantity::Step(of) => of(metrics),
            Quantity::Term(name) => metrics.terms.get(name).map_or(f64::NAN, f64::from),
            Quantity::Validation(_) => f64::NAN,
        }
    }
}

/// What runs along x.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Along {
    /// Optimiser steps.
    #[default]
    Steps,
    /// Seconds of training, without those between a stop and a resume.
    Seconds,
    /// Passes through the data.
    Epochs,
}

/// The points of a curve in the order of x; y is NaN where there is no number. None over epochs of a run of which nobody knows how long they are.
pub fn points(history: &History, quantity: Quantity, along: Along) -> Vec<[f64; 2]> {
    let seconds = (along == Along::Seconds).then(|| seconds(history));
    let per_epoch = match along {
        Along::Epochs => history.steps_per_epoch,
        Along::Steps | Along::Seconds => Some(1.0),
    };
    let Some(unit) = per_epoch else { return Vec::new() };
    match quantity {
        Quantity::Step(_) | Quantity::Term(_) => {
            let x = |i: usize, metrics: &StepMetrics| {
                seconds.as_ref().map_or(f64::from(metrics.step) / unit, |secs| secs[i])
            };
            history.steps.iter().enumerate().map(|(i, metrics)| [x(i, metrics), quantity.of_step(metrics)]).collect()
        }
        Quantity::Validation(of) => {
            let x = |metrics: &ValidationMetrics| match &seconds {
                Some(secs) => {
                    let after = history.steps.partition_point(|step| step.step <= metrics.step);
                    after.checked_sub(1).map_or(0.0, |i| secs[i])
                }
                None => f64::from(metrics.step) / unit,
            };
            history.validations.iter().map(|metrics| [x(metrics), of(metrics).unwrap_or(f64::NAN)]).collect()
        }
    }
}

/// Seconds of training before each reported step: the clock of a resumed run starts anew.
pub fn seconds(history: &History) -> Vec<f64> {
    let (mut before, mut last) = (0.0, 0.0);
    let secs = history.steps.iter().map(|metrics| {
        if metrics.elapsed_secs < last {
            before += last;
        }
        last = metrics.elapsed_secs;
        before + last
    });
    secs.collect()
}

/// Exponential moving average, corrected for its start; `weight` is the part of what was before, from 0 for none. Gaps stay.
pub fn smooth(points: &[[f64; 2]], weight: f64) -> Vec<[f64; 2]> {
    let (mut sum, mut mass) = (0.0, 0.0);
    let smoothed = points.iter().map(|&[x, y]| {
        if !y.is_finite() {
            return [x, y];
        }
        sum = weight * sum + (1.0 - weight) * y;
        mass = weight * mass + (1.0 - weight);
        [x, sum / mass]
    });
    smoothed.collect()
}

/// `log10` of y; gaps where there is none.
pub fn logarithmic(points: &mut [[f64; 2]]) {
    for [_, y] in points {
        *y = if *y > 0.0 { y.log10() } else { f64::NAN };
    }
}

/// The smallest and the largest x and y that are finite; `None` if nothing is.
pub fn extent<'a>(points: impl IntoIterator<Item = &'a [f64; 2]>) -> Option<[RangeInclusive<f64>; 2]> {
    let mut found: Option<[[f64; 2]; 2]> = None;
    for point in points.into_iter().filter(|[x, y]| x.is_finite() && y.is_finite()) {
        let [low, high] = found.get_or_insert([*point; 2]);
        for axis in 0..2 {
            low[axis] = low[axis].min(point[axis]);
            high[axis] = high[axis].max(point[axis]);
        }
    }
    found.map(|[low, high]| [low[0]..=high[0], low[1]..=high[1]])
}

/// The part of sorted `points` within `range`, with one more on either side, so that lines reach the edge.
pub fn within<'a>(points: &'a [[f64; 2]], range: &RangeInclusive<f64>) -> &'a [[f64; 2]] {
    let first = points.partition_point(|[x, _]| x < range.start()).saturating_sub(1);
    let end = (points.partition_point(|[x, _]| x <= range.end()) + 1).min(points.len());
    &points[first.min(end)..end]
}

/// Unbroken pieces of a curve with at most four points in each of `columns` columns: where the curve enters it, its lowest,
/// its highest, and where it leaves it. Nothing that would be seen is lost.
pub fn thin(points: &[[f64; 2]], range: &RangeInclusive<f64>, columns: usize) -> Vec<Vec<PlotPoint>> {
    let width = (range.end() - range.start()) / columns.max(1) as f64;
    let column = |x: f64| if width > 0.0 { ((x - range.start()) / width).floor() } else { 0.0 };
    let mut pieces = Vec::new();
    for piece in points.split(|[x, y]| !x.is_finite() || !y.is_finite()).filter(|piece| !piece.is_empty()) {
        let mut kept: Vec<PlotPoint> = Vec::new();
        for bin in piece.chunk_by(|a, b| column(a[0]) == column(b[0])) {
            let by_y = |i: &usize, j: &usize| bin[*i][1].total_cmp(&bin[*j][1]);
            let extreme = |least: bool| {
                if least { (0..bin.len()).min_by(by_y) } else { (0..bin.len()).max_by(by_y) }
            };
            let mut chosen = [Some(0), extreme(true), extreme(false), Some(bin.len() - 1)];
            chosen.sort_unstable();
            let mut last = None;
            for i in chosen.into_iter().flatten().filter(|i| last.replace(*i) != Some(*i)) {
                kept.push(PlotPoint::new(bin[i][0], bin[i][1]));
            }
        }
        pieces.push(kept);
    }
    pieces
}

/// The number of the entry of sorted `xs` that is nearest to `x`.
pub fn nearest(len: usize, x_of: impl Fn(usize) -> f64, x: f64) -> Option<usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = (low + high) / 2;
        if x_of(middle) < x { low = middle + 1 } else { high = middle }
    }
    let candidates = [low.checked_sub(1), (low < len).then_some(low)];
    candidates.into_iter().flatten().min_by(|&a, &b| (x_of(a) - x).abs().total_cmp(&(x_of(b) - x).abs()))
}

/// Steps at which something was not finite, or that were skipped since the report before.
pub fn faults(history: &History) -> Vec<usize> {
    let mut skipped = 0;
    let faulty = |(i, metrics): (usize, &StepMetrics)| {
        let more = metrics.skipped > skipped;
        skipped = metrics.skipped;
        (more || !metrics.loss.is_finite()).then_some(i)
    };
    history.steps.iter().enumerate().filter_map(faulty).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::history::tests::{step, validation};

    const LOSS: Quantity = Quantity::Step(|metrics| metrics.loss as f64);

    fn noise(count: usize) -> Vec<[f64; 2]> {
        let mut seed = 1u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(seed >> 8) / f64::from(1 << 24)
        };
        (0..count).map(|i| [i as f64, random()]).collect()
    }

    #[test]
    fn thinning_keeps_what_is_seen() {
        let mut points = noise(100_000);
        points[31_234][1] = 7.0;
        points[77_777][1] = -3.0;
        let range = 0.0..=99_999.0;
        let pieces = thin(&points, &range, 800);
        assert_eq!(pieces.len(), 1);
        let kept = &pieces[0];
        assert!(kept.len() <= 4 * 801, "{} points are left", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0].x < pair[1].x), "x goes up");
        assert_eq!((kept[0].x, kept[kept.len() - 1].x), (0.0, 99_999.0));
        // Every column still reaches from its lowest to its highest point.
        let width = 99_999.0 / 800.0;
        for column in [0, 249, 250, 622, 799] {
            let inside = |x: f64| (x / width).floor() as usize == column;
            let all = extent(points.iter().filter(|[x, _]| inside(*x))).unwrap();
            let left: Vec<[f64; 2]> = kept.iter().filter(|point| inside(point.x)).map(|p| [p.x, p.y]).collect();
            assert_eq!(extent(&left).unwrap(), all);
        }
        assert!(kept.iter().any(|point| point.y == 7.0) && kept.iter().any(|point| point.y == -3.0));
    }

    #[test]
    fn a_short_curve_is_left_as_it_is() {
        let points = noise(50);
        let kept: Vec<[f64; 2]> = thin(&points, &(0.0..=49.0), 800).concat().iter().map(|p| [p.x, p.y]).collect();
        assert_eq!(kept, points);
        assert!(thin(&[], &(0.0..=1.0), 10).is_empty());
        assert_eq!(thin(&[[3.0, 1.0]], &(3.0..=3.0), 10).concat().len(), 1);
    }

    #[test]
    fn what_is_not_finite_breaks_the_line() {
        let points = [[0.0, 1.0], [1.0, f64::NAN], [2.0, 2.0], [3.0, f64::INFINITY], [4.0, 3.0], [5.0, 4.0]];
        let pieces = thin(&points, &(0.0..=5.0), 100);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
        assert_eq!(extent(&points).unwrap(), [0.0..=5.0, 1.0..=4.0]);
        assert!(extent(&points[1..2]).is_none());
        let mut logs = [[0.0, 100.0], [1.0, 0.0], [2.0, -1.0]];
        logarithmic(&mut logs);
        assert_eq!(logs[0][1], 2.0);
        assert!(logs[1][1].is_nan() && logs[2][1].is_nan());
    }

    #[test]
    fn smoothing_starts_unbiased_and_passes_over_gaps() {
        let constant: Vec<[f64; 2]> = (0..10).map(|i| [f64::from(i), 5.0]).collect();
        assert!(smooth(&constant, 0.9).iter().all(|[_, y]| (y - 5.0).abs() < 1e-12));
        let points = [[0.0, 1.0], [1.0, f64::NAN], [2.0, 3.0]];
        assert_eq!(smooth(&points, 0.0)[2], [2.0, 3.0]);
        let half = smooth(&points, 0.5);
        assert!(half[1][1].is_nan());
        // (0.25 * 1 + 0.5 * 3) / 0.75
        assert!((half[2][1] - 7.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_range_keeps_its_neighbours() {
        let points = noise(10);
        assert_eq!(within(&points, &(3.5..=5.5)), &points[3..7]);
        assert_eq!(within(&points, &(-5.0..=50.0)), &points[..]);
        assert_eq!(within(&points, &(20.0..=30.0)), &points[9..]);
        assert!(within(&[], &(0.0..=1.0)).is_empty());
    }

    #[test]
    fn the_nearest_step_is_found() {
        let xs = [0.0, 10.0, 20.0];
        let at = |x| nearest(xs.len(), |i| xs[i], x);
        assert_eq!([at(-3.0), at(4.0), at(6.0), at(14.9), at(99.0)], [Some(0), Some(0), Some(1), Some(1), Some(2)]);
        assert_eq!(nearest(0, |_| 0.0, 1.0), None);
    }

    #[test]
    fn time_goes_on_over_a_resume() {
        let mut history = History::default();
        for metrics in [step(10, 5.0, 1.0), step(20, 9.0, 1.0), step(30, 2.0, 1.0), step(40, 4.0, 1.0)] {
            history.step(metrics);
        }
        history.validation(validation(20, 0.5));
        assert_eq!(seconds(&history), [5.0, 9.0, 11.0, 13.0]);
        let miou = Quantity::Validation(|metrics| metrics.evaluation.total.miou);
        assert_eq!(points(&history, miou, Along::Seconds), [[9.0, 0.5]]);
        assert_eq!(points(&history, LOSS, Along::Steps)[3], [40.0, 2.0]);
    }

    #[test]
    fn skipped_steps_are_found() {
        let mut history = History::default();
        for (at, skipped, loss) in [(1, 0, 1.0), (2, 1, 1.0), (3, 1, 1.0), (4, 1, f32::NAN), (5, 3, 1.0)] {
            history.step(StepMetrics { skipped, loss, ..step(at, f64::from(at), 1.0) });
        }
        assert_eq!(faults(&history), [1, 3, 4]);
    }
}
