//! Convolutions and linear layers of the model's sizes, pass by pass, on the best adapter (or the one whose name contains
//! `$SEP4D_BENCH_DEVICE`).
//!
//! Elements are floating-point operations (2 x taps x inputs x outputs x voxels, padding counted as well), so `Gelem/s` reads
//! GFLOP/s; on a CPU adapter they are per core.

mod common;

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use common::{Convolution, Layer, Pass, Ready};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::layers::conv3d::ConvGeometry;

const VOLUME: Layer = Layer::Same([3, 3, 3]);
const PLANE: Layer = Layer::Same([1, 3, 3]);
const HALVING: ConvGeometry = ConvGeometry { kernel: [4; 3], stride: [2; 3], padding: [[1; 2]; 3] };

/// Shape of x, output channels, layer.
type Shape = (&'static [usize], usize, Layer);

const SHAPES: [Shape; 13] = [
    (&[4, 16, 16, 4, 32], 32, VOLUME),
    (&[1, 16, 16, 4, 16], 48, VOLUME),
    (&[1, 128, 128, 8, 16], 16, VOLUME),
    (&[1, 64, 64, 4, 64], 64, VOLUME),
    (&[1, 64, 64, 4, 128], 128, VOLUME),
    (&[2, 1, 64, 64, 32], 32, PLANE),
    (&[2, 21, 17, 5, 17], 11, VOLUME),
    (&[1, 64, 64, 8, 32], 64, Layer::Strided(HALVING)),
    (&[1, 32, 32, 4, 64], 32, Layer::Transposed(HALVING)),
    (&[4096, 32], 32, Layer::Linear),
    (&[4096, 32], 128, Layer::Linear),
    (&[32_768, 16], 16, Layer::Linear),
    (&[16_384, 64], 64, Layer::Linear),
];

fn ready(context: &Arc<Context>, layer: &Convolution, pass: Pass) -> sep4d::Result<Ready> {
    let ready = layer.ready(context, pass)?;
    for id in ready.inputs.into_iter().filter(|&id| ready.executor.uses(id)) {
        let elements = ready.executor.graph().tensor(id).spec.elements();
        let values: Vec<f32> = (0..elements).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
        ready.executor.write(id, &values)?;
    }
    Ok(ready)
}

fn bench_pass(criterion: &mut Criterion, context: &Arc<Context>, (x, outputs, layer): Shape, pass: Pass) {
    let name = match layer {
        Layer::Linear => "linear",
        Layer::Same(_) => "conv3d",
        Layer::Strided(_) => "conv3d k4 s2 p1",
        Layer::Transposed(_) => "conv_transpose3d k4 s2 p1",
    };
    let layer = Convolution { x: x.to_vec(), outputs, layer };
    let cores = match context.limits().is_software {
        true => std::thread::available_parallelism().map_or(1, usize::from),
        false => 1,
    };
    let mut group = criterion.benchmark_group(format!("{name} {x:?}->{outputs}"));
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(layer.flops() / cores as u64));
    let made = OnceCell::new();
    group.bench_function(BenchmarkId::from_parameter(format!("{pass:?}")), |bencher| {
        let ready = made.get_or_init(|| ready(context, &layer, pass).expect("the kernels compile"));
        bencher.iter(|| ready.executor.run().and_then(|()| context.wait()).expect("the device works"));
    });
    group.finish();
}

fn convolutions(criterion: &mut Criterion) {
    let choice = std::env::var("SEP4D_BENCH_DEVICE").map_or(DeviceChoice::Best, DeviceChoice::Name);
    let context = Context::open(&choice).expect("an adapter");
    for shape in SHAPES {
        for pass in Pass::ALL {
            bench_pass(criterion, &context, shape, pass);
        }
    }
}

criterion_group!(benches, convolutions);
criterion_main!(benches);
