//! `sep4d check DATA`: reads a whole data set and says what is wrong with it.

use std::path::PathBuf;

use sep4d::data::check::{self, Event, SplitSummary, Summary};
use sep4d::figures::{percent, shell_quoted, thousands};
use sep4d::{Error, Result};

use super::console::Console;
use super::output::{put, say};
use super::signals;
use super::table::table;

/// Problems that the JSON object holds at most; it counts them all.
const MOST_LISTED: usize = 10_000;

/// Read a whole data set and list every problem, its classes, grid, poses and masks
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a data set
    data: PathBuf,
    /// Print one JSON object instead of text; of very many problems it lists the first 10,000
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(serde::Serialize)]
struct Report<'a> {
    data: String,
    /// What was recognised.
    about: &'a str,
    problem_count: usize,
    problems: Vec<String>,
    notes: Vec<String>,
    classes: &'a [String],
    splits: &'a [SplitSummary],
}

/// Reads everything, tells each problem as it is found, and sums up.
///
/// # Errors
/// [`Error::Data`] if there is any problem.
pub fn run(args: Args) -> Result<()> {
    signals::explain("not everything was read, and nothing was remembered".into());
    let console = Console::new(0, "frames");
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    let summary = check::check(&args.data, |event| match event {
        Event::Frames(frames) => console.begin(0, frames as u64),
        Event::Read(frames) => console.advance(frames as u64, String::new()),
        Event::Problem(why) if args.json => {
            if found.len() < MOST_LISTED {
                found.push(why);
            }
        }
        Event::Problem(why) => console.line(&why),
        Event::Note(note) if args.json => notes.push(note),
        Event::Note(note) => console.warn(&note),
    });
    console.end();
    let Summary { about, classes, splits, problems } = summary?;
    if args.json {
        let report = Report {
            data: args.data.display().to_string(),
            about: &about,
            problem_count: problems,
            problems: found,
            notes,
            classes: &classes.names,
            splits: &splits,
        };
        let text = serde_json::to_string_pretty(&report).map_err(|why| Error::Data(why.to_string()))?;
        say!("{text}")?;
    } else {
        say!("{about}\n")?;
        print(&splits, &classes.names)?;
    }
    match problems {
        0 => Ok(()),
        problems => Err(Error::Data(format!(
            "{} problem{} found in {}; correct what is named above and run `sep4d check {}` again",
            thousands(problems as u64),
            if problems == 1 { " was" } else { "s were" },
            args.data.display(),
            shell_quoted(&args.data)
        ))),
    }
}

fn print(splits: &[SplitSummary], classes: &[String]) -> Result<()> {
    let all_or = |count: usize, of: usize| match count {
        _ if count == of => "all".to_owned(),
        0 => "none".to_owned(),
        _ => count.to_string(),
    };
    let split = |split: &SplitSummary| {
        let seen = (split.masked > 0).then(|| split.observed as f64 / split.masked as f64);
        vec![
            split.split.folder().to_owned(),
            thousands(split.sequences as u64),
            thousands(split.frames as u64),
            percent(seen),
            all_or(split.with_poses, split.sequences),
            all_or(split.with_times, split.sequences),
            split.grid_text(),
        ]
    };
    let rows: Vec<Vec<String>> = splits.iter().map(split).collect();
    put!("{}", table(&["split", "sequences", "frames", "observed", "poses", "times", "grid"], &rows))?;
    say!()?;
    let mut header = vec!["class"];
    header.extend(splits.iter().flat_map(|split| [split.split.folder(), ""]));
    let row = |(class, name): (usize, &String)| {
        let mut row = vec![name.clone()];
        for split in splits {
            let (count, all) = (split.class_counts[class], split.class_counts.iter().sum::<u64>());
            row.push(thousands(count));
            row.push(percent((all > 0).then(|| count as f64 / all as f64)));
        }
        row
    };
    let rows: Vec<Vec<String>> = classes.iter().enumerate().map(row).collect();
    put!("{}", table(&header, &rows))
}
