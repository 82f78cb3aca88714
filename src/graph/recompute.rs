//! Recomputation: a graph that needs less memory, because results are computed again where they are needed instead of being
//! kept.

use std::collections::{BTreeSet, HashMap};

use super::plan::{Lifetimes, Plan, Touch, live_nodes};
use super::{Graph, Grouping, KernelLimits, Node, OpContext, Scratch, Storage, Tensor, TensorId};
use crate::Result;

/// Floating-point operations that take an adapter as long as writing one byte, roughly: what makes a byte that is recomputed
/// by a convolution dearer than one of a pointwise op.
const FLOPS_PER_BYTE: u64 = 16;

/// The same for one more launch.
const FLOPS_PER_NODE: u64 = 10_000_000;

/// Tensors smaller than this part of the peak are kept: there are many of them, and they would not lower it by much.
const SMALLEST_PART: usize = 256;

/// Plans `graph` so that `excess` of the plan, the bytes beyond what there is, becomes 0, by recomputing what costs least for
/// the memory it frees. Where that cannot be reached, the plan of the least excess is returned.
///
/// The same kernels run on the same operands, so results stay the same to the bit. Launches that share a dispatch need memory at
/// the same time, so they do not where the rest is not enough.
///
/// # Errors
/// Those of [`Plan::new`].
pub fn plan_within(graph: Graph, limits: &KernelLimits, excess: impl Fn(&Plan) -> usize) -> Result<(Graph, Plan)> {
    let found = recompute_within(graph.clone(), limits, &excess)?;
    let least = excess(&found.1);
    if least == 0 || limits.policy.grouping == Grouping::Off {
        return Ok(found);
    }
    let other = recompute_within(graph, &limits.grouped(Grouping::Off), &excess)?;
    Ok(if excess(&other.1) < least { other } else { found })
}

fn recompute_within(graph: Graph, limits: &KernelLimits, excess: &impl Fn(&Plan) -> usize) -> Result<(Graph, Plan)> {
    let plan = Plan::new(&graph, limits)?;
    let mut least = excess(&plan);
    if least == 0 {
        return Ok((graph, plan));
    }
    let mut best = (graph.clone(), plan);
    let mut schedule = Schedule::new(graph, limits)?;
    let mut target = schedule.peak().0;
    let mut over = least;
    // Live bytes are what can be lowered; a plan also has gaps, which show only when it is made.
    while least > 0 {
        target = target.min(schedule.peak().0).saturating_sub(over);
        let reached = schedule.lower(target);
        let plan = Plan::new(&schedule.graph, limits)?;
        over = excess(&plan);
        if over < least {
            least = over;
            best = (schedule.graph.clone(), plan);
        }
        if !reached {
            break;
        }
    }
    Ok(best)
}

/// A graph of nothing but nodes that run, and the memory that each finds in use.
struct Schedule {
    graph: Graph,
    /// Bytes of every node's scratch tensors.
    scratch: Vec<usize>,
    /// Bytes alive while each node runs, its scratch included.
    usage: Vec<usize>,
    /// Whether ops may overwrite what they read.
    in_place: bool,
}

/// A tensor that is kept over a peak, and how to do without.
struct Candidate {
    tensor: TensorId,
    /// Position of its first use after the peak.
    at: usize,
    /// Positions of the nodes to run again before that, in order.
    again: BTreeSet<usize>,
    /// Cost of a byte that is freed.
    price: f64,
}

impl Schedule {
    fn new(graph: Graph, limits: &KernelLimits) -> Result<Schedule> {
        let mut scratch = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let (inputs, outputs) = (graph.specs(&node.inputs), graph.specs(&node.outputs));
            let program = node.op.program(&OpContext { inputs: &inputs, outputs: &outputs, limits })?;
            scratch.push(program.scratch.iter().map(Scratch::bytes).sum());
        }
        Ok(Schedule::of(graph, &scratch, !limits.forbids_aliasing))
    }

    /// Of the nodes of `graph` that matter; `scratch` has one number for each node.
    fn of(mut graph: Graph, scratch: &[usize], in_place: bool) -> Schedule {
        let live = live_nodes(&graph);
        graph.nodes = live.iter().map(|&index| graph.nodes[index].clone()).collect();
        let scratch: Vec<usize> = live.iter().map(|&index| scratch[index]).collect();
        let mut touches = Vec::new();
        for (time, node) in graph.nodes.iter().enumerate() {
            let operands = node.inputs.iter().chain(&node.outputs);
            touches.extend(operands.map(|&tensor| Touch { time, node: time, tensor }));
        }
        let alive = Lifetimes::new(&graph, &touches, live.len(), in_place).arena_bytes(live.len());
        let usage = alive.iter().zip(&scratch).map(|(alive, scratch)| alive + scratch).collect();
        Schedule { graph, scratch, usage, in_place }
    }

    /// The most bytes alive, how many nodes find so many, and the first of them.
    fn peak(&self) -> (usize, usize, usize) {
        let most = self.usage.iter().copied().max().unwrap_or(0);
        let mut times = self.usage.iter().enumerate().filter(|(_, bytes)| **bytes == most).map(|(time, _)| time);
        let first = times.next().unwrap_or(0);
        (most, 1 + times.count(), first)
    }

    /// Recomputes until no node finds more than `target` bytes alive; says whether that was reached.
    fn lower(&mut self, target: usize) -> bool {
        loop {
            let (most, often, time) = self.peak();
            if most <= target {
                return true;
            }
            let mut candidates = self.candidates(time);
            candidates.sort_by(|a, b| a.price.total_cmp(&b.price).then(a.tensor.cmp(&b.tensor)));
            let lower = |schedule: &Schedule| (schedule.peak().0, schedule.peak().1) < (most, often);
            let Some(lowered) = candidates.iter().find_map(|candidate| self.without(candidate).filter(lower)) else {
                return false;
            };
            *self = lowered;
        }
    }

    /// What is alive while the node at `time` runs, but not touched by it, and can be computed again.
    fn candidates(&self, time: usize) -> Vec<Candidate> {
        let graph = &self.graph;
        let mut producer = HashMap::new();
        // Positions of the nodes that read a tensor, in order.
        let mut uses: HashMap<TensorId, Vec<usize>> = HashMap::new();
        for (position, node) in graph.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|&id| _ = producer.insert(graph.root(id), position));
            node.inputs.iter().for_each(|&id| uses.entry(graph.root(id)).or_default().push(position));
        }
        let mut candidates = Vec::new();
        for (&tensor, &made) in &producer {
            let read = uses.get(&tensor).map_or(&[][..], Vec::as_slice);
            let Some(&at) = read.iter().find(|&&position| position > time) else { continue };
            let bytes = self.bytes(tensor);
            if made >= time || read.contains(&time) || bytes < self.usage[time] / SMALLEST_PART {
                continue;
            }
            let Some(again) = self.closure(tensor, at, &producer, &uses) else { continue };
            let cost: u64 = again.iter().map(|&position| self.cost(&graph.nodes[position])).sum();
            candidates.push(Candidate { tensor, at, again, price: cost as f64 / bytes as f64 });
        }
        candidates
    }

    fn recomputable(&self, root: TensorId) -> bool {
        let tensor = self.graph.tensor(root);
        tensor.storage == Storage::Transient && !tensor.kept
    }

    fn bytes(&self, id: TensorId) -> usize {
        self.graph.tensor(id).spec.bytes()
    }

    fn cost(&self, node: &Node) -> u64 {
        let bytes: usize = node.outputs.iter().map(|&id| self.bytes(id)).sum();
        FLOPS_PER_NODE + self.graph.node_flops(node) + FLOPS_PER_BYTE * bytes as u64
    }

    /// The nodes to run again so that `tensor` is there at `at`: its producer, and those of whatever is gone by then.
    /// `None` if something would be needed that cannot be computed again.
    fn closure(
        &self,
        tensor: TensorId,
        at: usize,
        producer: &HashMap<TensorId, usize>,
        uses: &HashMap<TensorId, Vec<usize>>,
    ) -> Option<BTreeSet<usize>> {
        let mut again = BTreeSet::new();
        let mut wanted = vec![tensor];
        while let Some(root) = wanted.pop() {
            let position = *producer.get(&root)?;
            if !self.recomputable(root) {
                return None;
            }
            if !again.insert(position) {
                continue;
            }
            let node = &self.graph.nodes[position];
            // It would change again what outlives the step.
            if node.outputs.iter().any(|&id| self.graph.tensor(id).storage != Storage::Transient) {
                return None;
            }
            for &input in &node.inputs {
                let input = self.graph.root(input);
                let tensor = self.graph.tensor(input);
                // What it has read may be overwritten by then.
                if tensor.storage != Storage::Transient && producer.contains_key(&input) {
                    return None;
                }
                let outlives = tensor.kept || tensor.storage != Storage::Transient;
                if !outlives && uses.get(&input).and_then(|read| read.last()).is_none_or(|&last| last < at) {
                    wanted.push(input);
                }
            }
        }
        Some(again)
    }

    /// The schedule with the candidate recomputed.
    fn without(&self, candidate: &Candidate) -> Option<Schedule> {
        let mut graph = self.graph.clone();
        let mut copies = HashMap::new();
        let mut nodes = Vec::with_capacity(candidate.again.len());
        for &position in &candidate.again {
            let mut node = graph.nodes[position].clone();
            node.inputs.iter_mut().for_each(|id| *id = copy_of(&mut graph, *id, &mut copies));
            for output in &mut node.outputs {
                let Tensor { name, spec, storage, .. } = graph.tensor(*output).clone();
                let copy = graph.add_tensor(name, spec, storage);
                copies.insert(*output, copy);
                *output = copy;
            }
            nodes.push(node);
        }
        // Only the tensor itself is replaced where it is used later; what else came along is gone again.
        let mut replaced = HashMap::from([(candidate.tensor, *copies.get(&candidate.tensor)?)]);
        for position in candidate.at..graph.nodes.len() {
            let mut inputs = std::mem::take(&mut graph.nodes[position].inputs);
            inputs.iter_mut().for_each(|id| *id = copy_of(&mut graph, *id, &mut replaced));
            graph.nodes[position].inputs = inputs;
        }
        let mut scratch = self.scratch.clone();
        let added: Vec<usize> = candidate.again.iter().map(|&position| self.scratch[position]).collect();
        scratch.splice(candidate.at..candidate.at, added);
        graph.nodes.splice(candidate.at..candidate.at, nodes);
        Some(Schedule::of(graph, &scratch, self.in_place))
    }
}

/// What stands for `id` if its memory was copied: the copy, or a view of it like the one that `id` is.
fn copy_of(graph: &mut Graph, id: TensorId, copies: &mut HashMap<TensorId, TensorId>) -> TensorId {
    if let Some(&copy) = copies.get(&id) {
        return copy;
    }
    let Some(&root) = copies.get(&graph.root(id)) else { return id };
    let Tensor { name, spec, storage, .. } = graph.tensor(id).clone();
    let view = graph.add_tensor(name, spec, storage);
    graph.tensors[view.0].root = root;
    copies.insert(id, view);
    view
}
