//! A trained model shown on the trainer's thread: it answers questions until it is told to stop, and writes nothing.

use std::path::Path;

use super::prepare::open_split;
use super::{MOST_LOSSES, Port, Request, serve};
use crate::data::Dataset;
use crate::gpu::Context;
use crate::models::BatchShape;
use crate::train::checkpoint::{Weights, check_finite, conform};
use crate::train::events::{Command, Event, Finished, Preparing, Showing};
use crate::train::inference::Inference;
use crate::train::validation::evenly_spaced;
use crate::{Error, Result};

/// A model on the host and the clips it is shown on.
struct Show {
    weights: Weights,
    set: Dataset,
}

/// Shows the model of `checkpoint` until the trainer is told to stop.
///
/// # Errors
/// What keeps it from being shown, or the device's third failure.
pub(super) fn show(request: &Request, checkpoint: &Path, port: &mut Port) -> Result<Finished> {
    port.tell(Event::Preparing(Preparing::new("reading the model and the data set")));
    let mut weights = Weights::load(checkpoint)?;
    check_finite(&weights.parameters, checkpoint)?;
    let (config, asked) = (&mut weights.config, &request.config);
    if !asked.data.root.as_os_str().is_empty() {
        config.data.root.clone_from(&asked.data.root);
    }
    config.data.val_split = asked.data.val_split;
    config.train.device.clone_from(&asked.train.device);
    config.validate()?;
    let set = open_split(config, false)?;
    for warning in set.warnings() {
        port.tell(Event::Warning(warning.clone()));
    }
    let show = Show { weights, set };
    let step = show.weights.step;
    let mut model = show.build(port)?;
    conform(&show.weights.parameters, &model.export()?, checkpoint)?;
    port.tell(Event::Showing(Showing {
        folder: request.place.known().map(Path::to_path_buf).unwrap_or_default(),
        checkpoint: checkpoint.to_path_buf(),
        step,
        adapter: model.context().adapter.name.clone(),
        parameters: model.preflight().parameters,
        peak_bytes: model.preflight().peak_bytes,
        clips: show.set.len(),
        frames: show.set.frames_per_clip(),
        size: show.set.grid().size,
        grid: show.set.grid(),
        classes: show.set.classes().clone(),
    }));
    port.mention(Event::Memory {
        planned_bytes: model.preflight().peak_bytes as u64,
        used_bytes: model.context().memory_use().map(|memory| memory.allocated_bytes),
    });
    let mut losses = 0;
    loop {
        match show.serve(&mut model, port) {
            Err(why @ (Error::Device(_) | Error::Memory(_))) if losses + 1 < MOST_LOSSES => {
                losses += 1;
                drop(model);
                model = show.build(port)?;
                port.tell(Event::Recovered { step, why: why.to_string() });
            }
            end => return end.map(|()| Finished { step, stopped: true, best: None, checkpoint: None }),
        }
    }
}

impl Show {
    fn build(&self, port: &mut Port) -> Result<Inference> {
        let config = &self.weights.config;
        let context = Context::open(&config.device())?;
        let shape = BatchShape { batch: 1, frames: config.data.frames, size: self.set.grid().size };
        let mut model = Inference::new(&context, &config.model, &shape)?;
        // A stop that is wanted meanwhile is obeyed before the first answer.
        port.build(&context, &model.preflight().kernels)?;
        model.import(&self.weights.parameters, self.weights.step)?;
        Ok(model)
    }

    /// Answers until it is told to stop.
    fn serve(&self, model: &mut Inference, port: &mut Port) -> Result<()> {
        loop {
            port.listen(true);
            if port.closed {
                return Ok(());
            }
            let Some(command) = port.pending.pop_front() else { continue };
            match command {
                Command::Stop => return Ok(()),
                Command::Reconstruct { clip } => {
                    if let Some(event) = serve::reconstruct(model, &self.set, clip, port)? {
                        port.tell(event);
                    }
                }
                Command::Decode(request) => serve::decode(model, &request, port)?,
                Command::Validate => {
                    let clips = evenly_spaced(self.set.len(), self.weights.config.data.validation_clips);
                    if let Some(metrics) = serve::validate(model, &self.set, &clips, port)? {
                        port.tell(Event::Validation(metrics));
                    }
                }
                Command::Pause | Command::Resume | Command::Step | Command::Save => {
                    port.tell(Event::Warning("this model is only shown; to train it, resume its run".into()));
                }
                #[cfg(test)]
                Command::LoseDevice => model.context().device.destroy(),
            }
        }
    }
}
