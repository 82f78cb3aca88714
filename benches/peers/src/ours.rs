//! Our side of `compare.py`: obeys one request a line of standard input and answers each with a line of JSON.
//!
//! Requests are documented in `README.md` beside this file. This side comes first: it also writes what the others start from
//! and are compared with.

#[path = "../../common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use common::{Convolution, Layer, Pass, Ready};
use sep4d::data::{Batch, synth};
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::tune::tuned;
use sep4d::graph::{Graph, TensorSpec};
use sep4d::models::{BatchShape, LatentKind, Mode};
use sep4d::rng::{Rng, normal};
use sep4d::train::config::RunConfig;
use sep4d::train::session::{Session, graphs};
use sep4d_peers::{Request, Result, serve, write};
use serde_json::{Value, json};

/// Steps whose losses are compared, and their learning rate.
const STEPS: u32 = 3;
const LEARNING_RATE: f32 = 1e-3;
const SEED: u64 = 0;
/// Per cent, of a model that has dropout.
const DROPOUT: &str = "model.dropout";

enum Case {
    Conv3d([Ready; 3]),
    Step(Box<Session>, Batch),
}

fn main() -> Result<()> {
    let choice = std::env::var("SEP4D_BENCH_DEVICE").map_or(DeviceChoice::Best, DeviceChoice::Name);
    let context = Context::open(&choice)?;
    let mut case = None;
    serve(|request| obey(&context, &mut case, request))
}

fn obey(context: &Arc<Context>, case: &mut Option<Case>, request: Request) -> Result<Value> {
    match request {
        Request::Conv3d { folder, inputs, outputs, size } => {
            *case = None;
            let (ready, flops) = convolution(context, &folder, inputs, outputs, size)?;
            *case = Some(Case::Conv3d(ready));
            Ok(json!({ "adapter": context.adapter.name, "driver": context.adapter.driver, "flops": flops }))
        }
        Request::Step { folder, preset, frames, size, architecture, precision } => {
            *case = None;
            let set = [format!("model.architecture={architecture}"), format!("train.precision={precision}")];
            let mut config = RunConfig::preset(preset.parse()?, Some(frames)).with(&set)?;
            // The others align no frames.
            config.model = config.model.for_data(false)?;
            let (session, batch) = step(context, &folder, &config, size)?;
            let flops = session.preflight().flops_per_step;
            *case = Some(Case::Step(Box::new(session), batch));
            Ok(json!({ "adapter": context.adapter.name, "driver": context.adapter.driver, "flops": flops }))
        }
        Request::Time { part, repeat } => {
            let start = Instant::now();
            match (case, part.as_str()) {
                (Some(Case::Step(session, batch)), "step") => {
                    for _ in 0..repeat {
                        session.train_step(std::slice::from_ref(batch), LEARNING_RATE)?;
                        session.pace()?;
                    }
                }
                (Some(Case::Conv3d([forward, data, weight])), part) => {
                    let ready = match part {
                        "forward" => forward,
                        "data" => data,
                        "weight" => weight,
                        _ => return Err(format!("a convolution has no part {part}").into()),
                    };
                    for _ in 0..repeat {
                        ready.executor.run()?;
                    }
                }
                _ => return Err(format!("there is no {part} to time").into()),
            }
            context.wait()?;
            Ok(json!({ "seconds": start.elapsed().as_secs_f64() / repeat as f64 }))
        }
    }
}

/// The three passes of a convolution of kernel 3, having run once, and the operations of one.
fn convolution(
    context: &Arc<Context>,
    folder: &Path,
    inputs: usize,
    outputs: usize,
    [x, y, z]: [usize; 3],
) -> Result<([Ready; 3], u64)> {
    let shape = Convolution { x: vec![1, x, y, z, inputs], outputs, layer: Layer::Same([3; 3]) };
    let voxels = x * y * z;
    let mut rng = Rng::new(SEED, 1);
    let mut random = |count: usize| (0..count).map(|_| rng.uniform(-1.0, 1.0) as f32).collect::<Vec<f32>>();
    let (x, weight, bias, d_y) =
        (random(voxels * inputs), random(27 * inputs * outputs), random(outputs), random(voxels * outputs));
    write(folder, "x", &channels_first(&x, inputs))?;
    write(folder, "weight", &weight)?;
    write(folder, "bias", &bias)?;
    write(folder, "d_y", &channels_first(&d_y, outputs))?;
    let ready = |pass| -> Result<Ready> {
        let ready = shape.ready(context, pass)?;
        for (id, values) in ready.inputs.into_iter().zip([&x, &weight, &bias, &d_y]) {
            if ready.executor.uses(id) {
                ready.executor.write(id, values)?;
            }
        }
        ready.executor.run()?;
        Ok(ready)
    };
    let [forward, data, parameters] = Pass::ALL.map(ready);
    let ready = [forward?, data?, parameters?];
    let read = |ready: &Ready, i: usize| ready.executor.read::<f32>(ready.observed[i]);
    write(folder, "y", &channels_first(&read(&ready[0], 0)?, outputs))?;
    write(folder, "d_x", &channels_first(&read(&ready[1], 0)?, inputs))?;
    write(folder, "d_weight", &read(&ready[2], 0)?)?;
    write(folder, "d_bias", &read(&ready[2], 1)?)?;
    Ok((ready, shape.flops()))
}

/// A session that is ready to be timed, and its batch. Before, one without dropout, which no two programs draw alike, takes the
/// first steps with it.
fn step(context: &Arc<Context>, folder: &Path, config: &RunConfig, size: [usize; 3]) -> Result<(Session, Batch)> {
    let frames = config.data.frames;
    let shape = BatchShape { batch: config.train.batch, frames, size };
    let grid = synth::grid(size, [0.4, 0.4, 0.375])?;
    let clips: Vec<_> = (0..shape.batch).map(|seed| synth::clip(&grid, seed as u64, frames)).collect();
    let batch = Batch::from_clips(&clips, &grid)?;
    let weights = vec![1.0; config.model.classes];
    let context = &tuned(context.clone(), &graphs(&config.model, &shape, &config.step())?, |_, _| true)?;
    let undropped = match config.model.get(DROPOUT) {
        0 => config.model.clone(),
        _ => config.model.clone().with(&[(DROPOUT, 0)])?,
    };
    let mut session = Session::new(context, &undropped, &shape, &config.step(), &weights, SEED)?;

    let parameters = session.inference().export()?;
    let labels: Vec<u8> =
        clips.iter().flat_map(|clip| &clip.frames).flat_map(|frame| frame.labels.iter().copied()).collect();
    std::fs::write(folder.join("labels.u8"), labels)?;
    write(folder, "parameters", &parameters.iter().flat_map(|p| p.values.iter().copied()).collect::<Vec<_>>())?;
    let noises = noises(config, &shape)?;
    for step in 0..STEPS {
        for (stream, spec) in noises.iter().enumerate() {
            let count = spec.elements() as u32;
            let noise: Vec<f32> = (0..count).map(|i| normal(SEED, step, stream as u32, i) as f32).collect();
            write(folder, &format!("noise.{step}.{stream}"), &noise)?;
        }
    }
    let own = config.model.architecture().losses[0].name;
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        session.train_step(std::slice::from_ref(&batch), LEARNING_RATE)?;
        let report = session.report()?;
        losses.push([report.loss, report.cross_entropy, report.lovasz, report.terms.get(own).unwrap_or_default()]);
    }
    let about = json!({
        "model": config.model,
        "batch": [shape.batch, frames, size[0], size[1], size[2]],
        "learning_rate": LEARNING_RATE,
        "weight_decay": config.train.weight_decay,
        "clip_norm": config.train.clip_norm,
        "noises": noises.iter().map(|spec| &spec.shape).collect::<Vec<_>>(),
        "parameters": parameters.iter().map(|p| json!({ "name": p.name, "shape": p.shape })).collect::<Vec<_>>(),
        "losses": losses,
    });
    std::fs::write(folder.join("step.json"), about.to_string())?;
    if undropped != config.model {
        drop(session);
        session = Session::new(context, &config.model, &shape, &config.step(), &weights, SEED)?;
    }
    Ok((session, batch))
}

/// What noise is drawn for: the samples of the Gaussian latents, in their order.
fn noises(config: &RunConfig, shape: &BatchShape) -> Result<Vec<TensorSpec>> {
    let mut graph = Graph::new();
    let latents = config.model.build(&mut graph, shape, Mode::Look)?.latents;
    let gaussian = latents.iter().filter(|built| built.latent.kind == LatentKind::Gaussian);
    Ok(gaussian.map(|built| graph.tensor(built.decoded).spec.clone()).collect())
}

/// `[voxels, C]` as `[C, voxels]`.
fn channels_first(values: &[f32], channels: usize) -> Vec<f32> {
    let rows = values.len() / channels;
    (0..values.len()).map(|i| values[i % rows * channels + i / rows]).collect()
}
