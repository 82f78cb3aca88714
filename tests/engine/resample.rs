//! What resampling leaves as it is, to the bit.

use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::plan::Plan;
use sep4d::graph::{Graph, TensorSpec};
use sep4d::layers::resample::{Direction, only_seen, resample};

const SIZE: [usize; 3] = [5, 4, 3];
const FRAMES: usize = 2;

/// Both maps leave every cell where it is.
const IDENTITY: [f32; 12] = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];

#[test]
fn frames_that_do_not_move_keep_their_bits() {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let [x_size, y_size, z_size] = SIZE;
    for channels in [3, 4] {
        for volumes in [1, FRAMES] {
            let mut graph = Graph::new();
            let x = graph.input("x", TensorSpec::f32(&[1, volumes, x_size, y_size, z_size, channels]));
            let d_y = graph.input("d_y", TensorSpec::f32(&[1, FRAMES, x_size, y_size, z_size, channels]));
            let motion = graph.input("motion", TensorSpec::f32(&[1, FRAMES, 24]));
            let there = resample(&mut graph, x, motion, Direction::ToCanonical, SIZE).unwrap();
            let back = resample(&mut graph, x, motion, Direction::ToFrames, SIZE).unwrap();
            let seen = only_seen(&mut graph, d_y, motion, SIZE).unwrap();
            let gradients = graph.backward(&[(there, d_y)], &[x]).unwrap();
            let d_x = gradients.of(&graph, x).unwrap();
            [there, back, seen, d_x].into_iter().for_each(|id| graph.keep(id));
            let plan = Plan::new(&graph, context.limits()).unwrap();
            let memory = Memory::new(&context, &[&plan]).unwrap();
            let executor = Executor::new(&context, graph, plan, &memory).unwrap();
            // Also what a sum with zeros would change.
            let values = |frames: usize| -> Vec<f32> {
                let of = |i: usize| match i % 7 {
                    0 => -0.0,
                    1 => f32::INFINITY,
                    2 => f32::MAX,
                    _ => (i as f32 + 0.1).sin(),
                };
                (0..frames * SIZE.iter().product::<usize>() * channels).map(of).collect()
            };
            let (given, d_given) = (values(volumes), values(FRAMES));
            executor.write(x, &given).unwrap();
            executor.write(d_y, &d_given).unwrap();
            executor.write(motion, &IDENTITY.repeat(2 * FRAMES)).unwrap();
            executor.run().unwrap();
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let read = |id| bits(&executor.read::<f32>(id).unwrap());
            let repeated = bits(&given.repeat(FRAMES / volumes));
            assert_eq!(read(there), repeated, "{channels} {volumes}");
            assert_eq!(read(back), repeated, "{channels} {volumes}");
            assert_eq!(read(seen), bits(&d_given), "{channels} {volumes}");
            if volumes == FRAMES {
                // But for the sign of zeros, a gradient being a sum.
                let sums: Vec<f32> = d_given.iter().map(|value| value + 0.0).collect();
                assert_eq!(read(d_x), bits(&sums), "{channels}");
            }
        }
    }
}
