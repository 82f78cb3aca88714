//! Where a run ran, and what it was scored on.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Grid, Split};
use crate::graph::Tuning;

/// Where a run, or its continuation, ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of this program.
    pub version: String,
    /// Operating system and architecture.
    pub system: String,
    /// CPU cores available.
    pub cores: usize,
    /// Name of the adapter.
    pub adapter: String,
    /// Vulkan, Metal, D3D12...
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Variants of kernels that were chosen for it.
    #[serde(default)]
    pub tuning: Tuning,
    /// The command line.
    pub command_line: Vec<String>,
    /// When it started, seconds since 1970 (UTC).
    pub started_unix_secs: u64,
    /// Steps done before.
    pub from_step: u32,
    /// What the model is scored on; `None` without validations, and of versions that did not tell.
    #[serde(default)]
    pub scored_on: Option<ScoredOn>,
}

/// What tells the held-out clips of one data set from those of another, wherever it lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredOn {
    /// The grid of the clips.
    pub grid: Grid,
    /// The split.
    pub split: Split,
    /// How many clips it has.
    pub clips: usize,
    /// Its sequences.
    pub sequences: Vec<String>,
}

impl ScoredOn {
    /// What tells `set` from others.
    pub fn of(set: &Dataset) -> ScoredOn {
        let sequences = set.sequences().map(|(name, _)| name.to_owned()).collect();
        ScoredOn { grid: set.grid(), split: set.split(), clips: set.len(), sequences }
    }
}

impl fmt::Display for ScoredOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ScoredOn { grid, split, clips, sequences } = self;
        let [[x, y, z], [dx, dy, dz]] = [grid.size.map(|side| side as f64), grid.voxel_size_m];
        let first = sequences.first().map_or("", String::as_str);
        write!(f, "{clips} clips of {} ({first}...), {x}x{y}x{z} voxels of {dx}x{dy}x{dz} m", split.folder())
    }
}
