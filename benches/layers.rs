//! Every kind of op by itself: of those in a training step the one with most to do, in preset `base` at T = 4 on 64x64x8, and
//! others on volumes of that size, on the best adapter (or the one whose name contains `$SEP4D_BENCH_DEVICE`). Bytes are those
//! of its operands and results.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sep4d::Result;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::plan::Plan;
use sep4d::graph::{CpuTensor, DType, Graph, Node, Op, OpContext, Program, TensorSpec};
use sep4d::layers::activation::{Activation, activate};
use sep4d::layers::attention::attention;
use sep4d::layers::batch_norm::{RunningAverage, batch_norm, batch_norm_inference};
use sep4d::layers::broadcast_add::broadcast_plus;
use sep4d::layers::broadcast_mul::{broadcast_mul, broadcast_to};
use sep4d::layers::commitment_loss::{commitment_loss, straight_through};
use sep4d::layers::dropout::dropout;
use sep4d::layers::gather::gather;
use sep4d::layers::group_norm::group_norm;
use sep4d::layers::label_conv::label_conv;
use sep4d::layers::layer_norm::layer_norm;
use sep4d::layers::matmul::{Matmul, matmul};
use sep4d::layers::nearest_code::{code_usage, nearest_code};
use sep4d::layers::pad3d::{PadMode, Padding, pad3d};
use sep4d::layers::plane_product::plane_product;
use sep4d::layers::resample::{Direction, only_seen, resample};
use sep4d::layers::softmax::softmax;
use sep4d::models::BatchShape;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session;

const FRAMES: usize = 4;
const SIZE: [usize; 3] = [64, 64, 8];

/// Numbers of a frame's motion, which only motions have along their last axis.
const MOTION: usize = 24;

/// An op of one graph in another.
#[derive(Debug, Clone)]
struct Same(Arc<dyn Op>);

impl Op for Same {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        self.0.outputs(inputs)
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        self.0.cpu(inputs, outputs)
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        self.0.program(context)
    }
}

/// What is timed.
struct Timed {
    op: Same,
    operands: Vec<TensorSpec>,
    /// Of operands and results.
    bytes: u64,
}

/// Ops of models of tokens, forward and backward.
fn tokens() -> Result<Graph> {
    const CHANNELS: usize = 32;
    const CODES: usize = 512;
    let [x, y, z] = SIZE;
    let volumes = [FRAMES, x, y, z, CHANNELS];
    let mut graph = Graph::new();
    let input = graph.input("x", TensorSpec::f32(&volumes));
    let rng = graph.input("rng", TensorSpec::u32(&[3]));
    let mut results = Vec::new();
    for activation in [Activation::Relu, Activation::Silu, Activation::Gelu, Activation::Tanh] {
        results.push(activate(&mut graph, input, activation)?);
    }
    let plane = graph.input("plane", TensorSpec::f32(&[FRAMES, x, y, 1, CHANNELS]));
    results.push(broadcast_mul(&mut graph, input, plane)?);
    results.push(broadcast_plus(&mut graph, input, plane)?);
    results.push(broadcast_to(&mut graph, plane, &volumes)?);
    results.push(dropout(&mut graph, input, rng, 0, 0.1)?);
    let padding = Padding { before: [1; 3], after: [1; 3], mode: PadMode::Replicate };
    results.push(pad3d(&mut graph, input, padding)?);
    let codebook = graph.input("codebook", TensorSpec::f32(&[CODES, CHANNELS]));
    let index = nearest_code(&mut graph, input, codebook)?;
    code_usage(&mut graph, index, CODES)?;
    let codes = gather(&mut graph, codebook, index)?;
    results.push(straight_through(&mut graph, input, codes)?);
    results.push(commitment_loss(&mut graph, input, codes, 0.25)?);
    let mut seeds = Vec::new();
    for result in results {
        let shape = graph.shape(result).to_vec();
        seeds.push((result, graph.input("seed", TensorSpec::f32(&shape))));
    }
    graph.backward(&seeds, &[input, plane, codebook])?;
    Ok(graph)
}

/// Layers that SEP-4D does not have, on as many cells as its volume has: as tokens of a transformer, with attention among each
/// row of them along Z, and as a volume.
fn others() -> Result<Graph> {
    let [x, y, z] = SIZE;
    let (cells, channels) = (FRAMES * x * y * z, 64);
    let mut graph = Graph::new();
    let tokens = graph.input("tokens", TensorSpec::f32(&[cells / z, z, channels]));
    let volume = graph.input("volume", TensorSpec::f32(&[FRAMES, x, y, z, channels]));
    let [weight, bias] = ["weight", "bias"].map(|name| graph.input(name, TensorSpec::f32(&[channels])));
    let normalised = layer_norm(&mut graph, tokens, weight, bias, 1e-5)?;
    let scores = Matmul { transpose_b: true, scale: 0.125, ..Matmul::default() };
    let scores = graph.push_one(scores, &[normalised, tokens])?;
    let scores = softmax(&mut graph, scores)?;
    let attended = matmul(&mut graph, scores, normalised)?;
    let narrow = attention(&mut graph, normalised, tokens, tokens, channels / 8, None)?;
    let grouped = group_norm(&mut graph, volume, weight, bias, 8, 1e-5)?;
    let batch = batch_norm(&mut graph, volume, weight, bias, 1e-5)?;
    graph.push_one(RunningAverage { momentum: 0.1 }, &[bias, batch.mean])?;
    let inferred = batch_norm_inference(&mut graph, volume, weight, bias, [bias, weight], 1e-5)?;
    // A convolution of labels, and planes over time times a volume.
    let labels = graph.input("labels", TensorSpec::u32(&[FRAMES, x / 2, y / 2, z / 2, 8]));
    let table = graph.input("table", TensorSpec::f32(&[11, 27, channels]));
    let embedded = label_conv(&mut graph, labels, table, bias)?;
    let still = graph.input("still", TensorSpec::f32(&[1, x, y, z, channels]));
    let planes = [x, y, z].map(|extent| graph.input("plane", TensorSpec::f32(&[1, FRAMES, extent, channels])));
    let product = plane_product(&mut graph, still, planes)?;
    // Frames that turn in their grid.
    let clip = graph.reshape(volume, &[1, FRAMES, x, y, z, channels])?;
    let motion = graph.input("motion", TensorSpec::f32(&[1, FRAMES, MOTION]));
    let resampled = resample(&mut graph, clip, motion, Direction::ToCanonical, SIZE)?;
    only_seen(&mut graph, clip, motion, SIZE)?;
    let seeds = [
        (attended, tokens),
        (narrow, tokens),
        (grouped, volume),
        (inferred, volume),
        (embedded, volume),
        (product, volume),
        (resampled, clip),
    ];
    graph.backward(&seeds, &[tokens, volume, table, still, planes[0]])?;
    Ok(graph)
}

/// The op of each name that moves and computes most.
fn largest() -> Result<BTreeMap<&'static str, Timed>> {
    let config = RunConfig::preset(Preset::Base, Some(FRAMES));
    let shape = BatchShape { batch: 1, frames: FRAMES, size: SIZE };
    let [model, ..] = session::graphs(&config.model, &shape, &config.step())?;
    let others = [tokens()?, others()?];
    let mut found = BTreeMap::new();
    for graph in [&model].into_iter().chain(&others) {
        for node in graph.nodes() {
            let work = graph.node_flops(node) + graph.node_bytes(node);
            let best = found.entry(node.op.name()).or_insert((0, graph, node));
            if work > best.0 {
                *best = (work, graph, node);
            }
        }
    }
    let timed = |graph: &Graph, node: &Node| Timed {
        op: Same(node.op.clone()),
        operands: graph.specs(&node.inputs),
        bytes: graph.node_bytes(node),
    };
    Ok(found.into_iter().map(|(name, (_, graph, node))| (name, timed(graph, node))).collect())
}

/// The motion of a frame whose grid is turned by a third of a radian: bits of both maps.
fn turn() -> Vec<u32> {
    let map = |angle: f32| {
        let ((sin, cos), [x, y, _]) = (angle.sin_cos(), SIZE.map(|extent| (extent as f32 - 1.0) / 2.0));
        let rows =
            [[cos, -sin, 0.0, x - cos * x + sin * y], [sin, cos, 0.0, y - sin * x - cos * y], [0.0, 0.0, 1.0, 0.0]];
        rows.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    [map(0.33), map(-0.33)].concat()
}

fn executor(context: &Arc<Context>, op: &Same, operands: &[TensorSpec]) -> Result<Executor> {
    let mut graph = Graph::new();
    let inputs: Vec<_> = operands.iter().map(|spec| graph.input("operand", spec.clone())).collect();
    for output in graph.push(op.clone(), &inputs)? {
        graph.keep(output);
    }
    let plan = Plan::new(&graph, context.limits())?;
    let memory = Memory::new(context, &[&plan])?;
    let executor = Executor::new(context, graph, plan, &memory)?;
    for (id, spec) in inputs.into_iter().zip(operands) {
        let words: Vec<u32> = match spec.dtype {
            DType::F32 if spec.channels() == MOTION => turn().repeat(spec.rows()),
            DType::F32 => (0..spec.elements()).map(|i| ((i % 97) as f32 / 97.0 - 0.5).to_bits()).collect(),
            // A quarter in both halves of a word.
            DType::F16 => vec![0x3400_3400; spec.bytes().div_ceil(4)],
            // Classes, whatever else words may mean.
            DType::U32 => (0..spec.elements()).map(|i| (i % 2) as u32).collect(),
        };
        executor.write(id, &words)?;
    }
    Ok(executor)
}

fn ops(criterion: &mut Criterion) {
    let choice = std::env::var("SEP4D_BENCH_DEVICE").map_or(DeviceChoice::Best, DeviceChoice::Name);
    let context = Context::open(&choice).expect("an adapter");
    let mut group = criterion.benchmark_group("op");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, Timed { op, operands, bytes }) in largest().expect("the model fits") {
        let executor = std::cell::OnceCell::new();
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(name, |bencher| {
            let executor =
                executor.get_or_init(|| self::executor(&context, &op, &operands).expect("the kernels compile"));
            bencher.iter(|| executor.run().and_then(|()| context.wait()).expect("the device works"));
        });
    }
    group.finish();
}

criterion_group!(benches, ops);
criterion_main!(benches);
