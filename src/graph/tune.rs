//! Choice among the variants of a program: by name, and by measuring each on random data.

mod sharing;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use half::f16;
use rayon::prelude::*;

use super::execute::{Executor, Memory, OpProfile};
use super::plan::Plan;
use super::{DType, Graph, Grouping, KernelLimits, Node, OpContext, TensorId, TensorSpec};
use crate::gpu::Context;
use crate::kernel::Tuning;
use crate::rng::Rng;
use crate::{Error, Result};
use sharing::tune_sharing;

/// The programs among which a tuner may choose for one op, all of which compute the same up to rounding.
#[derive(Debug, Clone, PartialEq)]
pub struct Variants {
    /// What the best choice depends on: ops of equal problems share it.
    pub problem: String,
    /// Names of the variants, the default first.
    pub names: Vec<&'static str>,
    /// Inputs of bounded size for which the op is the same problem.
    pub sample: Vec<TensorSpec>,
}

impl Variants {
    /// The place of the variant that `tuning` names, or else the default.
    pub fn chosen(&self, tuning: &Tuning) -> usize {
        let name = tuning.get(&self.problem);
        self.names.iter().position(|other| name.is_some_and(|name| name == other)).unwrap_or(0)
    }
}

impl Graph {
    /// The variants of every op that has some under `limits`, with its node, in order of execution.
    fn variants(&self, limits: &KernelLimits) -> impl Iterator<Item = (&Node, Variants)> {
        self.nodes.iter().filter_map(|node| {
            let (inputs, outputs) = (self.specs(&node.inputs), self.specs(&node.outputs));
            Some((node, node.op.variants(&OpContext { inputs: &inputs, outputs: &outputs, limits })?))
        })
    }

    /// For each name of a variant, the choice of it wherever there is one of that name: what tests run one by one.
    pub fn forced_tunings(&self, limits: &KernelLimits) -> Vec<Tuning> {
        let variants: Vec<Variants> = self.variants(limits).map(|(_, variants)| variants).collect();
        let names: BTreeSet<&str> = variants.iter().flat_map(|variants| variants.names.iter().copied()).collect();
        let forced = |name: &&str| -> Tuning {
            let with_name = variants.iter().filter(|variants| variants.names.contains(name));
            with_name.map(|variants| (variants.problem.clone(), (*name).to_owned())).collect()
        };
        names.iter().map(forced).collect()
    }
}

/// Rounds in which the variants of a problem are timed one after the other: a GPU changes its clock from one moment to the next,
/// so that only what is timed together can be compared.
const ROUNDS: usize = 5;

/// A variant that takes so many times as long as the fastest in the first round is not timed in the others.
const SLOW: f64 = 2.0;

/// Time for measuring, after which the defaults do.
const TIME: Duration = Duration::from_secs(60);

/// `context` with the fastest variants of what `graphs` run, measured now where they never were on this adapter. Before each
/// problem, `proceed(done, all)` is asked; if it says no, `context` comes back as it was.
///
/// # Errors
/// As [`tune`].
pub fn tuned(
    context: Arc<Context>,
    graphs: &[Graph],
    mut proceed: impl FnMut(usize, usize) -> bool,
) -> Result<Arc<Context>> {
    if !context.is_tunable() {
        return Ok(context);
    }
    let (start, mut stopped) = (Instant::now(), false);
    let tuning = tune(&context, graphs, context.limits(), |done, all| {
        stopped |= !proceed(done, all);
        !stopped && start.elapsed() < TIME
    })
    .map_err(|why| match context.check() {
        Ok(()) => why,
        Err(_) => Error::Device(format!(
            "{} was lost while kernels were measured ({why}); update its driver, or set SEP4D_AUTOTUNE=0 to run the plain ones",
            context.adapter.name
        )),
    })?;
    if stopped || tuning == context.limits().policy.tuning {
        return Ok(context);
    }
    let context = context.with_tuning(tuning);
    context.keep_tuning();
    Ok(context)
}

/// The fastest variant of every problem of `graphs` that gives what the default gives, measured where `limits` have no
/// choice yet, the costliest first; and which kernels' launches share dispatches, where that is to be tried
/// ([`Grouping::Tried`]). `measure(done, all)` is asked before each problem; those for which it says no get the default, so
/// that every choice is made once.
///
/// # Errors
/// [`Error::Device`] or [`Error::Memory`] if a default cannot run.
pub fn tune(
    context: &Arc<Context>,
    graphs: &[Graph],
    limits: &KernelLimits,
    mut measure: impl FnMut(usize, usize) -> bool,
) -> Result<Tuning> {
    let mut tuning = limits.policy.tuning.clone();
    let mut problems: Vec<(u64, &Graph, &Node, Variants)> = Vec::new();
    for graph in graphs {
        problems.extend(graph.variants(limits).map(|(node, variants)| (graph.node_flops(node), graph, node, variants)));
    }
    problems.sort_by_key(|(flops, ..)| std::cmp::Reverse(*flops));
    let mut seen = BTreeSet::new();
    problems.retain(|(.., variants)| !tuning.contains_key(&variants.problem) && seen.insert(variants.problem.clone()));
    let all = problems.len();
    for (done, (_, graph, node, variants)) in problems.into_iter().enumerate() {
        let chosen = if measure(done, all) && variants.names.len() > 1 {
            fastest(context, graph, node, &variants, limits)?
        } else {
            0
        };
        tuning.insert(variants.problem, variants.names[chosen].to_owned());
    }
    if limits.policy.grouping == Grouping::Tried {
        let limits = limits.tuned(tuning.clone());
        tuning.extend(tune_sharing(context, graphs, &limits)?);
    }
    Ok(tuning)
}

/// The place of the fastest variant among those that agree with the default.
fn fastest(
    context: &Arc<Context>,
    graph: &Graph,
    node: &Node,
    variants: &Variants,
    limits: &KernelLimits,
) -> Result<usize> {
    let outputs = graph.specs(&node.outputs);
    let values = Values::new();
    // Drivers take long to compile a kernel, and can compile several at once.
    let mut trials = variants
        .names
        .par_iter()
        .map(|name| {
            let tuning = Tuning::from([(variants.problem.clone(), (*name).to_owned())]);
            Trial::new(context, node, &variants.sample, &outputs, &limits.tuned(tuning), &values)
        })
        .collect::<Vec<_>>()
        .into_iter();
    let default = trials.next().ok_or_else(|| Error::Shape(format!("{} has no variant", variants.problem)))??;
    let expected = default.run()?;
    let tolerance = tolerance(&[&variants.sample[..], &outputs].concat());
    let mut agreeing = vec![(0, default)];
    for (i, trial) in (1..).zip(trials) {
        // One that the driver refuses is not chosen, unless the device is gone with it.
        match trial.and_then(|trial| Ok((trial.run()?, trial))) {
            Ok((outcome, trial)) if agree(&outcome, &expected, tolerance) => agreeing.push((i, trial)),
            Ok(_) => {}
            Err(_) => context.check()?,
        }
    }
    let mut elapsed = Vec::new();
    for (i, trial) in agreeing {
        elapsed.push((i, vec![trial.time()?], trial));
    }
    let least = elapsed.iter().map(|(_, secs, _)| secs[0]).fold(f64::INFINITY, f64::min);
    elapsed.retain(|(_, secs, _)| secs[0] <= SLOW * least);
    for _ in 1..ROUNDS {
        for (_, secs, trial) in &mut elapsed {
            secs.push(trial.time()?);
        }
    }
    // As multiples of what the first one took in the same round.
    let first = elapsed.first().map(|(_, secs, _)| secs.clone()).unwrap_or_default();
    let median = |secs: Vec<f64>| {
        let mut ratios: Vec<f64> = secs.iter().zip(&first).map(|(secs, first)| secs / first).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    let medians = elapsed.into_iter().map(|(i, secs, _)| (i, median(secs)));
    Ok(medians.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(i, _)| i))
}

/// How far two kernels may be apart that give the same, relatively: where one tensor is in f16, they may round the others to it.
fn tolerance(specs: &[TensorSpec]) -> f64 {
    if specs.iter().any(|spec| spec.dtype == DType::F16) { 1e-3 } else { 1e-5 }
}

/// Inputs of trials: enough values that no tile has the same as its neighbour.
struct Values {
    single: Vec<f32>,
    half: Vec<u16>,
}

impl Values {
    fn new() -> Values {
        let mut rng = Rng::new(3, 0);
        let single: Vec<f32> = (0..4099).map(|_| rng.normal() as f32).collect();
        let half = single.iter().map(|&value| f16::from_f32(value).to_bits()).collect();
        Values { single, half }
    }
}

/// One op by itself, ready to run, and its outputs.
struct Trial {
    executor: Executor,
    outputs: Vec<TensorId>,
}

impl Trial {
    /// The op of `node` on inputs like `sample`, its outputs being of the element types of `outputs`.
    fn new(
        context: &Arc<Context>,
        node: &Node,
        sample: &[TensorSpec],
        outputs: &[TensorSpec],
        limits: &KernelLimits,
        values: &Values,
    ) -> Result<Trial> {
        let mut graph = Graph::new();
        // Ops are made in f32, and what is in f16 becomes so afterwards.
        let single = |spec: &TensorSpec| match spec.dtype {
            DType::F16 => TensorSpec::f32(&spec.shape),
            DType::F32 | DType::U32 => spec.clone(),
        };
        let inputs: Vec<TensorId> =
            sample.iter().enumerate().map(|(i, spec)| graph.input(&format!("input{i}"), single(spec))).collect();
        let made = graph.push_shared(node.op.clone(), &inputs)?;
        made.iter().for_each(|&id| graph.keep(id));
        for (id, spec) in inputs.iter().chain(&made).zip(sample.iter().chain(outputs)) {
            graph.tensors[id.0].spec.dtype = spec.dtype;
        }
        let plan = Plan::new(&graph, limits)?;
        let memory = Memory::new(context, &[&plan])?;
        let executor = Executor::new(context, graph, plan, &memory)?;
        for (id, spec) in inputs.into_iter().zip(sample) {
            match spec.dtype {
                DType::F16 => executor.write(id, &repeated(&values.half, spec.bytes() / 2))?,
                DType::F32 => executor.write(id, &repeated(&values.single, spec.elements()))?,
                // A label, index or mask that every op takes.
                DType::U32 => executor.write(id, &vec![0u32; spec.elements()])?,
            }
        }
        Ok(Trial { executor, outputs: made })
    }

    /// What it gives.
    fn run(&self) -> Result<Vec<Vec<f32>>> {
        self.executor.run()?;
        let read = |&id: &TensorId| match self.executor.graph().tensor(id).spec.dtype {
            DType::F16 => {
                Ok(self.executor.read::<u16>(id)?.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect())
            }
            _ => self.executor.read::<f32>(id),
        };
        self.outputs.iter().map(read).collect()
    }

    /// Seconds that it takes.
    fn time(&self) -> Result<f64> {
        Ok(self.executor.profile()?.iter().map(OpProfile::elapsed_secs).sum())
    }
}

fn repeated<T: Copy>(values: &[T], count: usize) -> Vec<T> {
    let mut all = Vec::with_capacity(count + values.len());
    while all.len() < count {
        all.extend_from_slice(values);
    }
    all.truncate(count);
    all
}

/// Whether every output is that of `expected` up to a relative error.
fn agree(given: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f64) -> bool {
    given.iter().zip(expected).all(|(given, expected)| {
        let (difference, norm) = given
            .par_chunks(1 << 16)
            .zip(expected.par_chunks(1 << 16))
            .map(|(given, expected)| {
                given.iter().zip(expected).fold((0.0, 0.0), |(difference, norm), (&a, &b)| {
                    (difference + f64::from(a - b).powi(2), norm + f64::from(b).powi(2))
                })
            })
            .reduce(|| (0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        // Not so if anything is not a number.
        difference <= tolerance * tolerance * norm
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::DeviceChoice;
    use crate::graph::{CpuTensor, Op, Program};
    use crate::layers::conv3d::conv3d;
    use crate::layers::pointwise::Pointwise;

    fn gpu(context: &Context) -> KernelLimits {
        context.limits().for_cpu(false)
    }

    fn convolution() -> Graph {
        let mut graph = Graph::new();
        let x = graph.input("x", TensorSpec::f32(&[2, 4, 6, 4, 8]));
        let weight = graph.input("weight", TensorSpec::f32(&[20, 8, 3, 3, 3]));
        let bias = graph.input("bias", TensorSpec::f32(&[20]));
        let y = conv3d(&mut graph, x, weight, bias, [3, 3, 3]).unwrap();
        let d_y = graph.input("d_y", TensorSpec::f32(&[2, 4, 6, 4, 20]));
        graph.backward(&[(y, d_y)], &[x, weight]).unwrap();
        graph
    }

    #[test]
    fn every_problem_gets_a_choice_once() {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let (graph, limits) = (convolution(), gpu(&context));
        let mut asked = Vec::new();
        let tuning = tune(&context, std::slice::from_ref(&graph), &limits, |done, all| {
            asked.push((done, all));
            true
        })
        .unwrap();
        assert_eq!(asked, [(0, 3), (1, 3), (2, 3)]);
        let variants: Vec<Variants> = graph.variants(&limits).map(|(_, variants)| variants).collect();
        assert_eq!((variants.len(), tuning.len()), (3, 3), "{tuning:?}");
        for Variants { problem, names, .. } in &variants {
            assert!(names.len() > 1 && names.contains(&tuning[problem].as_str()), "{problem}: {names:?}");
        }
        // What is known is not measured again, and what there is no time for gets the default.
        let other = variants.iter().map(|variants| (variants.problem.clone(), variants.names[1].to_owned())).collect();
        let limits = limits.tuned(other);
        let unasked = |_, _| panic!("nothing is left to measure");
        assert_eq!(tune(&context, std::slice::from_ref(&graph), &limits, unasked).unwrap(), limits.policy.tuning);
        let tuning = tune(&context, &[graph], &gpu(&context), |_, _| false).unwrap();
        assert!(variants.iter().all(|variants| tuning[&variants.problem] == variants.names[0]), "{tuning:?}");
    }

    /// Doubles, except where it triples.
    #[derive(Debug)]
    pub(super) struct Doubling {
        pub triples: fn(&OpContext) -> bool,
    }

    impl Op for Doubling {
        fn name(&self) -> &'static str {
            "doubling"
        }

        fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
            Ok(inputs.to_vec())
        }

        fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
            vec![inputs[0].data.iter().map(|x| 2.0 * x).collect()]
        }

        fn program(&self, context: &OpContext) -> Result<Program> {
            Pointwise::Scale { factor: if (self.triples)(context) { 3.0 } else { 2.0 } }.program(context)
        }

        fn variants(&self, context: &OpContext) -> Option<Variants> {
            let names = vec!["doubles", "triples"];
            Some(Variants { problem: "doubling".into(), names, sample: context.inputs.to_vec() })
        }
    }

    #[test]
    fn what_gives_something_else_is_never_chosen() {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let mut graph = Graph::new();
        let x = graph.input("x", TensorSpec::f32(&[100]));
        let triples =
            |context: &OpContext| context.limits.policy.tuning.get("doubling").is_some_and(|name| name == "triples");
        graph.push_one(Doubling { triples }, &[x]).unwrap();
        let run = |name: &str| {
            let limits = gpu(&context).tuned(Tuning::from([("doubling".to_owned(), name.to_owned())]));
            let (node, sample) = (&graph.nodes[0], [TensorSpec::f32(&[100])]);
            Trial::new(&context, node, &sample, &sample, &limits, &Values::new()).unwrap().run().unwrap()
        };
        let (doubles, triples) = (run("doubles"), run("triples"));
        assert!(agree(&doubles, &run("doubles"), 1e-5) && !agree(&triples, &doubles, 1e-3));
        let tuning = tune(&context, &[graph], &gpu(&context), |_, _| true).unwrap();
        assert_eq!(tuning["doubling"], "doubles");
    }
}
