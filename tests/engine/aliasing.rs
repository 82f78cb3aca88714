//! What WebGPU forbids and native drivers do not: ranges that a kernel may write to and that overlap another of its bindings.

use sep4d::graph::KernelLimits;
use sep4d::graph::plan::{Plan, Step};
use sep4d::models::BatchShape;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session::graphs;

#[test]
fn no_two_bindings_of_a_dispatch_overlap_where_that_is_forbidden() {
    let gpu = KernelLimits { forbids_aliasing: true, has_f16: true, ..KernelLimits::portable() };
    let cpu = KernelLimits { min_subgroup_lanes: 8, max_buffer_bytes: 1 << 31, ..gpu.for_cpu(true) };
    let mut detours = 0;
    for preset in Preset::ALL {
        for precision in ["f32", "f16"] {
            let set = [format!("train.precision={precision}"), "train.accumulate=2".into(), "train.ema=0.9".into()];
            let mut config = RunConfig::preset(preset, None).with(&set).unwrap();
            config.model = config.model.for_data(true).unwrap();
            let shape = BatchShape { batch: 1, frames: 4, size: [32, 32, 8] };
            for (graph, limits) in graphs(&config.model, &shape, &config.step())
                .unwrap()
                .iter()
                .flat_map(|graph| [(graph, &gpu), (graph, &cpu)])
            {
                let plan = Plan::new(graph, limits).unwrap();
                for step in &plan.steps {
                    match step {
                        Step::Dispatch { kernel, bindings, .. } => {
                            for (i, a) in bindings.iter().enumerate() {
                                let meets = bindings[..i].iter().any(|b| a.overlaps(b));
                                assert!(!meets, "{} of {preset:?} binds {a:?} beside what it overlaps", kernel.entry);
                            }
                        }
                        Step::Copy { from, to } => {
                            assert!(from.buffer != to.buffer && from.bytes == to.bytes);
                            detours += 1;
                        }
                        Step::Clear { .. } => {}
                    }
                }
            }
        }
    }
    // The optimiser overwrites what it reads.
    assert!(detours > 0);
}
