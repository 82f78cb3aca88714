//! Which runs a table or a figure needs.

use std::path::Path;

use crate::data::Grid;
use crate::data::synth::{Level, SynthOptions, grid};
use crate::train::config::{Preset, RunConfig};
use crate::{Error, Result};

/// The number of frames at which the paper compares fusions and encoders, and draws pictures.
pub(super) const COMPARED_AT: usize = 16;

/// A model with its settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// In names of folders.
    pub name: &'static str,
    /// In tables.
    pub title: &'static str,
    /// `key=value` each.
    settings: &'static [&'static str],
}

/// The paper's own knows no alignment: that is ours.
pub(super) static SEP4D: Variant =
    Variant { name: "sep4d", title: "SEP-4D (our reading)", settings: &["model.align=none"] };
pub(super) static DYNAMIC_CITY: Variant =
    Variant { name: "dynamic_city", title: "DynamicCity", settings: &["model.architecture=dynamic_city"] };
pub(super) static OCC_SORA: Variant =
    Variant { name: "occ_sora", title: "OccSora", settings: &["model.architecture=occ_sora"] };

/// Those of Table 1, the paper's own last.
pub(super) static SYSTEMS: [&Variant; 3] = [&OCC_SORA, &DYNAMIC_CITY, &SEP4D];

/// The fusions of Table 3 beside the paper's own.
pub(super) static FUSIONS: [Variant; 5] = [
    Variant { name: "sep4d-concat", title: "Concatenation", settings: &["model.align=none", "model.fusion=concat"] },
    Variant { name: "sep4d-conv1d", title: "Convolution", settings: &["model.align=none", "model.fusion=conv1d"] },
    Variant { name: "sep4d-mlp", title: "MLP", settings: &["model.align=none", "model.fusion=mlp"] },
    Variant { name: "sep4d-averaging", title: "Averaging", settings: &["model.align=none", "model.fusion=averaging"] },
    Variant {
        name: "sep4d-dynamic",
        title: "Dynamic weighting",
        settings: &["model.align=none", "model.fusion=dynamic"],
    },
];

/// The encoders of Table 4 beside the paper's own, and a control that it has not.
pub(super) static ENCODERS: [Variant; 2] = [
    Variant {
        name: "sep4d-conv3d_se",
        title: "3D convolutions and SE",
        settings: &["model.align=none", "model.encoder=conv3d_se"],
    },
    Variant {
        name: "sep4d-bev",
        title: "Map from above a frame (control)",
        settings: &["model.align=none", "model.encoder=bev"],
    },
];

/// Features as narrow as the latent, as the paper can be read too.
pub(super) static NARROW: Variant = Variant {
    name: "sep4d-narrow",
    title: "SEP-4D, features as narrow as the latent",
    settings: &["model.features=0", "model.align=none"],
};
static NARROW_ALIGNED: Variant = Variant {
    name: "sep4d-narrow-aligned",
    title: "SEP-4D, narrow, frames aligned by pose",
    settings: &["model.features=0", "model.align=pose"],
};
/// What the ablation is about.
pub(super) static ALIGNED: Variant =
    Variant { name: "sep4d-aligned", title: "SEP-4D, frames aligned by pose", settings: &["model.align=pose"] };

/// A table or a figure of the paper, or what we add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Study {
    /// The three systems at five lengths.
    Table1,
    /// The same by class.
    Table2,
    /// Fusions.
    Table3,
    /// Encoders.
    Table4,
    /// Pictures.
    Figure3,
    /// Convergence.
    Figure4,
    /// Accuracy and time.
    Figure5,
    /// What width and alignment are worth beside frames coded one by one.
    Ablation,
}

impl Study {
    /// Those of the paper, in its order.
    pub const OF_THE_PAPER: [Study; 7] =
        [Study::Table1, Study::Table2, Study::Table3, Study::Table4, Study::Figure3, Study::Figure4, Study::Figure5];

    /// On the command line.
    pub fn name(self) -> &'static str {
        match self {
            Study::Table1 => "table1",
            Study::Table2 => "table2",
            Study::Table3 => "table3",
            Study::Table4 => "table4",
            Study::Figure3 => "figure3",
            Study::Figure4 => "figure4",
            Study::Figure5 => "figure5",
            Study::Ablation => "ablation",
        }
    }

    /// Whether it draws on this run.
    pub fn has(self, run: &Run) -> bool {
        let (variants, frames) = self.compares(&Scale::FRAMES);
        variants.contains(&run.variant) && frames.contains(&run.frames)
    }

    /// The models that it compares, the paper's own last, and the numbers of frames among `frames` at which it does.
    pub(super) fn compares(self, frames: &[usize]) -> (Vec<&'static Variant>, Vec<usize>) {
        let among = |wanted: &[usize]| frames.iter().copied().filter(|t| wanted.contains(t)).collect();
        match self {
            Study::Table1 => (SYSTEMS.to_vec(), frames.to_vec()),
            Study::Table2 => (SYSTEMS.to_vec(), among(&[8, 16, 32, 64])),
            Study::Table3 => (FUSIONS.iter().chain([&SEP4D]).collect(), among(&[COMPARED_AT])),
            Study::Table4 => (ENCODERS.iter().chain([&SEP4D]).collect(), among(&[COMPARED_AT])),
            Study::Figure3 => (SYSTEMS.to_vec(), among(&[COMPARED_AT])),
            Study::Figure4 => (vec![&DYNAMIC_CITY, &SEP4D], among(&[4, 8])),
            Study::Figure5 => (vec![&DYNAMIC_CITY, &SEP4D], frames.to_vec()),
            Study::Ablation => {
                let [conv3d_se, bev] = &ENCODERS;
                (vec![&NARROW, &NARROW_ALIGNED, &SEP4D, conv3d_se, bev, &ALIGNED], among(&[4, 8, 16]))
            }
        }
    }
}

/// How large the runs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Minutes on two cores: that everything works.
    Tiny,
    /// Hours on two cores: small towns, small models.
    Small,
    /// The paper's.
    Paper,
}

impl Scale {
    /// On the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scale::Tiny => "tiny",
            Scale::Small => "small",
            Scale::Paper => "paper",
        }
    }

    /// The numbers of frames of a clip.
    pub const FRAMES: [usize; 5] = [4, 8, 16, 32, 64];

    /// Runs of each model that differ in their seed.
    fn seeds(self, frames: usize) -> u64 {
        match self {
            Scale::Tiny if frames > 8 => 1,
            Scale::Tiny => 2,
            Scale::Small if frames > COMPARED_AT => 1,
            Scale::Small | Scale::Paper => 3,
        }
    }

    fn preset(self) -> Preset {
        match self {
            Scale::Tiny => Preset::Tiny,
            Scale::Small => Preset::Demo,
            Scale::Paper => Preset::Paper,
        }
    }

    /// Settings of all runs, `key=value` each.
    fn settings(self) -> &'static [&'static str] {
        match self {
            Scale::Tiny => &[
                "train.steps=20",
                "train.validate_every=10",
                "train.checkpoint_every=10",
                "data.validation_clips=2",
                "train.log_every=2",
            ],
            Scale::Small => &["train.steps=1000", "train.validate_every=100", "train.checkpoint_every=100"],
            Scale::Paper => &[],
        }
    }

    /// Clips of the test split that are scored, evenly spaced; 0 for all.
    pub fn scored_clips(self) -> usize {
        if self == Scale::Tiny { 4 } else { 0 }
    }

    /// The towns that are generated where no data set is given; the paper's scale has none.
    ///
    /// # Errors
    /// As [`grid`].
    pub fn towns(self) -> Result<Option<SynthOptions>> {
        let options = |grid: Grid, frames, towns, levels: &[Level]| {
            Some(SynthOptions { grid, seed: 0, frames, towns, levels: levels.to_vec() })
        };
        Ok(match self {
            Scale::Tiny => options(grid([16, 16, 8], [1.6, 1.6, 0.375])?, 68, [2, 1, 1], &[Level::Light]),
            Scale::Small => options(grid([32, 32, 8], [0.8, 0.8, 0.375])?, 80, [8, 1, 1], &Level::ALL),
            Scale::Paper => None,
        })
    }
}

impl std::str::FromStr for Scale {
    type Err = Error;

    fn from_str(name: &str) -> Result<Scale> {
        let found = [Scale::Tiny, Scale::Small, Scale::Paper].into_iter().find(|scale| scale.name() == name);
        found.ok_or_else(|| Error::Usage(format!("there is no scale {name:?}; choose tiny, small or paper")))
    }
}

/// One training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The model.
    pub variant: &'static Variant,
    /// T, frames of a clip.
    pub frames: usize,
    /// Its seed.
    pub seed: u64,
}

impl Run {
    /// The name of its folder.
    pub fn name(&self) -> String {
        format!("{}-t{}-seed{}", self.variant.name, self.frames, self.seed)
    }

    /// Its configuration, with `set` on top for what all runs have in common.
    ///
    /// # Errors
    /// [`Error::Usage`] for a wrong setting.
    pub fn config(&self, scale: Scale, data: &Path, set: &[String]) -> Result<RunConfig> {
        let own = [format!("data.frames={}", self.frames), format!("train.seed={}", self.seed)];
        let settings = self.variant.settings.iter().chain(scale.settings()).map(|pair| (*pair).to_owned());
        let settings: Vec<String> = settings.chain(own).chain(set.iter().cloned()).collect();
        let mut config = RunConfig::resolve(Some(scale.preset()), None, &settings)?;
        config.data.root = data.to_path_buf();
        Ok(config)
    }
}

/// The runs of `studies`, each once, in an order that has every model with the first seed before any with the second; `seeds`
/// replaces the scale's number of seeds.
pub fn runs(studies: &[Study], scale: Scale, seeds: Option<u64>) -> Vec<Run> {
    let mut pairs: Vec<(usize, &'static Variant)> = Vec::new();
    for study in studies {
        let (variants, frames) = study.compares(&Scale::FRAMES);
        for pair in frames.iter().flat_map(|&t| variants.iter().map(move |&variant| (t, variant))) {
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
    }
    // The order of the studies stays within a number of frames.
    pairs.sort_by_key(|(frames, _)| *frames);
    let most = seeds.unwrap_or_else(|| scale.seeds(Scale::FRAMES[0]));
    let of_seed = |seed| {
        let counts = pairs.iter().filter(move |(frames, _)| seed < seeds.unwrap_or_else(|| scale.seeds(*frames)));
        counts.map(move |&(frames, variant)| Run { variant, frames, seed })
    };
    (0..most).flat_map(of_seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_studies_share_is_trained_once() {
        let all = runs(&Study::OF_THE_PAPER, Scale::Small, None);
        // 15 systems, 5 fusions and 2 encoders; three seeds up to 16 frames.
        assert_eq!(all.len(), 9 * 3 + 6 + 5 * 3 + 2 * 3);
        let mut names: Vec<String> = all.iter().map(Run::name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        assert_eq!(runs(&[Study::Table2], Scale::Paper, Some(1)).len(), 4 * 3);
        assert!(all.windows(2).all(|pair| pair[0].seed <= pair[1].seed));
        assert_eq!(all[0].name(), "occ_sora-t4-seed0");
    }

    #[test]
    fn runs_differ_in_what_they_compare_and_in_nothing_else() {
        let config = |run: &Run| run.config(Scale::Small, Path::new("data"), &["train.steps=7".into()]).unwrap();
        for run in
            runs(&Study::OF_THE_PAPER, Scale::Small, Some(1)).iter().filter(|run| run.variant.name.starts_with("sep4d"))
        {
            let ours = Run { variant: &SEP4D, ..run.clone() };
            let (config, usual) = (config(run), config(&ours));
            assert_eq!((&config.data, &config.train), (&usual.data, &usual.train));
            assert_eq!((config.train.steps, config.data.frames), (7, run.frames));
            assert_eq!(config.model == usual.model, run.variant == &SEP4D, "{}", run.name());
        }
    }
}
