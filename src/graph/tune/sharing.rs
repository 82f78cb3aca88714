//! Which kernels' launches share dispatches: those that give the same there as alone. A driver compiles another text for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::{Trial, Tuning, Values, agree, tolerance};
use crate::Result;
use crate::gpu::Context;
use crate::graph::plan::{Plan, Step};
use crate::graph::{Graph, Node};
use crate::kernel::{ALONE, Grouping, Kernel, KernelLimits, SHARED};

/// Operands of a node that is tried, in bytes at most: what shares a dispatch is small, except for windows of large tensors.
const MOST_BYTES: u64 = 64 << 20;

/// A choice for every kernel of which launches of `graphs` could share a dispatch and `limits` have no choice yet. Each is
/// tried by its smallest node.
///
/// # Errors
/// [`crate::Error::Device`] or [`crate::Error::Memory`] if a node cannot run with a dispatch for each launch.
pub(super) fn tune_sharing(context: &Arc<Context>, graphs: &[Graph], limits: &KernelLimits) -> Result<Tuning> {
    let mut tuning = Tuning::new();
    let mut smallest: BTreeMap<String, (u64, usize, usize)> = BTreeMap::new();
    for (number, graph) in graphs.iter().enumerate() {
        let plan = Plan::new(graph, &limits.grouped(Grouping::Small))?;
        for step in &plan.steps {
            let Step::Dispatch { members, kernel, .. } = step else { continue };
            let question = Kernel { is_grouped: false, ..kernel.clone() }.sharing();
            if members.len() < 2 || limits.policy.tuning.contains_key(&question) {
                continue;
            }
            let nodes =
                members.iter().map(|member| (graph.node_bytes(&graph.nodes()[member.node]), number, member.node));
            let known = smallest.get(&question).copied();
            smallest.extend(nodes.chain(known).min().map(|least| (question, least)));
        }
    }
    let mut questions: BTreeMap<(usize, usize), BTreeSet<String>> = BTreeMap::new();
    for (question, (bytes, graph, node)) in smallest {
        if bytes <= MOST_BYTES {
            questions.entry((graph, node)).or_default().insert(question);
        }
    }
    let values = Values::new();
    let trials: Vec<_> = questions
        .into_par_iter()
        .map(|((graph, node), questions)| {
            let (graph, node) = (&graphs[graph], &graphs[graph].nodes()[node]);
            let [alone, shared] = [Grouping::Off, Grouping::Every]
                .map(|grouping| trial(context, graph, node, &limits.grouped(grouping), &values));
            (graph, node, questions, alone, shared)
        })
        .collect();
    for (graph, node, questions, alone, shared) in trials {
        let expected = alone?.run()?;
        let specs = graph.specs(&[&node.inputs[..], &node.outputs].concat());
        let gives_the_same = |trial: Trial| Ok(agree(&trial.run()?, &expected, tolerance(&specs)));
        let choice = match shared.and_then(gives_the_same) {
            Ok(true) => SHARED,
            Ok(false) => ALONE,
            // One that the driver refuses is not chosen, unless the device is gone with it.
            Err(_) => {
                context.check()?;
                ALONE
            }
        };
        tuning.extend(questions.into_iter().map(|question| (question, choice.to_owned())));
    }
    Ok(tuning)
}

fn trial(context: &Arc<Context>, graph: &Graph, node: &Node, limits: &KernelLimits, values: &Values) -> Result<Trial> {
    Trial::new(context, node, &graph.specs(&node.inputs), &graph.specs(&node.outputs), limits, values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::DeviceChoice;
    use crate::graph::tune::tests::Doubling;
    use crate::graph::{OpContext, TensorSpec};

    #[test]
    fn launches_that_give_something_else_together_stay_alone() {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let never = |_: &OpContext| false;
        let together = |context: &OpContext| context.limits.policy.grouping == Grouping::Every;
        let ops = [Doubling { triples: never }, Doubling { triples: together }];
        for (Doubling { triples }, (choice, dispatches)) in ops.into_iter().zip([(SHARED, 1), (ALONE, 2)]) {
            let mut graph = Graph::new();
            for (name, extent) in [("a", 100), ("b", 72)] {
                let x = graph.input(name, TensorSpec::f32(&[extent]));
                let y = graph.push_one(Doubling { triples }, &[x]).unwrap();
                graph.keep(y);
            }
            let limits = context.limits().grouped(Grouping::Tried);
            let steps = |tuning: &Tuning| Plan::new(&graph, &limits.tuned(tuning.clone())).unwrap().steps.len();
            assert_eq!(steps(&Tuning::new()), 2);
            let tuning = tune_sharing(&context, std::slice::from_ref(&graph), &limits).unwrap();
            assert_eq!(tuning.values().collect::<Vec<_>>(), [choice], "{tuning:?}");
            assert_eq!(steps(&tuning), dispatches);
            // What is known is not tried again.
            let known = limits.tuned(tuning);
            assert!(tune_sharing(&context, &[graph], &known).unwrap().is_empty());
        }
    }
}
