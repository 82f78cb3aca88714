//! What both Rust sides of `compare.py` share: requests and files. `README.md` documents them.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

/// What goes wrong ends up as one sentence in an answer.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One line of standard input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Prepares a convolution of kernel 3.
    Conv3d { folder: PathBuf, inputs: usize, outputs: usize, size: [usize; 3] },
    /// Prepares a training step of a model; `precision` is that of our activations.
    Step { folder: PathBuf, preset: String, frames: usize, size: [usize; 3], architecture: String, precision: String },
    /// Runs a part of what was prepared.
    Time { part: String, repeat: usize },
}

/// Answers every request with a line of JSON until standard input ends.
pub fn serve(mut obey: impl FnMut(Request) -> Result<Value>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(Into::into)
            .and_then(&mut obey)
            .unwrap_or_else(|why| json!({ "error": why.to_string() }));
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.f32"))
}

/// Writes a tensor.
pub fn write(folder: &Path, name: &str, values: &[f32]) -> Result<()> {
    Ok(std::fs::write(path(folder, name), bytemuck::cast_slice(values))?)
}

/// Reads a tensor.
pub fn read(folder: &Path, name: &str) -> Result<Vec<f32>> {
    Ok(bytemuck::pod_collect_to_vec(&std::fs::read(path(folder, name))?))
}

/// `|a - b| / |b|`, NaN where the lengths differ.
pub fn relative(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b)))
}
