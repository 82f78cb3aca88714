//! The order of a step's launches, and which of them share a dispatch.
//!
//! Much of a step is small and the same: six planes go through equal layers, and every weight is rearranged by itself. On any
//! adapter such launches cost more than what they do, so those of one kernel that do not depend on each other become one
//! dispatch, at the place of the first, as soon as what all of them read is there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use fixedbitset::FixedBitSet;

use crate::graph::program::{Launch, Operand, Slot};
use crate::graph::{Block, DType, Graph, Kernel, KernelLimits, Storage, TensorId, WORD_BYTES};
use crate::kernel::grouped;

/// Operands up to so many bytes are small on any adapter, and those up to this part of the largest tensor are small beside it:
/// they may have to live longer for launches of several nodes to share a dispatch.
const SMALL_BYTES: usize = 256 << 10;
const SMALL_PART: usize = 64;

/// Workgroups up to which a launch costs a CPU adapter about as much as the work that it starts.
pub(super) const SMALL_WORKGROUPS_CPU: usize = 64;

/// One launch of a node.
#[derive(Debug)]
pub(super) struct Unit {
    /// The node's number in the graph.
    pub node: usize,
    /// What is launched; the kernel knows which bindings are f16.
    pub launch: Launch,
}

/// Memory that a launch reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Resource {
    Tensor(TensorId),
    /// Of a node.
    Scratch(usize, usize),
    /// A parameter's part of a flat block.
    Part(Block, usize),
    /// All of a flat block.
    Whole(Block),
}

/// What launches that share a dispatch have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Signature {
    kernel: Kernel,
    pools: Vec<Pool>,
    /// Where operands are large.
    node: Option<usize>,
}

/// Where an operand is bound from, as far as launches that share a dispatch must agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pool {
    Arena,
    Persistent,
    Block(Block),
}

impl Unit {
    /// A launch of a node's program; tells the kernel which bindings are f16.
    pub(super) fn new(graph: &Graph, node: usize, mut launch: Launch) -> Unit {
        if let Launch::Dispatch { kernel, operands, .. } = &mut launch {
            for (i, operand) in operands.iter().enumerate() {
                if graph.nodes()[node].dtype(graph, operand.slot) == DType::F16 {
                    kernel.half_bindings |= 1 << (i + 1);
                }
            }
        }
        Unit { node, launch }
    }

    /// Everything that it touches.
    pub(super) fn operands(&self) -> impl Iterator<Item = &Operand> {
        let (many, one) = match &self.launch {
            Launch::Dispatch { operands, .. } => (&operands[..], None),
            Launch::Clear { operand } => (&[][..], Some(operand)),
        };
        many.iter().chain(one)
    }

    fn resource(&self, graph: &Graph, slot: Slot) -> Resource {
        match (graph.nodes()[self.node].tensor(slot), slot) {
            (Some(id), _) => match graph.tensor(id).storage {
                Storage::Parameter(i) => Resource::Part(graph.parameters()[i].block(), i),
                Storage::Gradient(i) => Resource::Part(Block::Gradients, i),
                Storage::Block(block) => Resource::Whole(block),
                Storage::Transient | Storage::Input | Storage::Constant(_) => Resource::Tensor(graph.root(id)),
            },
            (None, Slot::Scratch(i) | Slot::Input(i) | Slot::Output(i)) => Resource::Scratch(self.node, i),
        }
    }

    fn pool(&self, graph: &Graph, slot: Slot) -> Pool {
        let storage = graph.nodes()[self.node].tensor(slot).map(|id| &graph.tensor(id).storage);
        match storage.and_then(|storage| graph.block_of(storage)) {
            Some(block) => Pool::Block(block),
            None if matches!(storage, Some(Storage::Input | Storage::Constant(_))) => Pool::Persistent,
            None => Pool::Arena,
        }
    }

    /// `None` for a launch that can share no dispatch; operands up to `small` bytes are small.
    fn signature(&self, graph: &Graph, limits: &KernelLimits, small: usize) -> Option<Signature> {
        let Launch::Dispatch { kernel, parameters, operands, .. } = &self.launch else { return None };
        let most = if limits.policy.for_cpu { SMALL_WORKGROUPS_CPU } else { limits.max_workgroups_per_dimension };
        let fits = grouped::fits(kernel, parameters.len(), operands.len()) && self.workgroups() <= most;
        let pools: Vec<Pool> = operands.iter().map(|operand| self.pool(graph, operand.slot)).collect();
        let is_large = operands
            .iter()
            .zip(&pools)
            .any(|(operand, pool)| !matches!(pool, Pool::Block(_)) && operand.elements.len() * WORD_BYTES > small);
        let node = is_large.then_some(self.node);
        fits.then(|| Signature { kernel: kernel.clone(), pools, node })
    }

    fn workgroups(&self) -> usize {
        match &self.launch {
            Launch::Dispatch { workgroups, .. } => workgroups.iter().map(|&extent| extent as usize).product(),
            Launch::Clear { .. } => 0,
        }
    }
}

/// The launches in an order in which each finds what it reads; those at one place do not depend on each other and run the
/// same kernel.
pub(super) fn schedule(graph: &Graph, units: Vec<Unit>, limits: &KernelLimits) -> Vec<Vec<Unit>> {
    let needs = needs(graph, &units);
    let groups = groups(graph, &units, &needs, limits);
    let mut group_of = vec![0; units.len()];
    for (number, group) in groups.iter().enumerate() {
        group.iter().for_each(|&unit| group_of[unit] = number);
    }
    let mut waiting = vec![0; groups.len()];
    let mut followers = vec![Vec::new(); groups.len()];
    for (unit, needs) in needs.iter().enumerate() {
        for &need in needs {
            waiting[group_of[unit]] += 1;
            followers[group_of[need]].push(group_of[unit]);
        }
    }
    // Groups are numbered by their first launch, so that what shares no dispatch keeps its place as far as it can.
    let ready = (0..groups.len()).filter(|&group| waiting[group] == 0).map(Reverse);
    let mut ready: BinaryHeap<_> = ready.collect();
    let mut units: Vec<Option<Unit>> = units.into_iter().map(Some).collect();
    let mut order = Vec::with_capacity(groups.len());
    while let Some(Reverse(next)) = ready.pop() {
        for &follower in &followers[next] {
            waiting[follower] -= 1;
            if waiting[follower] == 0 {
                ready.push(Reverse(follower));
            }
        }
        order.push(groups[next].iter().filter_map(|&unit| units[unit].take()).collect());
    }
    order
}

/// For each launch those before it that it must come after: they write what it reads or writes, or read what it writes.
fn needs(graph: &Graph, units: &[Unit]) -> Vec<Vec<usize>> {
    let mut writer: HashMap<Resource, usize> = HashMap::new();
    let mut readers: HashMap<Resource, Vec<usize>> = HashMap::new();
    let parts = graph.parameters().len();
    let mut needs = Vec::with_capacity(units.len());
    for (number, unit) in units.iter().enumerate() {
        let mut before = Vec::new();
        let writes = |slot| !matches!(slot, Slot::Input(_));
        for slot in unit.operands().map(|operand| operand.slot) {
            let resource = unit.resource(graph, slot);
            let mut met = vec![resource];
            match resource {
                Resource::Whole(block) => met.extend((0..parts).map(|part| Resource::Part(block, part))),
                Resource::Part(block, _) => met.push(Resource::Whole(block)),
                Resource::Tensor(_) | Resource::Scratch(..) => {}
            }
            for resource in met {
                before.extend(writer.get(&resource));
                if writes(slot) {
                    before.extend(readers.get(&resource).into_iter().flatten());
                }
            }
        }
        for slot in unit.operands().map(|operand| operand.slot) {
            let resource = unit.resource(graph, slot);
            if writes(slot) {
                writer.insert(resource, number);
                readers.remove(&resource);
            } else {
                readers.entry(resource).or_default().push(number);
            }
        }
        before.sort_unstable();
        before.dedup();
        needs.push(before);
    }
    needs
}

/// Joins launches of one signature between which no path leads, one after the other, so that no cycle arises; and only where
/// no launch of large operands has to wait for one that came after it, so that these live no longer than before.
fn groups(graph: &Graph, units: &[Unit], needs: &[Vec<usize>], limits: &KernelLimits) -> Vec<Vec<usize>> {
    let none = FixedBitSet::with_capacity(units.len());
    let mut before = vec![none.clone(); units.len()];
    let mut after = vec![none; units.len()];
    for (unit, needs) in needs.iter().enumerate() {
        for &need in needs {
            let (earlier, later) = before.split_at_mut(unit);
            later[0].union_with(&earlier[need]);
            later[0].insert(need);
        }
    }
    for (unit, before) in before.iter().enumerate() {
        before.ones().for_each(|earlier| after[earlier].insert(unit));
    }
    let largest = graph.tensors.iter().map(|tensor| tensor.spec.bytes()).max().unwrap_or(0);
    let small = SMALL_BYTES.max(largest / SMALL_PART);
    let signatures: Vec<_> = units.iter().map(|unit| unit.signature(graph, limits, small)).collect();
    let is_large = |signature: &Option<Signature>| signature.as_ref().is_none_or(|signature| signature.node.is_some());
    let large: FixedBitSet = (0..units.len()).filter(|&unit| is_large(&signatures[unit])).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut same: HashMap<Signature, Vec<usize>> = HashMap::new();
    for (number, signature) in signatures.into_iter().enumerate() {
        let Some(signature) = signature.filter(|signature| limits.policy.shares(&signature.kernel)) else {
            groups.push(vec![number]);
            continue;
        };
        let candidates = same.entry(signature).or_default();
        let fits = |group: &&usize| {
            let members = &groups[**group];
            let first = members[0];
            let workgroups: usize = members.iter().map(|&member| units[member].workgroups()).sum();
            let needed = [first, number].into_iter().filter_map(|unit| before[unit].maximum()).max();
            let waiting = [first, number].into_iter().filter_map(|unit| after[unit].intersection(&large).next()).min();
            members.len() < grouped::MOST_MEMBERS
                && workgroups + units[number].workgroups() <= limits.max_workgroups_per_dimension
                && !before[number].contains(first)
                && !after[number].contains(first)
                && waiting.is_none_or(|waiting| needed < Some(waiting))
        };
        let Some(&group) = candidates.iter().find(fits) else {
            candidates.push(groups.len());
            groups.push(vec![number]);
            continue;
        };
        // From now on all of the group come before and after the same launches.
        groups[group].push(number);
        let first = groups[group][0];
        let (mut earlier, mut later) = (before[first].clone(), after[first].clone());
        earlier.union_with(&before[number]);
        later.union_with(&after[number]);
        let (mut earlier_and_group, mut later_and_group) = (earlier.clone(), later.clone());
        groups[group].iter().for_each(|&member| {
            earlier_and_group.insert(member);
            later_and_group.insert(member);
        });
        earlier.ones().for_each(|unit| after[unit].union_with(&later_and_group));
        later.ones().for_each(|unit| before[unit].union_with(&earlier_and_group));
        for &member in &groups[group] {
            before[member].clone_from(&earlier);
            after[member].clone_from(&later);
        }
    }
    groups
}
