//! `sep4d render RUN`: original, reconstruction and error as a picture and an animation, without a display.

use std::path::PathBuf;

use sep4d::Result;
use sep4d::files::{check_can_be_folder, make_folder};
use sep4d::train::events::ReconstructedClip;
use sep4d::train::validation::reconstruct;
use sep4d::view::{ClassStyle, FramePair, Geometry, Headless, PictureInput, Theme, gif, save_png, sheet};

use super::model::{self, Model};
use super::output::say;
use super::signals;
use sep4d::figures::{frames, percent, thousands};

/// Draw original, reconstruction and error: a sheet (PNG) and an animation (GIF)
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Folder for the pictures [default: RUN/renders]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Number of the clip in its split [default: the middle one]
    #[arg(long)]
    clip: Option<usize>,
    /// Light on dark
    #[arg(long)]
    dark: bool,
    /// Colours for colour-blind readers
    #[arg(long)]
    safe_colors: bool,
}

/// Draws one clip.
///
/// # Errors
/// [`sep4d::Error::Usage`] if there is no such clip, [`sep4d::Error::Data`] if a file cannot be written, and as for [`Model::open`].
pub fn run(args: Args) -> Result<()> {
    signals::explain("pictures that were named are whole".into());
    let mut model = Model::open(&args.model)?;
    let out = args.out.unwrap_or_else(|| model.folder.renders());
    check_can_be_folder(&out)?;
    let index = args.clip.unwrap_or(model.dataset.len() / 2);
    let shown = reconstruct(&mut model.inference, &model.dataset, index)?;

    let classes = model.dataset.classes();
    let colors = if args.safe_colors { &classes.safe_colors } else { &classes.colors };
    let styles: Vec<ClassStyle> =
        classes.names.iter().zip(colors).map(|(name, &color)| ClassStyle { name: name.clone(), color }).collect();
    let pairs = pairs(&shown);
    let grid = model.dataset.grid();
    let geometry = Geometry {
        handedness: classes.handedness,
        ..Geometry::new(grid.size, grid.voxel_size_m.map(|edge| edge as f32))
    };
    let title = format!("{}, {}", shown.sequence, frames(shown.first_frame, shown.frame_step, shown.frames));
    let caption = format!(
        "{} preset, step {}, mIoU {} over these frames",
        model.config.train.preset.name(),
        thousands(model.step.into()),
        percent(miou(&shown))
    );
    let input = PictureInput {
        first_frame: shown.first_frame,
        frame_step: shown.frame_step,
        frame_interval_s: shown
            .times_secs
            .windows(2)
            .next()
            .map(|pair| (pair[1] - pair[0]) as f32)
            .filter(|s| *s > 0.0),
        title: &title,
        caption: &caption,
        theme: if args.dark { Theme::Dark } else { Theme::Light },
        ..PictureInput::new(geometry, &pairs, &styles)
    };
    let mut renderer = Headless::new(&model.context.device, &model.context.queue)?;
    let stem = format!("{}-{:06}", shown.sequence, shown.first_frame);
    let (png, animation) = (out.join(format!("{stem}.png")), out.join(format!("{stem}.gif")));
    make_folder(&out)?;
    save_png(&sheet(&mut renderer, &input)?, &png)?;
    say!("{}", png.display())?;
    gif(&mut renderer, &input, &animation)?;
    say!("{}", animation.display())?;
    model.context.save_pipeline_cache();
    Ok(())
}

/// The clip's frames for the renderer.
fn pairs(shown: &ReconstructedClip) -> Vec<FramePair> {
    let voxels = shown.size.iter().product();
    let originals = shown.truth.chunks(voxels);
    let parts = originals.zip(shown.labels.chunks(voxels)).zip(shown.observed.chunks(voxels));
    parts
        .map(|((original, reconstruction), observed)| FramePair {
            original: original.to_vec(),
            reconstruction: reconstruction.to_vec(),
            observed: Some(observed.to_vec()),
        })
        .collect()
}

/// mIoU over all observed voxels of the clip.
fn miou(shown: &ReconstructedClip) -> Option<f64> {
    let mut total = shown.confusion.first()?.clone();
    shown.confusion.iter().skip(1).for_each(|frame| total.add(frame.counts()));
    total.miou()
}
