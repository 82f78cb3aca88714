//! One safetensors file with its metadata and checksum.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use sha2::{Digest, Sha256};

use crate::files::{read_at_most, write_atomically};
use crate::train::session::NamedTensor;
use crate::{Error, Result};

/// Version of the files' layout.
pub const FORMAT_VERSION: &str = "1";

/// Hexadecimal digits of a checksum of earlier versions.
const EARLIER_DIGITS: usize = 16;

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

/// SHA-256 over the metadata and over names, shapes and values, each in order of the names: the bytes that
/// docs/checkpoint.md lists.
fn checksum(metadata: &HashMap<String, String>, tensors: &[NamedTensor]) -> String {
    let (entries, tensors) = in_order(metadata, tensors);
    let mut hash = Sha256::new();
    let text = |hash: &mut Sha256, text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for (key, value) in entries {
        text(&mut hash, key);
        text(&mut hash, value);
    }
    for tensor in tensors {
        text(&mut hash, &tensor.name);
        hash.update((tensor.shape.len() as u64).to_le_bytes());
        tensor.shape.iter().for_each(|&side| hash.update((side as u64).to_le_bytes()));
        tensor.values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What files of earlier versions have instead: the steps of 64-bit FNV-1a, each fed a byte of a text, a side or a value.
fn earlier_checksum(metadata: &HashMap<String, String>, tensors: &[NamedTensor]) -> String {
    let (entries, tensors) = in_order(metadata, tensors);
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut feed = |word: u64| hash = (hash ^ word).wrapping_mul(0x100_0000_01B3);
    for (key, value) in entries {
        key.bytes().chain(value.bytes()).for_each(|byte| feed(u64::from(byte)));
    }
    for tensor in tensors {
        tensor.name.bytes().for_each(|byte| feed(u64::from(byte)));
        tensor.shape.iter().for_each(|&side| feed(side as u64));
        tensor.values.iter().for_each(|value| feed(u64::from(value.to_bits())));
    }
    format!("{hash:016x}")
}

/// What a checksum is taken of, in order of the names.
fn in_order<'a>(
    metadata: &'a HashMap<String, String>,
    tensors: &'a [NamedTensor],
) -> (Vec<(&'a String, &'a String)>, Vec<&'a NamedTensor>) {
    let mut entries: Vec<(&String, &String)> = metadata.iter().filter(|(key, _)| *key != "checksum").collect();
    entries.sort();
    let mut tensors: Vec<&NamedTensor> = tensors.iter().collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    (entries, tensors)
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
        let told = self.text("checksum")?;
        let checksum = if told.len() == EARLIER_DIGITS { earlier_checksum } else { checksum };
        if checksum(&self.metadata, &self.tensors) == told {
            return Ok(told.to_owned());
        }
        Err(Error::Data(format!(
            "{} is damaged: its contents do not match their checksum; restore it",
            self.path.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (HashMap<String, String>, Vec<NamedTensor>) {
        let metadata = [("step", "3"), ("config", "é"), ("checksum", "not part of it")];
        let tensor = |name: &str, shape: &[usize], values: &[f32]| NamedTensor {
            name: name.into(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        let tensors = vec![tensor("b", &[2, 1], &[1.0, -2.5]), tensor("a", &[], &[0.0])];
        (metadata.map(|(key, value)| (key.into(), value.into())).into(), tensors)
    }

    /// The figures are those of the Python lines in docs/checkpoint.md and of Python's `hashlib`.
    #[test]
    fn another_program_can_compute_the_checksums() {
        let (metadata, tensors) = example();
        assert_eq!(checksum(&metadata, &tensors), "2103e5868e50e5c9398efe37f7a9e742b32bc4dff016aac816d23693560a8be2");
        assert_eq!(earlier_checksum(&metadata, &tensors), "98f566a387c45d66");
    }

    #[test]
    fn a_file_of_an_earlier_version_loads_and_its_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let (mut metadata, tensors) = example();
        metadata.insert("format_version".into(), FORMAT_VERSION.into());
        metadata.insert("checksum".into(), earlier_checksum(&metadata, &tensors));
        write_tensors(&path, &tensors, metadata.clone()).unwrap();
        TensorFile::load(&path).unwrap().verified_checksum().unwrap();
        metadata.insert("step".into(), "4".into());
        write_tensors(&path, &tensors, metadata).unwrap();
        let why = TensorFile::load(&path).unwrap().verified_checksum().unwrap_err();
        assert!(why.to_string().contains("do not match their checksum"), "{why}");
    }
}
