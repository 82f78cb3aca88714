//! What a model is asked for while it is trained or shown: reconstructions, decoded latents, scores.

use std::time::Instant;

use super::Port;
use crate::data::Dataset;
use crate::train::events::{DecodeRequest, Event, ValidationMetrics};
use crate::train::inference::Inference;
use crate::train::validation;
use crate::{Error, Result};

/// What the model makes of clip `index`; `None`, and a warning, if there is no such clip.
///
/// # Errors
/// [`Error::Device`] or [`Error::Memory`] if the device failed.
pub(super) fn reconstruct(
    model: &mut Inference,
    set: &Dataset,
    index: usize,
    port: &mut Port,
) -> Result<Option<Event>> {
    let answer = validation::reconstruct(model, set, index);
    Ok(answered(answer, port)?.map(|clip| Event::Reconstruction(Box::new(clip))))
}

/// Tells what latents mean.
///
/// # Errors
/// As for [`reconstruct`].
pub(super) fn decode(model: &mut Inference, request: &DecodeRequest, port: &mut Port) -> Result<()> {
    if let Some(clip) = answered(validation::decode(model, request), port)? {
        port.tell(Event::Decoded(Box::new(clip)));
    }
    Ok(())
}

/// A wrong question or an unreadable file ends neither a run nor a show.
fn answered<A>(answer: Result<A>, port: &mut Port) -> Result<Option<A>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Usage(why) | Error::Data(why) | Error::Unreadable(why) | Error::Shape(why)) => {
            port.tell(Event::Warning(why));
            Ok(None)
        }
        Err(why) => Err(why),
    }
}

/// Scores `clips`; `None` if the trainer is told to stop meanwhile.
///
/// # Errors
/// As for [`validation::evaluate`].
pub(super) fn validate(
    model: &mut Inference,
    set: &Dataset,
    clips: &[usize],
    port: &mut Port,
) -> Result<Option<ValidationMetrics>> {
    let start = Instant::now();
    let tally = validation::evaluate(model, set, clips, |_| !port.stop_wanted())?;
    Ok(tally.map(|tally| ValidationMetrics {
        step: model.steps(),
        seconds: start.elapsed().as_secs_f64(),
        is_best: false,
        evaluation: tally.evaluation(),
        confusion: tally.total().clone(),
        clips: tally.clips().to_vec(),
    }))
}
