//! `sep4d eval RUN`: scores of a trained model.

use sep4d::train::metrics::{CodeUse, Evaluation, Tally};
use sep4d::train::validation::{evaluate, evenly_spaced};
use sep4d::{Error, Result};

use super::console::Console;
use super::model::{self, Model};
use super::output::{put, say};
use super::signals;
use super::table::table;
use sep4d::figures::{percent, thousands};

/// Measure a trained model: mIoU, IoU, each class, each frame
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Number of clips, evenly spaced over the split; 0 for all [default: as in the run's validations]
    #[arg(long)]
    clips: Option<usize>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// The scores with where they come from.
#[derive(serde::Serialize)]
struct Report<'a> {
    checkpoint: String,
    step: u32,
    split: sep4d::data::Split,
    frames: usize,
    classes: &'a [String],
    evaluation: Evaluation,
}

/// Prints the scores.
///
/// # Errors
/// As for [`Model::open`].
pub fn run(args: Args) -> Result<()> {
    signals::explain("nothing was written".into());
    let mut model = Model::open(&args.model)?;
    let count = match args.clips.unwrap_or(model.config.data.validation_clips) {
        0 => model.dataset.len(),
        count => count,
    };
    let clips = evenly_spaced(model.dataset.len(), count);
    let console = Console::new(clips.len() as u64, "clips");
    let tally = evaluate(&mut model.inference, &model.dataset, &clips, |done| {
        console.advance(done as u64, String::new());
        true
    })?;
    console.end();
    model.context.save_pipeline_cache();
    let Some(tally) = tally else { return Ok(()) };
    let report = Report {
        checkpoint: model.checkpoint.display().to_string(),
        step: model.step,
        split: model.dataset.split(),
        frames: model.dataset.frames_per_clip(),
        classes: &model.dataset.classes().names,
        evaluation: tally.evaluation(),
    };
    if args.json {
        let text = serde_json::to_string_pretty(&report).map_err(|why| Error::Data(why.to_string()))?;
        say!("{text}")?;
    } else {
        print(&report, &tally, &model.dataset.about())?;
    }
    Ok(())
}

fn print(report: &Report, tally: &Tally, data: &str) -> Result<()> {
    let Report { evaluation, .. } = report;
    say!(
        "{} (step {}), {} clips of {} frames from {}",
        report.checkpoint,
        thousands(report.step.into()),
        evaluation.clips,
        report.frames,
        report.split.folder()
    )?;
    say!("{data}")?;
    say!("mIoU {}   IoU {}", percent(evaluation.total.miou), percent(evaluation.total.iou))?;
    for CodeUse { latent, codes, used, perplexity } in &evaluation.codes {
        say!("{latent}: {used} of {codes} occur, perplexity {perplexity:.1}")?;
    }
    say!()?;
    let classes: Vec<Vec<String>> = report
        .classes
        .iter()
        .zip(&evaluation.total.per_class)
        .enumerate()
        .map(|(class, (name, iou))| vec![name.clone(), percent(*iou), thousands(tally.total().truth(class))])
        .collect();
    put!("{}", table(&["class", "IoU", "voxels"], &classes))?;
    say!()?;
    let frames: Vec<Vec<String>> = evaluation
        .per_frame
        .iter()
        .enumerate()
        .map(|(frame, scores)| vec![(frame + 1).to_string(), percent(scores.miou), percent(scores.iou)])
        .collect();
    put!("{}", table(&["frame", "mIoU", "IoU"], &frames))
}
