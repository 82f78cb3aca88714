//! `sep4d register DATA`: how the sensor moved, from the labels alone.

use std::path::{Path, PathBuf};

use sep4d::data::Split;
use sep4d::data::register::{self, Event, Flag, Registered};
use sep4d::figures::{shell_quoted, thousands};
use sep4d::view::top::{Map, maps};
use sep4d::view::{Theme, save_png};
use sep4d::{Error, Result};

use super::console::Console;
use super::output::{put, say};
use super::signals;
use super::table::table;

/// Frames that the picture lays over each other.
const PICTURED: usize = 8;

/// Estimate how the sensor moved in data without poses, from the labels alone, and keep it beside the data
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a data set
    data: PathBuf,
    /// Register only this split
    #[arg(long, value_parser = ["train", "val", "test"])]
    split: Option<String>,
    /// Draw eight frames laid over each other, with the motions that were found and without (PNG)
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
}

/// Registers, and prints what came of it.
///
/// # Errors
/// [`Error::Data`] as for [`register::register`], and if any pair is flagged.
pub fn run(args: Args) -> Result<()> {
    let again =
        format!("what was registered is kept: run `sep4d register {}` again to go on", shell_quoted(&args.data));
    signals::explain(again);
    let splits: Vec<Split> = match args.split.as_deref() {
        Some(name) => Split::ALL.into_iter().filter(|split| split.folder().eq_ignore_ascii_case(name)).collect(),
        None => Vec::new(),
    };
    if let Some(picture) = &args.picture {
        can_be_drawn(picture)?;
    }
    let console = Console::new(0, "frames");
    let registered = register::register(&args.data, &splits, |event| match event {
        Event::Frames(frames) => console.begin(0, frames as u64),
        Event::Done(frames) => console.advance(frames as u64, String::new()),
        Event::Note(note) => console.warn(&note),
        Event::Sequence(sequence) => flags(&sequence).iter().for_each(|line| console.line(line)),
    });
    console.end();
    let registered = registered?;
    print(&registered)?;
    if let Some(picture) = &args.picture {
        draw(&args.data, &registered, picture)?;
    }
    let flagged: usize = registered.iter().map(|sequence| sequence.trajectory.flagged().len()).sum();
    if flagged == 0 {
        return Ok(());
    }
    let pairs: usize = registered.iter().map(|sequence| sequence.trajectory.pairs.len()).sum();
    Err(Error::Data(format!(
        "{} of {} pairs of frames in {} cannot be registered; clips without them are, and those across them have no poses",
        thousands(flagged as u64),
        thousands(pairs as u64),
        args.data.display()
    )))
}

/// Where a picture goes is known to be good before hours are spent on what it shows.
fn can_be_drawn(picture: &Path) -> Result<()> {
    let is_png = picture.extension().is_some_and(|e| e.eq_ignore_ascii_case("png"));
    let folder = picture.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !is_png || picture.is_dir() || !folder.is_dir() {
        return Err(Error::Usage(format!(
            "--picture {} is no place for a picture; give a file .png in a folder that exists",
            picture.display()
        )));
    }
    Ok(())
}

/// The flagged pairs of a sequence, a line for each reason.
fn flags(sequence: &Registered) -> Vec<String> {
    let (flagged, numbers) = (sequence.trajectory.flagged(), &sequence.numbers);
    let reasons: [Flag; 5] = [Flag::Featureless, Flag::Apart, Flag::Loose, Flag::Ambiguous, Flag::Contradicted];
    let line = |flag: Flag| {
        let pairs: Vec<usize> =
            flagged.iter().copied().filter(|&i| sequence.trajectory.pairs[i].flag == Some(flag)).collect();
        let shown: Vec<String> = pairs.iter().take(8).map(|&i| format!("{}-{}", numbers[i], numbers[i + 1])).collect();
        let more = if pairs.len() > 8 { format!(" and {} more", pairs.len() - 8) } else { String::new() };
        let name = format!("{}/{}", sequence.split.folder(), sequence.name);
        (!pairs.is_empty()).then(|| format!("{name}: {} (frames {}{more})", flag.text(), shown.join(", ")))
    };
    reasons.into_iter().filter_map(line).collect()
}

/// A row a sequence.
fn print(registered: &[Registered]) -> Result<()> {
    let has_errors = registered.iter().any(|sequence| sequence.errors.is_some());
    let mut header = vec!["sequence", "frames", "motion/frame", "most", "turn/frame", "most", "flagged"];
    if has_errors {
        header.extend(["error", "95 %", "error", "95 %"]);
    }
    let mut rows: Vec<Vec<String>> = registered.iter().map(|sequence| row(sequence, has_errors)).collect();
    if has_errors && registered.len() > 1 {
        let all: Vec<[f64; 2]> = registered.iter().filter_map(|sequence| sequence.errors.clone()).flatten().collect();
        let mut row = vec![String::new(); header.len() - 4];
        row[0] = "all".to_owned();
        row.extend(error_cells(&all));
        rows.push(row);
    }
    put!("{}", table(&header, &rows))
}

fn row(sequence: &Registered, has_errors: bool) -> Vec<String> {
    let trajectory = &sequence.trajectory;
    let sound = || trajectory.pairs.iter().filter(|pair| pair.flag.is_none());
    let shifts: Vec<f64> = sound().map(|pair| pair.motion.length_m()).collect();
    let turns: Vec<f64> = sound().map(|pair| pair.motion.yaw.abs().to_degrees()).collect();
    let flagged = trajectory.flagged().len();
    let mut row = vec![
        format!("{}/{}", sequence.split.folder(), sequence.name),
        (trajectory.pairs.len() + 1).to_string(),
        metres(quantile(&shifts, 0.5)),
        metres(quantile(&shifts, 1.0)),
        degrees(quantile(&turns, 0.5)),
        degrees(quantile(&turns, 1.0)),
        if flagged == 0 { "none".to_owned() } else { flagged.to_string() },
    ];
    if has_errors {
        row.extend(error_cells(sequence.errors.as_deref().unwrap_or_default()));
    }
    row
}

/// The median and the 95th percentile of errors in metres and in radians.
fn error_cells(errors: &[[f64; 2]]) -> [String; 4] {
    let shifts: Vec<f64> = errors.iter().map(|error| error[0]).collect();
    let turns: Vec<f64> = errors.iter().map(|error| error[1].to_degrees()).collect();
    let shift = |part| metres(quantile(&shifts, part));
    let turn = |part| degrees(quantile(&turns, part));
    [shift(0.5), shift(0.95), turn(0.5), turn(0.95)]
}

fn metres(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3} m"))
}

fn degrees(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} deg"))
}

/// The value below which a part of the values lies, `None` if there are none.
fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len().saturating_sub(1)) as f64 * part).round() as usize).copied()
}

/// Draws the frames between which the sensor moved farthest.
fn draw(data: &Path, registered: &[Registered], picture: &Path) -> Result<()> {
    let longest = registered.iter().map(|sequence| sequence.trajectory.pairs.len() + 1).max().unwrap_or(0);
    let Some(overlay) = register::overlay(data, registered, PICTURED.min(longest))? else {
        return Err(Error::Data(
            "no frames between which the motion is known can be drawn; leave out --picture".into(),
        ));
    };
    let (classes, size) = (&overlay.classes, overlay.grid.size);
    let [first, last] = overlay.frames;
    let title = format!("{}, frames {first} to {last}: what stands still", overlay.sequence);
    let aligned = Map { heading: "with the motions that were found", labels: &overlay.aligned };
    let unaligned = Map { heading: "as recorded", labels: &overlay.unaligned };
    let both = [aligned, unaligned];
    let image = maps(&both, size, classes.handedness, &classes.colors, &title, Theme::Light)?;
    save_png(&image, picture)?;
    say!("{}", picture.display())
}
