//! A page about runs that are compared, which opens without anything else.

use std::path::Path;

use super::history::History;
use super::output::Picture;
use super::rivals::letter;
use super::state::State;
use crate::figures::thousands;
use crate::files::write_atomically;
use crate::reproduce::{Cell, Chart, Line, Table, draw, page};
use crate::train::metrics::Confusion;
use crate::view::{Headless, PictureInput, Theme, save_png, sheet};
use crate::{Error, Result};

/// Frames of the clip on the page.
const FRAMES: usize = 4;
/// Colours of the runs' curves (Okabe and Ito).
const COLORS: [[u8; 3]; 4] = [[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167]];

/// All that the page needs, apart from the window: it is written on a thread of its own.
pub struct Comparison {
    picture: Picture,
    about: Vec<String>,
    tables: Vec<Table>,
    charts: Vec<Chart>,
}

impl Comparison {
    /// The clip in view and the runs, as they are now.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is nothing to compare.
    pub fn of(state: &State, theme: Theme) -> Result<Comparison> {
        let nothing = || Error::Usage("there is nothing to compare; open a run, then another one beside it".into());
        let shown = state.shown.as_ref().ok_or_else(nothing)?;
        let confusions = state.compared_confusions();
        let named: Vec<(String, Option<Confusion>)> = state.compared_names().into_iter().zip(confusions).collect();
        let seen: Vec<usize> = (0..state.rivals.list.len()).filter(|&number| state.rival(number).is_some()).collect();
        if seen.is_empty() {
            return Err(nothing());
        }
        let heading = |number: usize| {
            let (name, confusion) = &named[number];
            let miou = crate::figures::percent(confusion.as_ref().and_then(Confusion::miou));
            format!("{} {name}, mIoU {miou}", letter(number))
        };
        let headings = std::iter::once(0).chain(seen.iter().map(|number| number + 1)).map(heading).collect();
        let others: Vec<_> = seen.iter().filter_map(|&number| state.rival(number)).collect();
        let picture = Picture::of(state, theme)?.beside(shown, &others, headings);
        let histories: Vec<&History> =
            std::iter::once(&state.history).chain(state.rivals.list.iter().map(|rival| &rival.history)).collect();
        let about = vec![
            format!(
                "The clip is {}, frames {} to {}, of {}.",
                shown.sequence,
                shown.first_frame,
                shown.first_frame + (shown.frames - 1) * shown.frame_step,
                state.source.as_ref().map_or("no data set".into(), |source| source.root.display().to_string())
            ),
            "Scores of the clip are over its observed voxels; those of a validation are what each run measured of itself."
                .into(),
        ];
        let classes = classes(&named, &shown.classes.names);
        let (tables, charts) = (vec![runs(state, &named, &histories), classes], charts(&named, &histories));
        Ok(Comparison { picture, about, tables, charts })
    }

    /// Writes the page to `path`.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be written, [`Error::Device`] if the picture cannot be drawn.
    pub fn write(&self, renderer: &mut Headless, path: &Path) -> Result<()> {
        let parts =
            tempfile::tempdir().map_err(|why| Error::Data(format!("no temporary folder can be made: {why}")))?;
        let clip = parts.path().join("clip.png");
        let input = PictureInput { max_rows: FRAMES, ..self.picture.input() };
        save_png(&sheet(renderer, &input)?, &clip)?;
        let mut figures = vec![("The clip".to_owned(), clip)];
        let curves = draw(&self.charts, &parts.path().join("curves"))?;
        figures.extend(curves.into_iter().take(1).map(|svg| ("Curves".to_owned(), svg)));
        let page = page("Comparison of runs", &self.about, &self.tables, &figures)?;
        write_atomically(path, page.as_bytes())
    }
}

/// A row a run.
fn runs(state: &State, named: &[(String, Option<Confusion>)], histories: &[&History]) -> Table {
    let columns =
        ["", "run", "step in view", "clip mIoU, %", "clip IoU, %", "best validation mIoU, %", "at step", "steps"];
    let mut table = Table::new("runs", "Runs", &columns);
    for (i, ((name, confusion), history)) in named.iter().zip(histories).enumerate() {
        let model = match i.checked_sub(1) {
            None => state.shown.as_ref().and_then(|shown| shown.model.as_ref()),
            Some(number) => state.rival(number),
        };
        let step = |step: Option<u32>| step.map_or(Cell::None, |step| Cell::Text(thousands(step.into())));
        let score = |of: fn(&Confusion) -> Option<f64>| {
            Cell::number(confusion.as_ref().and_then(of).map(|score| 100.0 * score), 2)
        };
        table.rows.push(vec![
            Cell::Text(letter(i).into()),
            Cell::Text(name.clone()),
            step(model.map(|model| model.step)),
            score(Confusion::miou),
            score(Confusion::iou),
            Cell::number(history.best().map(|best| 100.0 * best.1), 2),
            step(history.best().map(|best| best.0)),
            step(history.steps.last().map(|metrics| metrics.step)),
        ]);
    }
    table
}

/// IoU by class, with each run's difference from A.
fn classes(named: &[(String, Option<Confusion>)], names: &[String]) -> Table {
    let mut table = Table::new("classes", "IoU by class over the clip, %", &["class"]);
    for (i, (name, _)) in named.iter().enumerate() {
        table.columns.push(format!("{} {name}", letter(i)));
        table.columns.extend((i > 0).then(|| format!("{} - A", letter(i))));
    }
    let mut row = |title: &str, of: &dyn Fn(&Confusion) -> Option<f64>| {
        let value = |confusion: &Option<Confusion>| of(confusion.as_ref()?).map(|value| 100.0 * value);
        let own = value(&named[0].1);
        let mut cells = vec![Cell::Text(title.into())];
        for (i, (_, confusion)) in named.iter().enumerate() {
            let value = value(confusion);
            cells.push(Cell::number(value, 2));
            let gain = value.zip(own).map(|(value, own)| Cell::Text(format!("{:+.2}", value - own)));
            cells.extend((i > 0).then(|| gain.unwrap_or(Cell::None)));
        }
        table.rows.push(cells);
    };
    for (class, name) in names.iter().enumerate().skip(1) {
        row(name, &|confusion| confusion.class_iou(class));
    }
    row("Occupied (IoU)", &Confusion::iou);
    row("Mean (mIoU)", &Confusion::miou);
    table
}

fn charts(named: &[(String, Option<Confusion>)], histories: &[&History]) -> Vec<Chart> {
    let chart = |title: &str, y: &str, is_dotted, points: &dyn Fn(&History) -> Vec<(f64, f64)>| {
        let line = |(i, (history, (name, _))): (usize, (&&History, &(String, Option<Confusion>)))| Line {
            label: format!("{} {name}", letter(i)),
            color: COLORS[i % COLORS.len()],
            points: points(history).into_iter().map(|(x, y)| (x, y, None)).collect(),
            is_dotted,
        };
        let lines = histories.iter().zip(named).enumerate().map(line).filter(|line| !line.points.is_empty());
        Chart { title: title.into(), x: "step".into(), is_log: false, y: y.into(), lines: lines.collect() }
    };
    let miou = |history: &History| {
        let scored =
            history.validations.iter().filter_map(|v| Some((f64::from(v.step), 100.0 * v.evaluation.total.miou?)));
        scored.collect()
    };
    let loss = |history: &History| {
        let finite = history.steps.iter().filter(|metrics| metrics.loss.is_finite());
        finite.map(|metrics| (f64::from(metrics.step), f64::from(metrics.loss))).collect()
    };
    vec![chart("Validation", "mIoU, %", true, &miou), chart("Training", "loss", false, &loss)]
}
