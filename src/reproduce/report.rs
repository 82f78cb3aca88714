//! What the runs came to, beside what was published.

mod ablation;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Outcome;
use super::html;
use super::outcome::seconds_of_steps;
use super::plan::{DYNAMIC_CITY, Run, SEP4D, Scale, Study, Variant};
use super::plot::{Chart, Line, Point, draw};
use super::published;
use super::table::{Cell, Spread, Table};
use crate::figures::{duration, thousands};
use crate::files::{make_folder, write_atomically};
use crate::train::run_folder::History;
use crate::{Error, Result};

/// Colours that colour-blind readers tell apart (Okabe and Ito), in the order in which models come.
const COLORS: [[u8; 3]; 7] =
    [[0, 158, 115], [213, 94, 0], [0, 114, 178], [204, 121, 167], [230, 159, 0], [86, 180, 233], [90, 90, 90]];
/// The columns of [`Findings::costs`] and [`Findings::scores`].
const MEASURED: [&str; 8] =
    ["C.R.", "latent floats", "parameters", "steps", "training, s", "seeds", "mIoU, %", "IoU, %"];
/// Points of a curve of training losses, at most: each is a mean of what lies between.
const CURVE: usize = 60;

/// A run that was measured.
#[derive(Debug)]
pub struct Measured {
    /// Which one.
    pub run: Run,
    /// What came of it.
    pub outcome: Outcome,
    /// How it came there.
    pub history: History,
}

impl Measured {
    fn miou(&self) -> Option<f64> {
        self.outcome.evaluation.total.miou.map(|miou| 100.0 * miou)
    }

    /// Seconds of training before each validation, and its mIoU in per cent.
    fn by_time(&self) -> Vec<(f64, f64)> {
        let steps = seconds_of_steps(&self.history);
        let time = |step: u32| {
            let last = steps.iter().rfind(|(logged, _)| *logged <= step);
            last.map_or(0.0, |(logged, seconds)| seconds * f64::from(step) / f64::from((*logged).max(1)))
        };
        let validations = self.history.validations.iter();
        validations.filter_map(|row| Some((time(row.step), 100.0 * row.evaluation.total.miou?))).collect()
    }
}

/// Everything that is told.
struct Findings<'a> {
    scale: Scale,
    measured: &'a [Measured],
}

impl<'a> Findings<'a> {
    fn of(&self, variant: &Variant, frames: usize) -> Vec<&'a Measured> {
        let is_meant = |m: &&Measured| m.run.variant == variant && m.run.frames == frames;
        self.measured.iter().filter(is_meant).collect()
    }

    fn spread(&self, variant: &Variant, frames: usize, of: impl Fn(&Measured) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.of(variant, frames).into_iter().filter_map(of))
    }

    /// What every row of a table says about its model.
    fn costs(&self, variant: &Variant, frames: usize) -> Vec<Cell> {
        let runs = self.of(variant, frames);
        let Some(first) = runs.first() else { return vec![Cell::None; 6] };
        let Outcome { compression_ratio, latent_floats, parameters, steps, .. } = first.outcome;
        vec![
            Cell::Text(format!("{compression_ratio:.2}")),
            Cell::Text(latent_floats.to_string()),
            Cell::Text(parameters.to_string()),
            Cell::Text(steps.to_string()),
            Cell::spread(self.spread(variant, frames, |m| Some(m.outcome.seconds)), 1),
            Cell::Text(runs.len().to_string()),
        ]
    }

    fn scores(&self, variant: &Variant, frames: usize) -> [Cell; 2] {
        let iou = |m: &Measured| m.outcome.evaluation.total.iou.map(|iou| 100.0 * iou);
        [
            Cell::spread(self.spread(variant, frames, Measured::miou), 2),
            Cell::spread(self.spread(variant, frames, iou), 2),
        ]
    }

    /// By how much one model is better than another, seed by seed.
    fn lead(&self, variant: &Variant, over: &Variant, frames: usize) -> Option<(Spread, usize)> {
        let others = self.of(over, frames);
        let pairs: Vec<f64> = self
            .of(variant, frames)
            .into_iter()
            .filter_map(|m| Some(m.miou()? - others.iter().find(|o| o.run.seed == m.run.seed)?.miou()?))
            .collect();
        Some((Spread::of(pairs.iter().copied())?, pairs.len()))
    }

    fn table_1(&self) -> Table {
        let mut table = Table::new(
            "table1",
            "Table 1: reconstruction at five lengths",
            &[&["model", "T"], &MEASURED[..], &["published mIoU", "its authors' mIoU"]].concat(),
        );
        let (variants, lengths) = Study::Table1.compares(&Scale::FRAMES);
        for &frames in &lengths {
            for variant in &variants {
                let head = [Cell::Text(variant.title.into()), Cell::Text(frames.to_string())];
                let published = [published::miou(variant, frames), published::miou_of_its_authors(variant, frames)];
                let published = published.map(|miou| Cell::number(miou, 2));
                let costs = self.costs(variant, frames);
                table
                    .rows
                    .push(head.into_iter().chain(costs).chain(self.scores(variant, frames)).chain(published).collect());
            }
            if let Some((Spread { mean, deviation }, seeds)) = self.lead(&SEP4D, &DYNAMIC_CITY, frames) {
                let published = |of: fn(&Variant, usize) -> Option<f64>| {
                    let lead = published::miou(&SEP4D, frames).zip(of(&DYNAMIC_CITY, frames));
                    lead.map_or("none".into(), |(ours, theirs)| format!("{:+.2}", ours - theirs))
                };
                table.notes.push(format!(
                    "T = {frames}, mIoU of SEP-4D less that of DynamicCity: {mean:+.2}{} measured ({}), {} in the paper's Table 1, {} against DynamicCity's own figure.",
                    deviation.map_or(String::new(), |deviation| format!(" ± {deviation:.2}")),
                    if seeds == 1 { "one seed: no ranking".to_owned() } else { format!("{seeds} seeds, paired") },
                    published(published::miou),
                    published(published::miou_of_its_authors),
                ));
            }
        }
        let coded = self.measured.iter().filter(|m| m.run.seed == 0 && m.outcome.code_bits > 0.0);
        let coded: Vec<String> =
            coded.map(|m| format!("{:.0} at T = {}", m.outcome.code_bits.ceil(), m.run.frames)).collect();
        if !coded.is_empty() {
            let note = "As codes, a clip's latents of OccSora take so many bits";
            table.notes.push(format!("{note}: {}; its C.R. counts the floats of the codes.", coded.join(", ")));
        }
        table.notes.extend(published::ON_TABLE_1.map(str::to_owned));
        table
    }

    /// One for each length.
    fn table_2(&self) -> Vec<Table> {
        let (variants, lengths) = Study::Table2.compares(&Scale::FRAMES);
        let Some(first) = self.measured.first() else { return Vec::new() };
        let classes: Vec<&str> = first.outcome.classes.iter().skip(1).map(String::as_str).collect();
        let comparable = classes.iter().map(|class| published::CLASSES.iter().position(|known| known == class));
        let comparable: Vec<Option<usize>> = comparable.collect();
        let of_length = |&frames: &usize| {
            let columns = ["model", "", "mIoU"].into_iter().chain(classes.iter().copied()).collect::<Vec<_>>();
            let title = format!("Table 2: IoU by class, T = {frames}");
            let mut table = Table::new(&format!("table2-t{frames}"), &title, &columns);
            for variant in &variants {
                let head = |what: &str| vec![Cell::Text(variant.title.into()), Cell::Text(what.into())];
                let class = |c: usize| {
                    let iou = |m: &Measured| {
                        m.outcome.evaluation.total.per_class.get(c).copied().flatten().map(|v| 100.0 * v)
                    };
                    Cell::spread(self.spread(variant, frames, iou), 2)
                };
                let ious = (1..=classes.len()).map(class);
                let miou = self.scores(variant, frames).into_iter().take(1);
                table.rows.push(head("measured").into_iter().chain(miou).chain(ious).collect());
                if let Some((miou, ious)) = published::by_class(variant, frames) {
                    let cells = comparable.iter().map(|place| Cell::number(place.map(|place| ious[place]), 2));
                    let miou = [Cell::number(Some(miou), 2)];
                    table.rows.push(head("published").into_iter().chain(miou).chain(cells).collect());
                }
            }
            table.notes.push("Classes that do not occur in the test split are not scored and count in no mean.".into());
            table
        };
        lengths.iter().map(of_length).collect()
    }

    /// Tables 3 and 4: variants at one length.
    fn variants(&self, study: Study, title: &str) -> Table {
        let (variants, lengths) = study.compares(&Scale::FRAMES);
        let mut table = Table::new(
            study.name(),
            title,
            &[&["model"], &MEASURED[..], &["published mIoU", "published IoU"]].concat(),
        );
        for (&frames, variant) in
            lengths.iter().flat_map(|frames| variants.iter().map(move |variant| (frames, variant)))
        {
            let published = published::at_16(variant);
            let published =
                [published.map(|row| row.0), published.map(|row| row.1)].map(|value| Cell::number(value, 2));
            let cells = [Cell::Text(variant.title.into())].into_iter().chain(self.costs(variant, frames));
            table.rows.push(cells.chain(self.scores(variant, frames)).chain(published).collect());
            if let (true, Some((Spread { mean, deviation: Some(deviation) }, seeds))) =
                (*variant != &SEP4D, self.lead(&SEP4D, variant, frames))
            {
                table.notes.push(format!(
                    "mIoU of SEP-4D less that of \"{}\": {mean:+.2} ± {deviation:.2} ({seeds} seeds, paired).",
                    variant.title
                ));
            }
        }
        if study == Study::Table3 {
            table.notes.extend(published::ON_TABLE_3.map(str::to_owned));
        }
        table
    }

    /// What each system has reached when the fastest of them is done.
    fn equal_time(&self, study: Study, name: &str) -> Table {
        let (variants, lengths) = study.compares(&Scale::FRAMES);
        let mut table = Table::new(name, "At equal time: mIoU on the validation split, %", &["T", "seconds"]);
        table.columns.extend(variants.iter().map(|variant| variant.title.to_owned()));
        for frames in lengths {
            // Each system takes as long as the slowest of its seeds.
            let seconds = |variant: &&Variant| {
                let ends = self.of(variant, frames).into_iter().filter_map(|m| Some(m.by_time().last()?.0));
                ends.reduce(f64::max)
            };
            let Some(least) = variants.iter().filter_map(|variant| seconds(&&**variant)).reduce(f64::min) else {
                continue;
            };
            let reached =
                |m: &Measured| m.by_time().iter().rev().find(|(time, _)| *time <= 1.001 * least).map(|found| found.1);
            let cells = variants.iter().map(|variant| Cell::spread(self.spread(variant, frames, reached), 2));
            let head = [Cell::Text(frames.to_string()), Cell::Text(format!("{least:.1}"))];
            table.rows.push(head.into_iter().chain(cells).collect());
        }
        table.notes.push(
            "The last validation within the time that the fastest system takes for all its steps; times are of this machine and include whatever \
             else it did."
                .into(),
        );
        table
    }

    fn tables(&self, studies: &[Study]) -> Vec<Table> {
        let of_study = |study: &Study| match study {
            Study::Table1 => vec![self.table_1(), self.equal_time(Study::Table1, "equal-time")],
            Study::Table2 => self.table_2(),
            Study::Table3 => vec![self.variants(Study::Table3, "Table 3: fusions, T = 16")],
            Study::Table4 => vec![self.variants(Study::Table4, "Table 4: encoders, T = 16")],
            Study::Figure5 => vec![self.times()],
            Study::Ablation => self.ablation(),
            Study::Figure3 | Study::Figure4 => Vec::new(),
        };
        studies.iter().flat_map(of_study).collect()
    }

    /// The numbers of Figure 5.
    fn times(&self) -> Table {
        let (variants, lengths) = Study::Figure5.compares(&Scale::FRAMES);
        let mut table = Table::new(
            "figure5",
            "Figure 5: training time and accuracy",
            &["model", "T", "training, s", "ms a step", "mIoU, %", "published s", "published mIoU"],
        );
        for (&frames, variant) in
            lengths.iter().flat_map(|frames| variants.iter().map(move |variant| (frames, variant)))
        {
            let step = |m: &Measured| Some(1e3 * m.outcome.seconds / f64::from(m.outcome.steps));
            table.rows.push(vec![
                Cell::Text(variant.title.into()),
                Cell::Text(frames.to_string()),
                Cell::spread(self.spread(variant, frames, |m| Some(m.outcome.seconds)), 1),
                Cell::spread(self.spread(variant, frames, step), 1),
                Cell::spread(self.spread(variant, frames, Measured::miou), 2),
                Cell::number(published::seconds(variant, frames), 0),
                Cell::number(published::miou(variant, frames), 2),
            ]);
        }
        table
    }

    fn line(&self, number: usize, variant: &Variant, points: Vec<Point>, is_dotted: bool) -> Line {
        Line { label: variant.title.into(), color: COLORS[number % COLORS.len()], points, is_dotted }
    }

    /// Figures by the stems of their files, each with what it shows.
    fn figures(&self, study: Study) -> Option<(&'static str, &'static str, Vec<Chart>)> {
        let (variants, lengths) = study.compares(&Scale::FRAMES);
        let chart = |title: String, x: &str, is_log, y: &str, lines: Vec<Line>| Chart {
            title,
            x: x.into(),
            is_log,
            y: y.into(),
            lines: lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
        };
        // A model has the same colour everywhere.
        let number = |variant: &Variant| super::plan::SYSTEMS.iter().position(|known| *known == variant);
        let lines = |points: &dyn Fn(&Variant) -> Vec<Point>, is_dotted| {
            let line = |(i, variant): (usize, &&'static Variant)| {
                self.line(number(variant).unwrap_or(3 + i), variant, points(variant), is_dotted)
            };
            variants.iter().enumerate().map(line).collect::<Vec<_>>()
        };
        match study {
            Study::Table1 => {
                let miou = |variant: &Variant| {
                    let point =
                        |&t: &usize| self.spread(variant, t, Measured::miou).map(|s| (t as f64, s.mean, s.deviation));
                    lengths.iter().filter_map(point).collect()
                };
                let accuracy = chart("Accuracy by length".into(), "frames", true, "mIoU, %", lines(&miou, true));
                let by_time = lengths.iter().map(|&frames| {
                    let curve =
                        |variant: &Variant| mean_of_curves(self.of(variant, frames).iter().map(|m| m.by_time()));
                    let title = format!("Validation, T = {frames}");
                    chart(title, "seconds of training", false, "mIoU, %", lines(&curve, false))
                });
                Some(("table1", "Accuracy by length, and by time", [accuracy].into_iter().chain(by_time).collect()))
            }
            Study::Figure4 => {
                let charts = lengths.iter().map(|&frames| {
                    let curve = |variant: &Variant| {
                        let losses = |m: &&Measured| {
                            let finite = m.history.steps.iter().filter(|row| row.loss.is_finite());
                            finite.map(|row| (f64::from(row.step), f64::from(row.loss))).collect()
                        };
                        let curves: Vec<Vec<(f64, f64)>> = self.of(variant, frames).iter().map(losses).collect();
                        thinned(&mean_of_curves(curves.into_iter()))
                    };
                    chart(format!("T = {frames}"), "step", false, "training loss", lines(&curve, false))
                });
                Some(("figure4", "Figure 4: convergence", charts.collect()))
            }
            Study::Figure5 => {
                let points = |variant: &Variant| {
                    let point = |&t: &usize| {
                        let miou = self.spread(variant, t, Measured::miou)?;
                        Some((self.spread(variant, t, |m| Some(m.outcome.seconds))?.mean, miou.mean, miou.deviation))
                    };
                    let mut points: Vec<Point> = lengths.iter().filter_map(point).collect();
                    points.sort_by(|a, b| a.0.total_cmp(&b.0));
                    points
                };
                let title = "T = 4, 8, 16, 32, 64 from left to right".to_owned();
                let charts = vec![chart(title, "seconds of training", true, "mIoU, %", lines(&points, true))];
                Some(("figure5", "Figure 5: accuracy and training time", charts))
            }
            _ => None,
        }
    }

    /// Where the figures come from.
    fn about(&self, wanted: usize) -> Vec<String> {
        let mut adapters: Vec<&str> = self.measured.iter().map(|m| m.outcome.adapter.as_str()).collect();
        adapters.sort_unstable();
        adapters.dedup();
        let seconds: f64 = self.measured.iter().map(|m| m.outcome.seconds).sum();
        let clips = self.measured.first().map_or(0, |m| m.outcome.evaluation.clips);
        vec![
            format!(
                "{} of {wanted} runs are finished, {} of training on {}; sep4d {}, scale {}.",
                self.measured.len(),
                duration(seconds),
                if adapters.is_empty() { "no adapter".into() } else { adapters.join(", ") },
                env!("CARGO_PKG_VERSION"),
                self.scale.name()
            ),
            format!(
                "Every model sees the same clips in the same order and is scored after its last step on the test split ({} clips at the first \
                 length); nothing is chosen by the test split. Means are over seeds, with the sample deviation.",
                thousands(clips as u64)
            ),
            "C.R. is voxels of a clip for each float of its latent. Rankings need three seeds.".into(),
        ]
    }
}

/// The mean of several curves at the points of the shortest.
fn mean_of_curves(curves: impl Iterator<Item = Vec<(f64, f64)>>) -> Vec<Point> {
    let curves: Vec<Vec<(f64, f64)>> = curves.collect();
    let points = curves.iter().map(Vec::len).min().unwrap_or(0);
    let count = curves.len() as f64;
    let mean = |i: usize| {
        let (x, y) = curves.iter().fold((0.0, 0.0), |(x, y), curve| (x + curve[i].0, y + curve[i].1));
        (x / count, y / count, None)
    };
    (0..points).map(mean).collect()
}

/// Few enough points to be seen apart, each the mean of those that it stands for.
fn thinned(points: &[Point]) -> Vec<Point> {
    let mean = |part: &[Point]| {
        let count = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / count, part.iter().map(|p| p.1).sum::<f64>() / count, None)
    };
    points.chunks(points.len().div_ceil(CURVE).max(1)).map(mean).collect()
}

/// The report as a program reads it.
#[derive(Serialize)]
struct Record<'a> {
    scale: &'a str,
    about: &'a [String],
    tables: &'a [Table],
    runs: Vec<RunRecord<'a>>,
}

#[derive(Serialize)]
struct RunRecord<'a> {
    name: String,
    model: &'a str,
    frames: usize,
    seed: u64,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// Writes the report on `studies` into `folder`: `report.md`, `report.html`, `report.json`, a CSV for each table, and each figure
/// as SVG and PNG. `wanted` is how many runs there are to be, and `pictures` are figures that were drawn before, with what they
/// show. Returns the page that opens without anything else.
///
/// # Errors
/// [`Error::Data`] if a file cannot be written.
pub fn write(
    folder: &Path,
    scale: Scale,
    studies: &[Study],
    measured: &[Measured],
    wanted: usize,
    pictures: &[(String, PathBuf)],
) -> Result<PathBuf> {
    make_folder(folder)?;
    let findings = Findings { scale, measured };
    let (about, tables) = (findings.about(wanted), findings.tables(studies));
    let (mut figures, mut linked) = (Vec::new(), String::new());
    for (stem, caption, charts) in studies.iter().filter_map(|&study| findings.figures(study)) {
        if let [svg, png] = draw(&charts, &folder.join(stem))?.as_slice() {
            linked += &link(caption, png);
            figures.push((caption.to_owned(), svg.clone()));
        }
    }
    for (caption, path) in pictures {
        linked += &link(caption, path);
        figures.push((caption.clone(), path.clone()));
    }
    let title = format!("sep4d: the paper's comparison, scale {}", scale.name());
    let about_lines: String = about.iter().map(|line| format!("{line}\n\n")).collect();
    let of_tables: String = tables.iter().map(Table::markdown).collect();
    let markdown = format!("# {title}\n\n{about_lines}{of_tables}{linked}");
    let runs = measured.iter().map(|Measured { run, outcome, .. }| RunRecord {
        name: run.name(),
        model: run.variant.title,
        frames: run.frames,
        seed: run.seed,
        outcome,
    });
    let record = Record { scale: scale.name(), about: &about, tables: &tables, runs: runs.collect() };
    let json = serde_json::to_string_pretty(&record).map_err(|why| Error::Data(why.to_string()))?;
    for table in &tables {
        write_atomically(&folder.join(format!("{}.csv", table.name)), table.csv().as_bytes())?;
    }
    write_atomically(&folder.join("report.json"), json.as_bytes())?;
    write_atomically(&folder.join("report.md"), markdown.as_bytes())?;
    let page = folder.join("report.html");
    write_atomically(&page, html::page(&title, &about, &tables, &figures)?.as_bytes())?;
    Ok(page)
}

/// A figure in the same folder.
fn link(caption: &str, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("## {caption}\n\n![{caption}]({name})\n\n")
}
