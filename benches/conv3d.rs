//! Convolutions and linear layers of the model's sizes, pass by pass, on the best adapter (or the one whose name contains
//! `$SEP4D_BENCH_DEVICE`).
//!
//! Elements are floating-point operations (2 x taps x inputs x outputs x voxels, padding counted as well), so `Gelem/s` reads
//! GFLOP/s; on a CPU adapter they are per core.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::plan::Plan;
use sep4d::graph::{Graph, TensorId, TensorSpec};
use sep4d::layers::conv3d::conv3d;
use sep4d::layers::linear::linear;

const VOLUME: Option<[usize; 3]> = Some([3, 3, 3]);
const PLANE: Option<[usize; 3]> = Some([1, 3, 3]);

/// Shape of x, output channels, kernel (`None`: linear).
type Shape = (&'static [usize], usize, Option<[usize; 3]>);

const SHAPES: [Shape; 11] = [
    (&[4, 16, 16, 4, 32], 32, VOLUME),
    (&[1, 16, 16, 4, 16], 48, VOLUME),
    (&[1, 128, 128, 8, 16], 16, VOLUME),
    (&[1, 64, 64, 4, 64], 64, VOLUME),
    (&[1, 64, 64, 4, 128], 128, VOLUME),
    (&[2, 1, 64, 64, 32], 32, PLANE),
    (&[2, 21, 17, 5, 17], 11, VOLUME),
    (&[4096, 32], 32, None),
    (&[4096, 32], 128, None),
    (&[32_768, 16], 16, None),
    (&[16_384, 64], 64, None),
];

#[derive(Debug, Clone, Copy)]
enum Pass {
    Forward,
    BackwardData,
    BackwardWeight,
}

/// A graph of which only one pass is observable, so that nothing else runs.
fn build(shape: Shape, pass: Pass) -> sep4d::Result<(Graph, Vec<TensorId>, u64)> {
    let (x_shape, o, kernel) = shape;
    let i = x_shape[x_shape.len() - 1];
    let mut graph = Graph::new();
    let weight_shape = kernel.map_or(vec![o, i], |k| vec![o, i, k[0], k[1], k[2]]);
    let x = graph.input("x", TensorSpec::f32(x_shape));
    let weight = graph.input("weight", TensorSpec::f32(&weight_shape));
    let bias = graph.input("bias", TensorSpec::f32(&[o]));
    let y = match kernel {
        Some(kernel) => conv3d(&mut graph, x, weight, bias, kernel)?,
        None => linear(&mut graph, x, weight, Some(bias), false)?,
    };
    let flops = graph.flops();
    let y_spec = graph.tensor(y).spec.clone();
    let d_y = graph.input("d_y", y_spec);
    let gradients = graph.backward(&[(y, d_y)], &[x, weight, bias])?;
    let observed = match pass {
        Pass::Forward => Some(y),
        Pass::BackwardData => gradients.of(&graph, x),
        Pass::BackwardWeight => gradients.of(&graph, weight),
    };
    if let Some(observed) = observed {
        graph.keep(observed);
    }
    Ok((graph, vec![x, weight, bias, d_y], flops))
}

fn executor(context: &Arc<Context>, graph: Graph, inputs: &[TensorId]) -> sep4d::Result<Executor> {
    let plan = Plan::new(&graph, context.limits())?;
    let memory = Memory::new(context, &[&plan])?;
    let executor = Executor::new(context, graph, plan, &memory)?;
    for &id in inputs.iter().filter(|&&id| executor.uses(id)) {
        let elements = executor.graph().tensor(id).spec.elements();
        let values: Vec<f32> = (0..elements).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
        executor.write(id, &values)?;
    }
    Ok(executor)
}

fn bench_pass(criterion: &mut Criterion, context: &Arc<Context>, shape: Shape, pass: Pass) {
    let (graph, inputs, flops) = build(shape, pass).expect("the shapes fit");
    let cores = match context.limits().is_cpu {
        true => std::thread::available_parallelism().map_or(1, usize::from),
        false => 1,
    };
    let (x, o, kernel) = shape;
    let name = if kernel.is_some() { "conv3d" } else { "linear" };
    let mut group = criterion.benchmark_group(format!("{name} {x:?}->{o}"));
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(flops / cores as u64));
    let ready = OnceCell::new();
    group.bench_function(BenchmarkId::from_parameter(format!("{pass:?}")), |bencher| {
        let executor = ready.get_or_init(|| executor(context, graph.clone(), &inputs).expect("the kernels compile"));
        bencher.iter(|| executor.run().and_then(|()| context.wait()).expect("the device works"));
    });
    group.finish();
}

fn convolutions(criterion: &mut Criterion) {
    let choice = std::env::var("SEP4D_BENCH_DEVICE").map_or(DeviceChoice::Best, DeviceChoice::Name);
    let context = Context::open(&choice).expect("an adapter");
    for shape in SHAPES {
        for pass in [Pass::Forward, Pass::BackwardData, Pass::BackwardWeight] {
            bench_pass(criterion, &context, shape, pass);
        }
    }
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
