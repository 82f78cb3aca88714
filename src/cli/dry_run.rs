//! `sep4d --train --dry-run`: what a run would need, without training.

use sep4d::Result;
use sep4d::data::{Dataset, synth};
use sep4d::gpu::{DeviceChoice, adapters, choose};
use sep4d::graph::KernelLimits;
use sep4d::models::{BatchShape, ModelConfig};
use sep4d::train::config::RunConfig;
use sep4d::train::session::preflight;

use super::output::{put, say};
use super::table::table;
use sep4d::figures::{bytes, thousands};

/// Prints parameters, and memory for several T.
///
/// # Errors
/// [`sep4d::Error::Data`] if a data set was given and cannot be read; [`sep4d::Error::Memory`] if the configured run does not fit.
pub fn run(config: &RunConfig) -> Result<()> {
    let mut config = config.clone();
    let (grid, origin) = if config.data.root.as_os_str().is_empty() {
        let whole = synth::GRID;
        // Another number may have been given on purpose.
        config.settle(&synth::CLASSES, true).ok();
        config.model = config.model.for_data(true)?;
        (
            config.crop().map_or(Ok(whole), |size| whole.crop(size).map(|(grid, _)| grid))?,
            "no data set given".to_owned(),
        )
    } else {
        let data = &config.data;
        let dataset = Dataset::open(&data.root, data.train_split, config.dataset_options())?;
        let origin = format!("{} clips to train on", thousands(dataset.len() as u64));
        config.settle(dataset.classes(), dataset.has_poses())?;
        (dataset.grid(), origin)
    };
    let (limits, adapter) = limits(&config.device())?;
    let preset = |frames: usize| RunConfig::preset(config.train.preset, Some(frames));
    let follows_preset = config.train.batch == preset(config.data.frames).train.batch;

    let mut frames = vec![4, 8, 16, 32, 64, config.data.frames];
    frames.sort_unstable();
    frames.dedup();
    let mut rows = Vec::new();
    let mut parameters = None;
    let mut misfit = None;
    for frames in frames {
        let chosen = frames == config.data.frames;
        let batch = if follows_preset { preset(frames).train.batch } else { config.train.batch };
        let mut row = vec![frames.to_string(), clips_of_a_step(batch, config.train.accumulate)];
        match preflight(&config.model, &BatchShape { batch, frames, size: grid.size }, &config.step(), &limits) {
            Ok(plan) => {
                row.extend([
                    bytes(plan.peak_bytes as u64),
                    bytes(plan.largest_binding as u64),
                    bytes(plan.largest_tensor as u64),
                    thousands(plan.flops_per_step / 1_000_000_000),
                ]);
                // Some models have other parameters at another T.
                if chosen {
                    row.push("<- configured".to_owned());
                    parameters = Some(plan.parameters);
                    misfit = config.memory_budget_bytes().and_then(|budget| plan.check(budget).err());
                }
            }
            Err(why) => {
                row.push("does not fit".into());
                misfit = misfit.or(chosen.then_some(why));
            }
        }
        rows.push(row);
    }
    let [x, y, z] = grid.size;
    say!("preset {}, grid {x}x{y}x{z} ({origin})", config.train.preset.name())?;
    say!("limits of {adapter}: {} a binding", bytes(limits.max_storage_binding_bytes as u64))?;
    if let Some(parameters) = parameters {
        say!("{} parameters", thousands(parameters as u64))?;
        say!("{}", latent(&config.model, &BatchShape { batch: 1, frames: config.data.frames, size: grid.size })?)?;
    }
    say!()?;
    put!("{}", table(&["T", "batch", "memory", "largest binding", "largest tensor", "GFLOP/step", ""], &rows))?;
    misfit.map_or(Ok(()), Err)
}

/// `latent of a clip: 65,536 floats, C.R. 32.0`, the compression ratio being voxels a float, and the bits of its codes if it has any.
fn latent(model: &ModelConfig, clip: &BatchShape) -> Result<String> {
    let (floats, bits) = model.latent_size(clip)?;
    let ratio = clip.voxels() as f64 / floats as f64;
    let codes = if bits > 0.0 { format!(", {} bits as codes", thousands(bits.ceil() as u64)) } else { String::new() };
    Ok(format!("latent of a clip: {} floats, C.R. {ratio:.1}{codes}", thousands(floats as u64)))
}

/// The limits of the chosen adapter and its name; the portable ones where there is no adapter at all.
fn limits(choice: &DeviceChoice) -> Result<(KernelLimits, String)> {
    let adapters = adapters();
    if adapters.is_empty() {
        return Ok((KernelLimits::portable(), "WebGPU (no adapter found)".into()));
    }
    let chosen = &adapters[choose(&adapters, choice)?];
    Ok((chosen.limits.clone(), chosen.name.clone()))
}

/// `2`, or `2 x 8` where a step has several batches.
pub fn clips_of_a_step(batch: usize, accumulate: usize) -> String {
    if accumulate == 1 { batch.to_string() } else { format!("{batch} x {accumulate}") }
}
