//! One chart: lines of all runs that are compared, what the pointer is at, and the part along x that is in view.

use std::ops::RangeInclusive;

use eframe::egui::{self, Align, Align2, Color32, Id, PopupAnchor, RichText, Sense, Ui, Vec2b};
use egui_plot::{
    AxisHints, GridInput, GridMark, Line, LineStyle, MarkerShape, Plot, PlotBounds, PlotPoint, PlotPoints, PlotUi,
    Points, Span, Text, VLine,
};

use super::super::common::axis;
use super::series::{self, Along, Quantity};
use super::{Curve, Memory, Unit, fitting, zoomed_at};
use crate::app::history::History;
use crate::app::layout::Pane;
use crate::app::style;

/// Of the run's lines, points.
pub const WIDTH: f32 = 1.8;
/// Of other runs'.
pub const OVERLAY_WIDTH: f32 = 1.2;
/// Of other runs' dashes, the first one's first.
const DASHES: [f32; 3] = [7.0, 4.0, 2.0];
/// Of the numbers along y.
const AXIS_WIDTH: f32 = 46.0;
/// Marks along x and y are at least so far apart, points.
const MARK_DISTANCES: [f32; 2] = [90.0, 36.0];
/// What was smoothed shows through.
const RAW_ALPHA: f32 = 0.28;
/// A shorter drag is a click.
const LEAST_DRAG: f32 = 4.0;

/// The run and those behind it.
type Runs<'a> = [&'a History];

/// A run's folder, how many steps and validations it has, and the last of each.
type RunKey = (std::path::PathBuf, [usize; 2], [u32; 2]);

/// What lines are made from; as long as it stays the same, so do they.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    runs: Vec<RunKey>,
    /// Names.
    curves: Vec<&'static str>,
    smoothing: f64,
    logarithmic: bool,
    along: Along,
    range: RangeInclusive<f64>,
    columns: usize,
}

/// A line, ready to be drawn.
#[derive(Debug)]
struct Stroke {
    curve: usize,
    run: usize,
    raw: bool,
    points: Vec<PlotPoint>,
}

/// The lines of a chart, kept from frame to frame.
#[derive(Debug)]
pub struct Drawn {
    key: Key,
    strokes: Vec<Stroke>,
    /// Lowest and highest of what is in view.
    y: RangeInclusive<f64>,
}

/// From the first to the last point of any run.
pub fn full_range(runs: &Runs<'_>, curves: &[Curve], along: Along) -> RangeInclusive<f64> {
    let mut last: f64 = 0.0;
    for history in runs {
        let x = |metrics: Option<u32>| metrics.map_or(0.0, f64::from);
        let steps = match curves[0].quantity {
            Quantity::Step(_) | Quantity::Term(_) => x(history.steps.last().map(|metrics| metrics.step)),
            Quantity::Validation(_) => x(history.validations.last().map(|metrics| metrics.step)),
        };
        last = last.max(match along {
            Along::Seconds => series::seconds(history).last().copied().unwrap_or(0.0),
            Along::Steps => steps,
            Along::Epochs => history.steps_per_epoch.map_or(0.0, |per_epoch| steps / per_epoch),
        });
    }
    0.0..=if last > 0.0 { last } else { 1.0 }
}

impl Drawn {
    fn new(key: Key, runs: &Runs<'_>, curves: &[Curve]) -> Drawn {
        let mut strokes = Vec::new();
        let mut lowest_highest: Option<RangeInclusive<f64>> = None;
        for (run, history) in runs.iter().enumerate() {
            for (i, curve) in curves.iter().enumerate() {
                let mut all = series::points(history, curve.quantity, key.along);
                let smoothed = key.smoothing > 0.0 && !curve.exact;
                let mut smooth = if smoothed { series::smooth(&all, key.smoothing) } else { Vec::new() };
                if key.logarithmic {
                    series::logarithmic(&mut all);
                    series::logarithmic(&mut smooth);
                }
                for (points, raw) in [(&all, smoothed), (&smooth, false)] {
                    // Other runs' raw lines would only be in the way.
                    if raw && run > 0 {
                        continue;
                    }
                    let visible = series::within(points, &key.range);
                    if let Some([_, y]) = series::extent(visible) {
                        let before = lowest_highest.unwrap_or_else(|| y.clone());
                        lowest_highest = Some(before.start().min(*y.start())..=before.end().max(*y.end()));
                    }
                    let pieces = series::thin(visible, &key.range, key.columns);
                    strokes.extend(pieces.into_iter().map(|points| Stroke { curve: i, run, raw, points }));
                }
            }
        }
        strokes.sort_by_key(|stroke| (!stroke.raw, std::cmp::Reverse(stroke.run)));
        Drawn { key, strokes, y: padded(lowest_highest.unwrap_or(0.0..=1.0)) }
    }

    /// How many points it has.
    #[cfg(test)]
    pub fn points(&self) -> usize {
        self.strokes.iter().map(|stroke| stroke.points.len()).sum()
    }
}

/// A little more on either side, and something even for a constant.
fn padded(y: RangeInclusive<f64>) -> RangeInclusive<f64> {
    let (low, high) = y.into_inner();
    let room = if high > low { (high - low) * 0.07 } else { (high.abs() * 0.1).max(1e-6) };
    low - room..=high + room
}

/// Draws the chart.
pub fn ui(ui: &mut Ui, runs: &Runs<'_>, memory: &mut Memory, pane: Pane, curves: &[Curve], full: &RangeInclusive<f64>) {
    let range = memory.range.clone().and_then(|range| fitting(range, full)).unwrap_or_else(|| full.clone());
    let identity = |history: &History| {
        let last = [history.steps.last().map(|m| m.step), history.validations.last().map(|m| m.step)];
        let counts = [history.steps.len(), history.validations.len()];
        (history.folder.clone(), counts, last.map(Option::unwrap_or_default))
    };
    let key = Key {
        runs: runs.iter().map(|history| identity(history)).collect(),
        curves: curves.iter().map(|curve| curve.name).collect(),
        smoothing: memory.smoothing,
        logarithmic: memory.logarithmic,
        along: memory.along,
        range: range.clone(),
        columns: ui.available_width().max(1.0) as usize,
    };
    let drawn = match memory.drawn.remove(&pane) {
        Some(drawn) if drawn.key == key => drawn,
        _ => Drawn::new(key, runs, curves),
    };
    let room = (range.end() - range.start()) * 0.01;
    let bounds =
        PlotBounds::from_min_max([range.start() - room, *drawn.y.start()], [range.end() + room, *drawn.y.end()]);
    let most = [ui.available_width() / MARK_DISTANCES[0], ui.available_height() / MARK_DISTANCES[1]];
    let unit = curves.first().map_or(Unit::Plain, |curve| curve.unit);
    let (logarithmic, along) = (memory.logarithmic, memory.along);
    let colors = style::colors(ui.visuals());
    let palette = style::curves(ui.visuals());
    let text = ui.visuals().text_color();
    let plot = Plot::new(pane.title())
        .sense(Sense::CLICK | Sense::DRAG)
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .allow_axis_zoom_drag(false)
        .allow_double_click_reset(false)
        .show_crosshair(false)
        .show_x(false)
        .show_y(false)
        .auto_bounds(Vec2b::FALSE)
        .grid_color(colors.line)
        .grid_fade(0.0)
        .custom_x_axes(vec![axis(AxisHints::new_x(), ui).formatter(move |mark, _| written(along, mark.value))])
        .custom_y_axes(vec![
            axis(AxisHints::new_y(), ui)
                .min_thickness(AXIS_WIDTH)
                .formatter(move |mark, range| tick(unit, logarithmic, mark, range)),
        ])
        .x_grid_spacer(move |input| marks(input, most[0], |least| step_along(along, least)))
        .y_grid_spacer(
            move |input| if logarithmic { decades(input, most[1]) } else { marks(input, most[1], round_step) },
        );
    let selecting = memory.selecting;
    let pointed = std::cell::Cell::new(None);
    let response = plot.show(ui, |plot_ui| {
        plot_ui.set_plot_bounds(bounds);
        for stroke in &drawn.strokes {
            let color = palette[curves[stroke.curve].color];
            draw(plot_ui, stroke, color, curves[stroke.curve].quantity);
        }
        if let Some(history) = runs.first() {
            mark_best(plot_ui, history, curves, along, logarithmic, [palette[0], text]);
            mark_faults(plot_ui, history, curves, along, *drawn.y.start(), colors.error);
        }
        let pointer = plot_ui.pointer_coordinate().filter(|_| plot_ui.response().contains_pointer());
        if let (Some(from), Some(to)) = (selecting, plot_ui.pointer_coordinate()) {
            let ends = from.min(to.x)..=from.max(to.x);
            plot_ui.span(Span::new("selection", ends).fill(colors.accent.gamma_multiply(0.2)).border_width(0.0));
        } else if let Some(x) = pointer.and_then(|pointer| snap(runs, curves, along, pointer.x)) {
            plot_ui
                .vline(VLine::new("pointer", x).color(colors.quiet.gamma_multiply(0.6)).width(1.0).allow_hover(false));
        }
        pointed.set(pointer);
    });
    let name = format!("Chart: {}", pane.title());
    response.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &name));
    obey(ui, &response.response, &response.transform, memory, &range, full);
    if let (Some(pointer), None) = (pointed.get(), memory.selecting) {
        read_out(ui, &response.response, runs, curves, along, pointer.x);
    }
    memory.drawn.insert(pane, drawn);
}

fn draw<'a>(plot_ui: &mut PlotUi<'a>, stroke: &'a Stroke, color: Color32, quantity: Quantity) {
    let other = stroke.run > 0;
    let color = if stroke.raw { color.gamma_multiply(RAW_ALPHA) } else { color };
    let alone = stroke.points.len() == 1;
    if alone || matches!(quantity, Quantity::Validation(_)) && !other {
        let radius = if alone { 2.0 } else { 2.5 };
        let points = PlotPoints::Borrowed(&stroke.points);
        plot_ui.points(Points::new("", points).color(color).radius(radius).allow_hover(false));
    }
    let line = Line::new("", PlotPoints::Borrowed(&stroke.points)).color(color).allow_hover(false);
    let line = if other {
        line.width(OVERLAY_WIDTH).style(LineStyle::Dashed { length: dash(stroke.run) })
    } else {
        line.width(if stroke.raw { 1.0 } else { WIDTH })
    };
    plot_ui.line(line);
}

/// Of the dashes of run `run` behind the first.
pub fn dash(run: usize) -> f32 {
    DASHES[run.saturating_sub(1) % DASHES.len()]
}

/// A diamond at the best validation.
fn mark_best(
    plot_ui: &mut PlotUi<'_>,
    history: &History,
    curves: &[Curve],
    along: Along,
    logarithmic: bool,
    [color, text]: [Color32; 2],
) {
    let Some(curve) = curves.first().filter(|curve| curve.name == super::SCORES[0].name) else { return };
    let Some((step, miou)) = history.best() else { return };
    let points = series::points(history, curve.quantity, along);
    let place = history.validations.iter().position(|metrics| metrics.step == step);
    let Some(&[x, _]) = place.and_then(|place| points.get(place)) else { return };
    let y = if logarithmic { miou.log10() } else { miou };
    if !y.is_finite() {
        return;
    }
    let diamond = Points::new("best", vec![[x, y]]).shape(MarkerShape::Diamond).radius(6.0).color(color);
    plot_ui.points(diamond.allow_hover(false));
    // On the side where there is room, and clear of the curve: below it, as the IoU is above.
    let bounds = plot_ui.plot_bounds();
    let across = if x > bounds.center().x { Align::Max } else { Align::Min };
    let (up, away) = if y > bounds.min()[1] + 0.3 * bounds.height() { (Align::Min, -7.0) } else { (Align::Max, 7.0) };
    let at = PlotPoint::new(x, y + away * plot_ui.transform().dvalue_dpos()[1].abs());
    let label = RichText::new(format!("best {}", crate::figures::percent(Some(miou)))).small().strong();
    plot_ui.text(Text::new("best", at, label).anchor(Align2([across, up])).color(text).allow_hover(false));
}

/// Crosses at the bottom where steps were skipped or nothing finite came.
fn mark_faults(
    plot_ui: &mut PlotUi<'_>,
    history: &History,
    curves: &[Curve],
    along: Along,
    bottom: f64,
    color: Color32,
) {
    let Some(curve) = curves.first().filter(|curve| !curve.exact) else { return };
    let faults = series::faults(history);
    if faults.is_empty() {
        return;
    }
    let points = series::points(history, curve.quantity, along);
    let bounds = plot_ui.plot_bounds();
    let y = bottom + 0.04 * bounds.height();
    let crosses: Vec<[f64; 2]> = faults.into_iter().filter_map(|i| Some([points.get(i)?[0], y])).collect();
    let crosses = Points::new("faults", crosses).shape(MarkerShape::Cross).radius(4.0).color(color);
    plot_ui.points(crosses.allow_hover(false));
}

/// Selecting a part with the pointer, all of it with a double click, zooming with the wheel and the command key.
fn obey(
    ui: &Ui,
    response: &egui::Response,
    transform: &egui_plot::PlotTransform,
    memory: &mut Memory,
    range: &RangeInclusive<f64>,
    full: &RangeInclusive<f64>,
) {
    let x_of = |at: egui::Pos2| transform.value_from_position(at).x.clamp(*full.start(), *full.end());
    if response.double_clicked() {
        memory.range = None;
    }
    if response.drag_started() {
        memory.selecting = ui.input(|input| input.pointer.press_origin()).map(x_of);
    }
    if response.drag_stopped()
        && let (Some(from), Some(at)) = (memory.selecting.take(), response.interact_pointer_pos())
        && (at.x - transform.position_from_point_x(from)).abs() >= LEAST_DRAG
    {
        let to = x_of(at);
        memory.range = fitting(from.min(to)..=from.max(to), full);
    }
    let zoom = f64::from(ui.input(|input| input.zoom_delta()));
    if let Some(at) = response.hover_pos().filter(|_| zoom != 1.0) {
        let part = (x_of(at) - range.start()) / (range.end() - range.start());
        memory.range = zoomed_at(range, full, 1.0 / zoom, part.clamp(0.0, 1.0));
    }
}

/// The place of the report nearest to `x` in the run, with its x.
fn nearest(history: &History, quantity: Quantity, along: Along, x: f64) -> Option<(usize, f64)> {
    let points = series::points(history, quantity, along);
    series::nearest(points.len(), |i| points[i][0], x).map(|i| (i, points[i][0]))
}

/// The x of the report nearest to the pointer, of the run or else of the other one.
fn snap(runs: &Runs<'_>, curves: &[Curve], along: Along, x: f64) -> Option<f64> {
    let quantity = curves.first()?.quantity;
    runs.iter().find_map(|history| nearest(history, quantity, along, x)).map(|(_, x)| x)
}

/// All curves' numbers at the pointer.
fn read_out(ui: &Ui, response: &egui::Response, runs: &Runs<'_>, curves: &[Curve], along: Along, x: f64) {
    let Some(quantity) = curves.first().map(|curve| curve.quantity) else { return };
    let found: Vec<(&History, usize)> =
        runs.iter().filter_map(|history| Some((*history, nearest(history, quantity, along, x)?.0))).collect();
    if found.is_empty() {
        return;
    }
    let palette = style::curves(ui.visuals());
    let colors = style::colors(ui.visuals());
    let id: Id = response.id.with("read-out");
    let tip = egui::Tooltip::always_open(ui.ctx().clone(), response.layer_id, id, PopupAnchor::Pointer);
    tip.gap(14.0).show(|ui| {
        egui::Grid::new("read-out").spacing([12.0, 2.0]).show(ui, |ui| {
            ui.label("");
            for (history, i) in &found {
                let step = match quantity {
                    Quantity::Step(_) | Quantity::Term(_) => history.steps[*i].step,
                    Quantity::Validation(_) => history.validations[*i].step,
                };
                ui.label(
                    RichText::new(format!("step {}", crate::figures::thousands(step.into())))
                        .small()
                        .color(colors.quiet),
                );
            }
            ui.end_row();
            for curve in curves {
                ui.label(RichText::new(curve.name).color(palette[curve.color]));
                for (history, i) in &found {
                    let value = match curve.quantity {
                        Quantity::Step(_) | Quantity::Term(_) => curve.quantity.of_step(&history.steps[*i]),
                        Quantity::Validation(of) => of(&history.validations[*i]).unwrap_or(f64::NAN),
                    };
                    ui.label(RichText::new(format!("{:>9}", curve.unit.write(value))).monospace());
                }
                ui.end_row();
            }
            if found.len() > 1 {
                ui.label("");
                for (history, _) in &found {
                    ui.label(RichText::new(&history.name).small().color(colors.quiet));
                }
                ui.end_row();
            }
            if let (Quantity::Step(_) | Quantity::Term(_), [(history, i), ..]) = (quantity, found.as_slice())
                && history.steps[*i].skipped > 0
            {
                ui.label(RichText::new("Skipped").color(colors.error));
                ui.label(RichText::new(format!("{:>9}", history.steps[*i].skipped)).monospace());
                ui.end_row();
            }
        });
    });
}

/// A number along x.
fn written(along: Along, x: f64) -> String {
    match along {
        _ if x < 0.0 => String::new(),
        Along::Seconds => crate::figures::duration(x),
        Along::Epochs => short(x),
        Along::Steps if x.fract() != 0.0 => String::new(),
        Along::Steps => crate::figures::thousands(x as u64),
    }
}

/// A number along y.
fn tick(unit: Unit, logarithmic: bool, mark: GridMark, range: &RangeInclusive<f64>) -> String {
    let value = if logarithmic { 10f64.powf(mark.value) } else { mark.value };
    let fine = !logarithmic && range.end() - range.start() < 0.05;
    match unit {
        Unit::Percent if fine => format!("{:.1} %", value * 100.0),
        Unit::Percent => format!("{:.0} %", value * 100.0),
        Unit::PerSecond => format!("{}/s", short(value)),
        Unit::Plain => short(value),
    }
}

/// As few digits as tell one mark from the next.
fn short(value: f64) -> String {
    let size = value.abs();
    if size < 1e-9 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.0e}")
    } else {
        // Without the noise of binary fractions.
        let digits = (3 - size.log10().floor() as i32).max(0) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

/// At most `most` even marks, at multiples of the step that `round` makes of the least possible one.
fn marks(input: GridInput, most: f32, round: impl Fn(f64) -> f64) -> Vec<GridMark> {
    let (low, high) = input.bounds;
    let step = round((high - low) / f64::from(most.max(1.0)));
    let first = (low / step).ceil();
    let count = ((high / step).floor() - first).clamp(-1.0, 1000.0) as i32;
    (0..=count).map(|i| GridMark { value: (first + f64::from(i)) * step, step_size: step }).collect()
}

/// The next of 1, 2, 5, 10, 20...
fn round_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0].map(|n| n * decade).into_iter().find(|step| *step >= least * 0.999).unwrap_or(10.0 * decade)
}

/// The next round number of steps, or of seconds, minutes or hours.
fn step_along(along: Along, least: f64) -> f64 {
    const SECONDS: [f64; 13] = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0];
    match along {
        Along::Steps => round_step(least).max(1.0),
        Along::Epochs => round_step(least),
        Along::Seconds => {
            let round = SECONDS.into_iter().find(|step| *step >= least);
            round.unwrap_or_else(|| 3600.0 * round_step(least / 3600.0))
        }
    }
}

/// Marks of a logarithmic axis: 1, 2 and 5 in each decade, or only the decades where there is no room for more.
fn decades(input: GridInput, most: f32) -> Vec<GridMark> {
    let (low, high) = input.bounds;
    let room = f64::from(most.max(1.0)) / (high - low).max(1e-9);
    let within: &[f64] = if room >= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let every = (1.0 / room).ceil().max(1.0) as usize;
    let decades = (low.floor() as i32..=high.ceil() as i32).filter(|decade| decade.rem_euclid(every as i32) == 0);
    let exponents = decades.flat_map(|decade| within.iter().map(move |n| f64::from(decade) + n.log10()));
    let visible = exponents.filter(|exponent| (low..=high).contains(exponent));
    visible.map(|value| GridMark { value, step_size: 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_short() {
        assert_eq!([0.1 + 0.2, 2.0, 1500.0, 3e-4, 0.0].map(short), ["0.3", "2", "1500", "3e-4", "0"]);
        assert_eq!(written(Along::Steps, 1500.0), "1,500");
        assert_eq!(written(Along::Seconds, 90.0), "1:30");
        assert_eq!([written(Along::Steps, 0.5), written(Along::Steps, -1.0)], ["", ""]);
    }

    #[test]
    fn a_logarithmic_axis_is_marked_at_1_2_5() {
        let values = |low, high, most| -> Vec<String> {
            let marks = decades(GridInput { bounds: (low, high), base_step_size: 0.1 }, most);
            marks.iter().map(|mark| short(10f64.powf(mark.value))).collect()
        };
        assert_eq!(values(-1.0, 1.0, 8.0), ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(values(-1.0, 1.0, 4.0), ["0.1", "1", "10"]);
        assert_eq!(values(-2.0, 2.0, 2.0), ["0.01", "1", "100"]);
    }

    #[test]
    fn marks_are_round_and_not_too_many() {
        let values = |low: f64, high: f64, most: f32| {
            let input = GridInput { bounds: (low, high), base_step_size: 0.0 };
            marks(input, most, round_step).into_iter().map(|mark| short(mark.value)).collect::<Vec<_>>()
        };
        assert_eq!(values(0.13, 3.4, 4.0), ["1", "2", "3"]);
        assert_eq!(values(0.0, 0.62, 4.0), ["0", "0.2", "0.4", "0.6"]);
        assert_eq!(values(-0.1, 1_010.0, 6.0), ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!([0.2, 70.0, 4000.0].map(|least| step_along(Along::Seconds, least)), [1.0, 120.0, 7200.0]);
        assert_eq!(step_along(Along::Steps, 0.01), 1.0);
    }

    #[test]
    fn a_constant_has_room_around_it() {
        let y = padded(2.0..=2.0);
        assert!(*y.start() < 2.0 && *y.end() > 2.0);
        let y = padded(0.0..=0.0);
        assert!(y.end() > y.start());
    }
}
