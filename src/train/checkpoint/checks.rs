//! Whether tensors are those of a model, and numbers at all.

use std::path::Path;

use crate::train::session::NamedTensor;
use crate::{Error, Result};

/// Checks that `have` holds the tensors of `expected`: the same names and shapes.
///
/// # Errors
/// [`Error::Data`] naming the file and the first tensor that is missing, foreign or of another shape.
pub fn conform(have: &[NamedTensor], expected: &[NamedTensor], path: &Path) -> Result<()> {
    match expected.iter().find(|tensor| !have.iter().any(|other| other.name == tensor.name)) {
        Some(missing) => Err(Error::Data(format!(
            "{} lacks the tensor {}; it belongs to another model, so choose the checkpoint of this one",
            path.display(),
            missing.name
        ))),
        None => belong(have, expected, path),
    }
}

/// Checks that the tensors of `have` are among those of `expected`.
///
/// # Errors
/// [`Error::Data`] naming the file and the first tensor that is foreign or of another shape.
pub(super) fn belong(have: &[NamedTensor], expected: &[NamedTensor], path: &Path) -> Result<()> {
    let path = path.display();
    for tensor in have {
        match expected.iter().find(|other| other.name == tensor.name) {
            None => {
                return Err(Error::Data(format!(
                    "{path} has the tensor {}, which this model does not have; choose the checkpoint of this model",
                    tensor.name
                )));
            }
            Some(other) if other.shape != tensor.shape => {
                return Err(Error::Data(format!(
                    "{path} has {} as {:?}, but the model needs {:?}; use the model.* values, T and grid that it was \
                     trained with",
                    tensor.name, tensor.shape, other.shape
                )));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The first tensor that has NaN or infinity.
pub fn first_not_finite<'a>(tensors: impl IntoIterator<Item = &'a NamedTensor>) -> Option<&'a NamedTensor> {
    tensors.into_iter().find(|tensor| tensor.values.iter().any(|value| !value.is_finite()))
}

/// Checks that no value is NaN or infinite.
///
/// # Errors
/// [`Error::NonFinite`] naming the file and the first tensor that has such a value.
pub fn check_finite<'a>(tensors: impl IntoIterator<Item = &'a NamedTensor>, path: &Path) -> Result<()> {
    match first_not_finite(tensors) {
        Some(tensor) => Err(Error::NonFinite(format!(
            "{} has NaN or infinity in {}; use an earlier checkpoint, with a lower train.learning_rate or with \
             train.clip_norm, or start a new run",
            path.display(),
            tensor.name
        ))),
        None => Ok(()),
    }
}
