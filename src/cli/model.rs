//! A trained model with the data it is to see, for `eval`, `export` and `render`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sep4d::data::{Dataset, Split};
use sep4d::figures::shell_quoted;
use sep4d::gpu::Context;
use sep4d::models::{ALIGN, BY_POSES};
use sep4d::train::checkpoint::Weights;
use sep4d::train::config::RunConfig;
use sep4d::train::inference::Inference;
use sep4d::train::run_folder::RunFolder;
use sep4d::{Error, Result};

use super::output::tell;

/// Options that choose a model, its data and the adapter.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Run folder
    pub run: PathBuf,
    /// Which checkpoint: best, last, or a file
    #[arg(long, default_value = "best")]
    pub checkpoint: String,
    /// Which part of the data [default: that of the run's validations]
    #[arg(long, value_parser = ["train", "val", "test"])]
    pub split: Option<String>,
    /// Another folder of data than the run's
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Another adapter than the run's: its number or a part of its name
    #[arg(long)]
    pub device: Option<String>,
}

/// A model on a device that takes one clip at a time, and a split.
pub struct Model {
    /// The run's folder.
    pub folder: RunFolder,
    /// The run's configuration.
    pub config: RunConfig,
    /// The model file.
    pub checkpoint: PathBuf,
    /// Steps it was trained for.
    pub step: u32,
    /// The device.
    pub context: Arc<Context>,
    /// The model.
    pub inference: Inference,
    /// The clips.
    pub dataset: Dataset,
}

impl Model {
    /// Opens what `args` ask for.
    ///
    /// # Errors
    /// [`Error::Data`] if the run, the checkpoint or the data cannot be read or do not fit together,
    /// [`Error::NonFinite`] if the model holds NaN, [`Error::Device`] or [`Error::Memory`] if the device does not work or the model does not fit.
    pub fn open(args: &Args) -> Result<Model> {
        let folder = RunFolder::open(&args.run)?;
        let checkpoint = match args.checkpoint.as_str() {
            "best" => folder.checkpoints().best_path()?,
            "last" => folder.checkpoints().latest_path()?,
            path => PathBuf::from(path),
        };
        if !checkpoint.is_file() {
            return Err(Error::Data(format!(
                "there is no checkpoint {}; give --checkpoint best, last, or a file such as {}",
                checkpoint.display(),
                shell_quoted(&folder.path().join("checkpoints/step-00001000.safetensors"))
            )));
        }
        let weights = Weights::load(&checkpoint)?;
        let (mut config, step) = (weights.config.clone(), weights.step);
        // The run knows where its data and its adapter are now; both may be others since the checkpoint.
        if let Ok(run) = folder.config() {
            config.data.root = run.data.root;
            config.train.device = run.train.device;
        }
        let newest = folder.checkpoints().index()?.latest;
        if let Some(newest) = newest.filter(|newest| args.checkpoint == "last" && *newest > step) {
            tell(&format!(
                "warning: the checkpoint of step {newest} is damaged or gone; this is the one of step {step}"
            ));
        }
        let dataset = open_data(args, &config)?;
        let choice = match &args.device {
            Some(device) => {
                let Ok(choice) = device.parse();
                choice
            }
            None => config.device(),
        };
        let context = Context::open(&choice)?;
        let inference = Inference::trained(&context, &weights, &checkpoint, dataset.grid().size)?;
        Ok(Model { folder, config, checkpoint, step, context, inference, dataset })
    }
}

fn open_data(args: &Args, config: &RunConfig) -> Result<Dataset> {
    let root: &Path = args.data.as_deref().unwrap_or(&config.data.root);
    let split = match args.split.as_deref() {
        Some("train") => Split::Train,
        Some("val") => Split::Val,
        Some("test") => Split::Test,
        _ => config.data.val_split,
    };
    let dataset = Dataset::open(root, split, config.dataset_options()).map_err(|why| match why {
        Error::Data(why) if args.data.is_none() => Error::Data(format!("{why}, or give its folder by --data DIR")),
        why => why,
    })?;
    for warning in dataset.warnings() {
        tell(&format!("warning: {warning}"));
    }
    if dataset.classes().len() != config.model.classes {
        return Err(Error::Data(format!(
            "the model has {} classes, but {} has {}; give the data it was trained on",
            config.model.classes,
            dataset.classes().name,
            dataset.classes().len()
        )));
    }
    if config.model.choice(ALIGN) == BY_POSES && !dataset.has_poses() {
        return Err(Error::Data(format!(
            "the model aligns frames by poses, but not every sequence of {} has them; give data that have",
            root.display()
        )));
    }
    Ok(dataset)
}
