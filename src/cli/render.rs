//! `sep4d render RUN...`: original, reconstructions and errors as a picture and an animation, without a display.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sep4d::data::{ClassSet, Grid};
use sep4d::figures::{frames, percent, thousands};
use sep4d::files::{check_can_be_folder, make_folder, remove_leftovers};
use sep4d::gpu::Context;
use sep4d::train::events::ReconstructedClip;
use sep4d::train::validation::reconstruct;
use sep4d::view::{ClassStyle, ComparedFrame, Geometry, Headless, PictureInput, Theme, gif, save_png, sheet};
use sep4d::{Error, Result};

use super::model::{self, Model};
use super::output::{say, tell};
use super::signals;

/// Draw original, reconstruction and error: a sheet (PNG) and an animation (GIF)
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Other runs to draw beside it, on the same clip of the first one's data
    #[arg(value_name = "RUN")]
    others: Vec<PathBuf>,
    /// Folder for the pictures [default: renders in the first run]
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
/// [`Error::Usage`] if there is no such clip, [`Error::Data`] if a file cannot be written or models were trained for other clips, and
/// as for [`Model::open`].
pub fn run(args: Args) -> Result<()> {
    signals::explain("pictures that were named are whole".into());
    let Args { model, others, out, clip, dark, safe_colors } = args;
    let drawing = Drawing::of(&model, &others, clip)?;
    let out = out.unwrap_or_else(|| drawing.renders.clone());
    check_can_be_folder(&out)?;
    let first = &drawing.clips[0];
    let stem =
        format!("{}-{:06}{}", first.sequence, first.first_frame, if others.is_empty() { "" } else { "-compared" });
    let (png, animation) = (out.join(format!("{stem}.png")), out.join(format!("{stem}.gif")));
    let mut renderer = Headless::new(&drawing.context.device, &drawing.context.queue)?;
    make_folder(&out)?;
    // What an earlier drawing of this clip that was killed has left.
    remove_leftovers(&out, |file| [&png, &animation].iter().any(|path| path.ends_with(file)));
    let theme = if dark { Theme::Dark } else { Theme::Light };
    drawing.draw(theme, safe_colors, 5, |input| {
        save_png(&sheet(&mut renderer, input)?, &png)?;
        say!("{}", png.display())?;
        gif(&mut renderer, input, &animation)?;
        say!("{}", animation.display())
    })?;
    tell(&drawing.about);
    drawing.context.save_pipeline_cache();
    Ok(())
}

/// One clip as several models see it.
pub struct Drawing {
    /// The device.
    pub context: Arc<Context>,
    /// What each model makes of it.
    pub clips: Vec<ReconstructedClip>,
    /// What is written above each: its run's folder and its mIoU.
    pub captions: Vec<String>,
    /// What is written below the title.
    caption: String,
    /// What the first run's data were recognised as.
    about: String,
    /// Where the first run keeps pictures.
    renders: PathBuf,
    classes: Arc<ClassSet>,
    grid: Grid,
}

impl Drawing {
    /// The run of `args` and the `others`, each on clip number `index` of the split, or on the middle one.
    ///
    /// # Errors
    /// As for [`run`].
    pub fn of(args: &model::Args, others: &[PathBuf], index: Option<usize>) -> Result<Drawing> {
        if !others.is_empty() && !["best", "last"].contains(&args.checkpoint.as_str()) {
            return Err(Error::Usage(
                "--checkpoint names a file of one run, but several are drawn; give best or last, or draw one run"
                    .into(),
            ));
        }
        let mut model = Model::open(args)?;
        let index = index.unwrap_or(model.dataset.len() / 2);
        let (data, split) = (Some(model.config.data.root.clone()), Some(model.dataset.split().folder().to_lowercase()));
        let (classes, grid, frames) =
            (model.dataset.classes().clone(), model.dataset.grid(), model.dataset.frames_per_clip());
        let clip = reconstruct(&mut model.inference, &model.dataset, index)?;
        let caption = format!(
            "{} preset, step {}, mIoU {} over these frames",
            model.config.train.preset.name(),
            thousands(model.step.into()),
            percent(miou(&clip))
        );
        let name = |run: &Path| {
            let run = std::path::absolute(run).unwrap_or_else(|_| run.to_path_buf());
            run.file_name().unwrap_or(run.as_os_str()).to_string_lossy().into_owned()
        };
        let mut captions = vec![format!("{}, mIoU {}", name(&args.run), percent(miou(&clip)))];
        let (context, about, renders) = (model.context.clone(), model.dataset.about(), model.folder.renders());
        let mut clips = vec![clip];
        for run in others {
            let args = model::Args {
                run: run.clone(),
                data: args.data.clone().or(data.clone()),
                split: split.clone(),
                ..args.clone()
            };
            let mut model = Model::open(&args)?;
            let same_size = (model.dataset.frames_per_clip(), model.dataset.grid().size) == (frames, grid.size);
            let clip = match same_size && index < model.dataset.len() {
                true => Some(reconstruct(&mut model.inference, &model.dataset, index)?),
                false => None,
            };
            let same = |clip: &ReconstructedClip| clip.truth == clips[0].truth && clip.observed == clips[0].observed;
            let Some(clip) = clip.filter(same) else {
                return Err(Error::Data(format!(
                    "{} sees other clips ({} frames of {:?} voxels) than the first run ({frames} of {:?}); compare runs with the same \
                     data.frames, crop, stride and sequences",
                    run.display(),
                    model.dataset.frames_per_clip(),
                    model.dataset.grid().size,
                    grid.size
                )));
            };
            captions.push(format!("{}, mIoU {}", name(run), percent(miou(&clip))));
            clips.push(clip);
        }
        Ok(Drawing { context, clips, captions, caption, about, renders, classes, grid })
    }

    /// Gives `draw` what there is to draw, of at most `rows` frames on a sheet.
    ///
    /// # Errors
    /// Those of `draw`.
    pub fn draw(
        &self,
        theme: Theme,
        safe_colors: bool,
        rows: usize,
        draw: impl FnOnce(&PictureInput<'_>) -> Result<()>,
    ) -> Result<()> {
        let (first, classes) = (&self.clips[0], &self.classes);
        let colors = if safe_colors { &classes.safe_colors } else { &classes.colors };
        let style = |(name, &color): (&String, &[u8; 3])| ClassStyle { name: name.clone(), color };
        let styles: Vec<ClassStyle> = classes.names.iter().zip(colors).map(style).collect();
        let compared = compared(&self.clips);
        let geometry = Geometry {
            handedness: classes.handedness,
            ..Geometry::new(self.grid.size, self.grid.voxel_size_m.map(|edge| edge as f32))
        };
        let title = format!("{}, {}", first.sequence, frames(first.first_frame, first.frame_step, first.frames));
        let seconds = first.times_secs.windows(2).next().map(|pair| (pair[1] - pair[0]) as f32);
        let several = self.clips.len() > 1;
        draw(&PictureInput {
            first_frame: first.first_frame,
            frame_step: first.frame_step,
            frame_interval_s: seconds.filter(|s| *s > 0.0),
            title: &title,
            caption: if several { "mIoU over these frames" } else { &self.caption },
            models: if several { &self.captions } else { &[] },
            theme,
            max_rows: rows,
            ..PictureInput::new(geometry, &compared, &styles)
        })
    }
}

/// The frames of one clip as each of `clips` has them.
fn compared(clips: &[ReconstructedClip]) -> Vec<ComparedFrame> {
    let first = &clips[0];
    let voxels: usize = first.size.iter().product();
    let frame = |t: usize| {
        let of = |labels: &[u8]| labels[t * voxels..(t + 1) * voxels].to_vec();
        ComparedFrame {
            original: of(&first.truth),
            reconstructions: clips.iter().map(|clip| of(&clip.labels)).collect(),
            observed: Some(first.observed[t * voxels..(t + 1) * voxels].to_vec()),
        }
    };
    (0..first.frames).map(frame).collect()
}

/// mIoU over all observed voxels of the clip.
fn miou(shown: &ReconstructedClip) -> Option<f64> {
    let mut total = shown.confusion.first()?.clone();
    shown.confusion.iter().skip(1).for_each(|frame| total.add(frame.counts()));
    total.miou()
}
