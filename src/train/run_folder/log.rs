//! The metrics of a run: `metrics.jsonl`, and the same as a table, `metrics.csv`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{cause, unwritable, write_atomically};
use crate::train::events::{StepMetrics, ValidationMetrics};
use crate::train::metrics::Evaluation;
use crate::{Error, Result};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Row {
    /// A training step.
    Step(StepMetrics),
    /// A validation.
    Validation(ValidationMetrics),
}

impl Row {
    pub(super) fn step(&self) -> u32 {
        match self {
            Row::Step(metrics) => metrics.step,
            Row::Validation(metrics) => metrics.step,
        }
    }

    fn csv(&self) -> String {
        match self {
            Row::Step(metrics) => format!("{},step,{},{}", metrics.step, metrics.csv(), Evaluation::default().csv()),
            Row::Validation(m) => {
                let none = ",".repeat(StepMetrics::columns().split(',').count());
                format!("{},validation,{none}{}", m.step, m.evaluation.csv())
            }
        }
    }
}

/// The metrics of a run so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Those of the steps that were logged.
    pub steps: Vec<StepMetrics>,
    /// Those of the validations.
    pub validations: Vec<ValidationMetrics>,
}

/// Columns of `metrics.csv`; those that a row does not have are empty.
fn csv_header() -> String {
    format!("step,kind,{},{}", StepMetrics::columns(), Evaluation::COLUMNS)
}

/// `metrics.jsonl` and `metrics.csv`, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    jsonl: (File, PathBuf),
    csv: (File, PathBuf),
    /// Seconds of training up to the last step in it when it was opened.
    pub elapsed_secs: f64,
}

impl MetricsLog {
    /// Writes both files in `folder` anew with these rows, and leaves them open.
    ///
    /// # Errors
    /// [`Error::Data`] if they cannot be written.
    pub(super) fn write(folder: &Path, rows: &[Row]) -> Result<MetricsLog> {
        let (mut lines, mut table) = (String::new(), csv_header() + "\n");
        for row in rows {
            lines += &json_line(row)?;
            table += &(row.csv() + "\n");
        }
        let open = |name: &str, text: &str| -> Result<(File, PathBuf)> {
            let path = folder.join(name);
            write_atomically(&path, text.as_bytes())?;
            let file = OpenOptions::new().append(true).open(&path);
            Ok((file.map_err(|why| unwritable(&path, &why))?, path))
        };
        let elapsed_secs = rows.iter().rev().find_map(|row| match row {
            Row::Step(metrics) => Some(metrics.elapsed_secs),
            Row::Validation(_) => None,
        });
        let (jsonl, csv) = (open("metrics.jsonl", &lines)?, open("metrics.csv", &table)?);
        Ok(MetricsLog { jsonl, csv, elapsed_secs: elapsed_secs.unwrap_or(0.0) })
    }

    /// Appends a row to both files.
    ///
    /// # Errors
    /// [`Error::Data`] if they cannot be written.
    pub fn append(&mut self, row: &Row) -> Result<()> {
        let lines = [json_line(row)?, row.csv() + "\n"];
        for ((file, path), line) in [&mut self.jsonl, &mut self.csv].into_iter().zip(lines) {
            file.write_all(line.as_bytes()).map_err(|why| {
                Error::Data(format!("cannot write {}: {}; free some space, then --resume", path.display(), cause(&why)))
            })?;
        }
        Ok(())
    }
}

pub(super) fn json_line(row: &Row) -> Result<String> {
    let line = serde_json::to_string(row).map_err(|why| Error::Data(format!("metrics cannot be written: {why}")))?;
    Ok(line + "\n")
}
