//! Line charts as SVG and PNG.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;

use image::RgbaImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::files::write_atomically;
use crate::view::save_png;
use crate::{Error, Result};

/// Of one chart, pixels.
const SIZE: (u32, u32) = (560, 400);
/// Charts side by side, at most.
const COLUMNS: usize = 3;
/// Of a line's row in the legend, as a part of the range of y.
const LEGEND_ROW: f64 = 0.1;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 44, 52);

/// x, y, and how far the runs lie from y.
pub type Point = (f64, f64, Option<f64>);

/// What is drawn of a model in a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// In the legend.
    pub label: String,
    /// sRGB.
    pub color: [u8; 3],
    /// In order of x.
    pub points: Vec<Point>,
    /// With a dot at each point.
    pub is_dotted: bool,
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below.
    pub x: String,
    /// x, which is above 0, is drawn by its logarithm, and marked at powers of 2.
    pub is_log: bool,
    /// At the left.
    pub y: String,
    /// What it holds.
    pub lines: Vec<Line>,
}

impl Chart {
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.lines.iter().flat_map(|line| &line.points)
    }

    /// The ranges of x, or of its logarithm, and of y: with room around, and for the legend above.
    fn ranges(&self) -> Option<[Range<f64>; 2]> {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            (low <= high).then_some(if high > low { (low, high - low) } else { (low - 0.5, 1.0) })
        };
        let (left, width) = range(&mut self.points().map(|point| self.along(point.0)))?;
        let ends = |&(_, y, deviation): &Point| [y - deviation.unwrap_or(0.0), y + deviation.unwrap_or(0.0)];
        let (low, height) = range(&mut self.points().flat_map(ends))?;
        let above = height * (1.06 + LEGEND_ROW * self.lines.len() as f64);
        let beside = if self.is_log { 0.05 * width } else { 0.0 };
        Some([left - beside..left + width + beside, low - 0.06 * height..low + above])
    }

    /// Where x lies along the axis.
    fn along(&self, x: f64) -> f64 {
        if self.is_log { x.log2() } else { x }
    }
}

/// Draws `charts` side by side to `stem.svg` and `stem.png`, and returns these; nothing if there is nothing to draw.
///
/// # Errors
/// [`Error::Data`] if a file cannot be written.
pub fn draw(charts: &[Chart], stem: &Path) -> Result<Vec<PathBuf>> {
    let charts: Vec<(&Chart, [Range<f64>; 2])> =
        charts.iter().filter_map(|chart| Some((chart, chart.ranges()?))).collect();
    if charts.is_empty() {
        return Ok(Vec::new());
    }
    static FONTS: Once = Once::new();
    // The fonts are compiled in, so they can be read.
    FONTS.call_once(|| drop(register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)));
    let columns = charts.len().min(COLUMNS);
    let rows = charts.len().div_ceil(columns);
    let (width, height) = (SIZE.0 * columns as u32, SIZE.1 * rows as u32);
    let failed = |why: String| Error::Data(format!("cannot draw {}: {why}", stem.display()));

    let (svg, png) = (stem.with_extension("svg"), stem.with_extension("png"));
    let mut text = String::new();
    page(SVGBackend::with_string(&mut text, (width, height)).into_drawing_area(), &charts, [rows, columns])
        .map_err(failed)?;
    write_atomically(&svg, text.as_bytes())?;

    let mut pixels = vec![0; (width * height * 3) as usize];
    page(BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), &charts, [rows, columns])
        .map_err(failed)?;
    let pixel = |x: u32, y: u32| {
        let at = ((y * width + x) * 3) as usize;
        image::Rgba([pixels[at], pixels[at + 1], pixels[at + 2], 255])
    };
    save_png(&RgbaImage::from_fn(width, height, pixel), &png)?;
    Ok(vec![svg, png])
}

type Drawn = std::result::Result<(), String>;

fn page<B: DrawingBackend>(
    area: DrawingArea<B, Shift>,
    charts: &[(&Chart, [Range<f64>; 2])],
    grid: [usize; 2],
) -> Drawn {
    let why = |why: DrawingAreaErrorKind<B::ErrorType>| why.to_string();
    area.fill(&WHITE).map_err(why)?;
    for (part, (chart, [x, y])) in area.split_evenly((grid[0], grid[1])).iter().zip(charts) {
        let mut builder = ChartBuilder::on(part);
        let title = (FONT, 19).into_font().color(&INK);
        builder.caption(&chart.title, title).margin(14).x_label_area_size(46).y_label_area_size(62);
        lines(builder, chart, x.clone(), y.clone()).map_err(why)?;
    }
    area.present().map_err(why)
}

fn lines<B: DrawingBackend>(
    mut builder: ChartBuilder<'_, '_, B>,
    chart: &Chart,
    x: Range<f64>,
    y: Range<f64>,
) -> std::result::Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let mut axes = builder.build_cartesian_2d(x, y)?;
    let small = || (FONT, 14).into_font().color(&INK);
    axes.configure_mesh()
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .x_labels(8)
        .y_labels(6)
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .label_style(small())
        .axis_style(INK.mix(0.6))
        .bold_line_style(INK.mix(0.12))
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| short(if chart.is_log { value.exp2() } else { *value }))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for Line { label, color: [r, g, b], points, is_dotted } in &chart.lines {
        let color = RGBColor(*r, *g, *b);
        let style = color.stroke_width(2);
        axes.draw_series(LineSeries::new(points.iter().map(|&(x, y, _)| (chart.along(x), y)), style))?
            .label(label)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        let bars = points.iter().filter_map(|&(x, y, deviation)| Some((chart.along(x), y, deviation?)));
        axes.draw_series(bars.map(|(x, y, d)| PathElement::new(vec![(x, y - d), (x, y + d)], color.stroke_width(1))))?;
        if *is_dotted {
            axes.draw_series(points.iter().map(|&(x, y, _)| Circle::new((chart.along(x), y), 4, color.filled())))?;
        }
    }
    axes.configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(INK.mix(0.2))
        .label_font(small())
        .draw()
}

/// A number of an axis without needless digits.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_become_two_files_of_which_both_show_the_lines() {
        let folder = tempfile::tempdir().unwrap();
        let line = |label: &str, color| Line {
            label: label.into(),
            color,
            points: vec![(4.0, 50.0, Some(2.0)), (8.0, 40.0, None), (64.0, 20.0, None)],
            is_dotted: true,
        };
        let chart = Chart {
            title: "Accuracy by length".into(),
            x: "T".into(),
            is_log: true,
            y: "mIoU, %".into(),
            lines: vec![line("first", [0, 114, 178]), line("second", [213, 94, 0])],
        };
        let files =
            draw(&[chart.clone(), Chart { is_log: false, ..chart.clone() }], &folder.path().join("plot")).unwrap();
        let svg = std::fs::read_to_string(&files[0]).unwrap();
        assert!(svg.contains("Accuracy by length") && svg.contains("first") && svg.contains("#0072B2"));
        let png = image::open(&files[1]).unwrap().to_rgb8();
        assert_eq!(png.dimensions(), (2 * SIZE.0, SIZE.1));
        assert!(png.pixels().any(|pixel| pixel.0 == [213, 94, 0]));
        // Text is drawn: the title's rows hold ink.
        assert!((14..40).any(|y| (0..SIZE.0).any(|x| png.get_pixel(x, y).0[0] < 100)));
        assert!(draw(&[Chart { lines: Vec::new(), ..chart }], &folder.path().join("empty")).unwrap().is_empty());
    }
}
