//! One safetensors file with its metadata and checksum.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use crate::files::{read_at_most, write_atomically};
use crate::train::session::NamedTensor;
use crate::{Error, Result};

/// Version of the files' layout.
pub const FORMAT_VERSION: &str = "1";

/// No file has more bytes; the widest model has a few GiB.
const LARGEST_FILE: u64 = 32 << 30;

/// `entries` with format version and checksum; also returns the checksum.
pub(super) fn complete_metadata(
    entries: &[(&str, String)],
    tensors: &[NamedTensor],
) -> (HashMap<String, String>, String) {
    let mut metadata: HashMap<String, String> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    metadata.insert("format_version".into(), FORMAT_VERSION.into());
    let checksum = checksum(&metadata, tensors);
    metadata.insert("checksum".into(), checksum.clone());
    (metadata, checksum)
}

/// FNV-1a over the metadata and over names, shapes and values, each in order of the names.
fn checksum(metadata: &HashMap<String, String>, tensors: &[NamedTensor]) -> String {
    let mut entries: Vec<(&String, &String)> = metadata.iter().filter(|(key, _)| *key != "checksum").collect();
    entries.sort();
    let mut order: Vec<&NamedTensor> = tensors.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut feed = |word: u64| hash = (hash ^ word).wrapping_mul(0x100_0000_01B3);
    for (key, value) in entries {
        key.bytes().chain(value.bytes()).for_each(|byte| feed(u64::from(byte)));
    }
    for tensor in order {
        tensor.name.bytes().for_each(|byte| feed(u64::from(byte)));
        tensor.shape.iter().for_each(|&side| feed(side as u64));
        tensor.values.iter().for_each(|value| feed(u64::from(value.to_bits())));
    }
    format!("{hash:016x}")
}

pub(super) fn write_tensors(path: &Path, tensors: &[NamedTensor], metadata: HashMap<String, String>) -> Result<()> {
    let wrong = |why: safetensors::SafeTensorError| Error::Data(format!("{} cannot be written: {why}", path.display()));
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|(tensor, bytes)| Ok((tensor.name.as_str(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(wrong)?;
    write_atomically(path, &serialize(views, Some(metadata)).map_err(wrong)?)
}

/// A safetensors file of ours: f32 tensors in order of their names, and the metadata.
pub(super) struct TensorFile {
    path: PathBuf,
    pub(super) metadata: HashMap<String, String>,
    pub(super) tensors: Vec<NamedTensor>,
}

impl TensorFile {
    pub(super) fn load(path: &Path) -> Result<TensorFile> {
        let bytes = read_at_most(path, LARGEST_FILE)?;
        let damaged = |why: safetensors::SafeTensorError| {
            Error::Data(format!(
                "{} is no whole safetensors file ({why}): it is damaged or cut off; restore it",
                path.display()
            ))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        match metadata.get("format_version").map(String::as_str) {
            Some(FORMAT_VERSION) => {}
            Some(other) => {
                return Err(Error::Data(format!(
                    "{} has format version {other:?}, but this program reads {FORMAT_VERSION}; use the sep4d that wrote it",
                    path.display()
                )));
            }
            None => {
                return Err(Error::Data(format!(
                    "{} was not written by sep4d: its metadata has no format_version; choose a checkpoint of sep4d",
                    path.display()
                )));
            }
        }
        let mut tensors = Vec::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(damaged)?.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(Error::Data(format!(
                    "{} has {name} as {:?}, but every tensor must be F32; convert it",
                    path.display(),
                    view.dtype()
                )));
            }
            let values = view.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
            tensors.push(NamedTensor { name, shape: view.shape().to_vec(), values });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(TensorFile { path: path.to_path_buf(), metadata, tensors })
    }

    pub(super) fn text(&self, key: &str) -> Result<&str> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| {
            Error::Data(format!(
                "{} has no {key} in its metadata, so it is no sep4d model; choose a step-NNNNNNNN.safetensors",
                self.path.display()
            ))
        })
    }

    pub(super) fn number<N: std::str::FromStr>(&self, key: &str) -> Result<N> {
        let text = self.text(key)?;
        text.parse().map_err(|_| {
            Error::Data(format!(
                "{} has {text:?} as {key} in its metadata, which is no number; restore it",
                self.path.display()
            ))
        })
    }

    pub(super) fn verified_checksum(&self) -> Result<String> {
        let checksum = checksum(&self.metadata, &self.tensors);
        if self.text("checksum")? == checksum {
            return Ok(checksum);
        }
        Err(Error::Data(format!(
            "{} is damaged: its contents do not match their checksum; restore it",
            self.path.display()
        )))
    }
}
