//! What leaves the window: screenshots, pictures and animations of what is seen, metrics as CSV.

use std::path::PathBuf;
use std::sync::mpsc::channel;

use eframe::egui::Context;
use image::RgbaImage;

use super::comparison::Comparison;
use super::jobs::Outcome;
use super::shown::{Reconstructed, Shown};
use super::state::State;
use super::view_camera::camera;
use super::{App, places};
use crate::figures::frames;
use crate::files::{make_folder, write_atomically};
use crate::train::events::StepMetrics;
use crate::train::metrics::{Evaluation, csv};
use crate::view::{Camera, ClassStyle, ComparedFrame, Headless, PictureInput, Theme, Visible, gif, save_png, sheet};
use crate::{Error, Result};

/// Width and height of each view in exported pictures, pixels.
const PANEL_PX: [u32; 2] = [640, 480];

/// All that a picture needs, apart from the window: it is drawn on a thread of its own.
pub(super) struct Picture {
    frames: Vec<ComparedFrame>,
    /// Headings of the models, if there are several.
    models: Vec<String>,
    classes: Vec<ClassStyle>,
    first_frame: usize,
    frame_step: usize,
    interval_s: Option<f32>,
    title: String,
    caption: String,
    theme: Theme,
    camera: Camera,
    visible: Visible,
    geometry: crate::view::Geometry,
}

impl Picture {
    /// The clip as it is seen now.
    pub(super) fn of(state: &State, theme: Theme) -> Result<Picture> {
        let nothing = || Error::Usage("there is no reconstruction to draw; open a run or train first".into());
        let shown = state.shown.as_ref().ok_or_else(nothing)?;
        let model = shown.model.as_ref().ok_or_else(nothing)?;
        let pair = |t: usize| ComparedFrame {
            original: shown.frame(&shown.truth, t).to_vec(),
            reconstructions: vec![state.model_labels(t).unwrap_or_default().to_vec()],
            observed: Some(shown.frame(&shown.observed, t).to_vec()),
        };
        let colors = shown.colors(state.view.safe_colors);
        let aspect = PANEL_PX[0] as f32 / PANEL_PX[1] as f32;
        Ok(Picture {
            frames: (0..shown.frames).map(pair).collect(),
            models: Vec::new(),
            classes: shown
                .classes
                .names
                .iter()
                .zip(colors)
                .map(|(name, &color)| ClassStyle { name: name.clone(), color })
                .collect(),
            first_frame: shown.first_frame,
            frame_step: shown.frame_step,
            interval_s: shown.frame_secs().map(|secs| secs as f32),
            title: format!("{}, {}", shown.sequence, frames(shown.first_frame, shown.frame_step, shown.frames)),
            caption: format!("step {}", crate::figures::thousands(model.step.into())),
            theme,
            camera: camera(&state.view, &shown.geometry(), shown.sensor_m(), aspect),
            visible: state.view.visible(shown.grid.size),
            geometry: shown.geometry(),
        })
    }

    /// The same with what `others` make of it, all under their `names`, the open model's first.
    pub(super) fn beside(mut self, shown: &Shown, others: &[&Reconstructed], names: Vec<String>) -> Picture {
        for (t, frame) in self.frames.iter_mut().enumerate() {
            frame.reconstructions.extend(others.iter().map(|other| shown.frame(&other.labels, t).to_vec()));
        }
        Picture { models: names, ..self }
    }

    pub(super) fn input(&self) -> PictureInput<'_> {
        PictureInput {
            models: &self.models,
            first_frame: self.first_frame,
            frame_step: self.frame_step,
            frame_interval_s: self.interval_s,
            title: &self.title,
            caption: &self.caption,
            theme: self.theme,
            panel_px: PANEL_PX,
            camera: Some(self.camera),
            visible: self.visible.clone(),
            ..PictureInput::new(self.geometry, &self.frames, &self.classes)
        }
    }
}

/// Where pictures go: into the run's folder, if one is open.
fn folder(state: &State) -> PathBuf {
    state.run.as_ref().map_or_else(|| places::folder("renders"), |run| run.join("renders"))
}

fn stem(shown: &Shown) -> String {
    format!("{}-{:06}", shown.sequence, shown.first_frame)
}

/// The first of `name.ext`, `name-2.ext`... that does not exist.
fn free(folder: &std::path::Path, name: &str, extension: &str) -> PathBuf {
    let numbered = |n: usize| {
        let number = if n == 1 { String::new() } else { format!("-{n}") };
        let suffix = if extension.is_empty() { String::new() } else { format!(".{extension}") };
        folder.join(format!("{name}{number}{suffix}"))
    };
    (1..).map(numbered).find(|path| !path.exists()).unwrap_or_else(|| numbered(1))
}

impl App {
    /// Saves a picture of the whole window.
    pub(super) fn take_screenshot(&mut self, context: &Context) {
        let folder = folder(&self.state);
        let (sender, taken) = channel();
        // The window may close before it has been drawn again; then nobody waits.
        context.request_screenshot(move |image| drop(sender.send(image)));
        self.state.jobs.start("saving the screenshot", move |_| {
            let failed = || Error::Device("the window gave no picture of itself; try again while it is visible".into());
            let image = taken.recv().map_err(|_| failed())?;
            let [width, height] = image.size.map(|side| side as u32);
            let bytes: Vec<u8> = image.pixels.iter().flat_map(|pixel| pixel.to_array()).collect();
            let image = RgbaImage::from_raw(width, height, bytes).ok_or_else(failed)?;
            let path = free(&folder, "window", "png");
            make_folder(&folder)?;
            save_png(&image, &path)?;
            Ok(Outcome::Written(path))
        });
    }

    /// Writes the clip as an animation of the three views.
    pub(super) fn export_gif(&mut self, theme: Theme) {
        self.export("drawing the GIF", "gif", theme, |picture, renderer, path, _| {
            gif(renderer, &picture.input(), path)
        });
    }

    /// Writes each frame of the clip as a picture of the three views.
    pub(super) fn export_frames(&mut self, theme: Theme) {
        self.export("drawing the frames", "", theme, |picture, renderer, path, progress| {
            make_folder(path)?;
            for t in 0..picture.frames.len() {
                progress.set(t, picture.frames.len());
                let input = picture.input();
                let number = picture.first_frame + t * picture.frame_step;
                let one = PictureInput { frames: &input.frames[t..=t], first_frame: number, ..input };
                save_png(&sheet(renderer, &one)?, &path.join(format!("{number:06}.png")))?;
            }
            Ok(())
        });
    }

    fn export(
        &mut self,
        what: &str,
        extension: &'static str,
        theme: Theme,
        draw: impl FnOnce(&Picture, &mut Headless, &std::path::Path, &super::jobs::Progress) -> Result<()> + Send + 'static,
    ) {
        let picture = match Picture::of(&self.state, theme) {
            Ok(picture) => picture,
            Err(why) => return self.state.notices.error(&why),
        };
        let (Some(gpu), Some(shown)) = (&self.gpu, &self.state.shown) else { return };
        let (device, queue) = (gpu.device.clone(), gpu.queue.clone());
        let folder = folder(&self.state);
        let path = free(&folder, &stem(shown), extension);
        self.state.jobs.start(what, move |progress| {
            make_folder(&folder)?;
            draw(&picture, &mut Headless::new(&device, &queue)?, &path, progress)?;
            Ok(Outcome::Written(path))
        });
    }

    /// Writes a page about the runs that are compared: the clip in view as each sees it, scores and curves.
    pub(super) fn export_comparison(&mut self, theme: Theme) {
        let comparison = match Comparison::of(&self.state, theme) {
            Ok(comparison) => comparison,
            Err(why) => return self.state.notices.error(&why),
        };
        let Some(gpu) = &self.gpu else { return };
        let (device, queue) = (gpu.device.clone(), gpu.queue.clone());
        let folder = folder(&self.state);
        let path = free(&folder, "comparison", "html");
        self.state.jobs.start("writing the comparison", move |_| {
            make_folder(&folder)?;
            comparison.write(&mut Headless::new(&device, &queue)?, &path)?;
            Ok(Outcome::Written(path))
        });
    }

    /// Writes all that the plots draw as two tables: steps and validations.
    pub(super) fn export_csv(&mut self) {
        let (history, folder) = (self.state.history.clone(), folder(&self.state));
        let names = self.state.shown.as_ref().map_or(Vec::new(), |shown| shown.classes.names.clone());
        self.state.jobs.start("writing the metrics", move |_| {
            make_folder(&folder)?;
            let steps = free(&folder, "steps", "csv");
            let rows = history.steps.iter().map(|metrics| format!("{},{}", metrics.step, metrics.csv()));
            let header = format!("step,{}", StepMetrics::columns());
            write_atomically(&steps, table(header, rows).as_bytes())?;
            let validations = free(&folder, "validations", "csv");
            let classes = names.iter().map(|name| format!(",iou_{}", name.to_lowercase().replace(' ', "_")));
            let header = format!("step,{}{}", Evaluation::COLUMNS, classes.collect::<String>());
            let rows = history.validations.iter().map(|v| format!("{},{}", v.step, scores(&v.evaluation)));
            write_atomically(&validations, table(header, rows).as_bytes())?;
            Ok(Outcome::Written(steps))
        });
    }
}

fn table(header: String, rows: impl Iterator<Item = String>) -> String {
    std::iter::once(header).chain(rows).map(|row| row + "\n").collect()
}

/// The numbers of an evaluation and the IoU of each class; nothing where there was nothing to score.
fn scores(evaluation: &Evaluation) -> String {
    format!("{},{}", evaluation.csv(), csv(evaluation.total.per_class.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::metrics::Scores;

    #[test]
    fn scores_that_do_not_exist_stay_empty() {
        let total = Scores { iou: Some(0.5), miou: None, per_class: vec![None, Some(0.25)] };
        assert_eq!(scores(&Evaluation { total, ..Evaluation::default() }), ",0.5,,,,0.25");
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(free(folder.path(), "clip", "gif"), folder.path().join("clip.gif"));
        std::fs::write(folder.path().join("clip.gif"), b"").unwrap();
        assert_eq!(free(folder.path(), "clip", "gif"), folder.path().join("clip-2.gif"));
        assert_eq!(free(folder.path(), "frames", ""), folder.path().join("frames"));
    }
}
