//! When the memory of each tensor is in use, and where it lies.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::schedule::Unit;
use super::{BufferId, Placement, Plan};
use crate::graph::program::{LAYER_BYTES, Scratch, Slot};
use crate::graph::{Graph, KernelLimits, Storage, TensorId, WORD_BYTES};
use crate::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    Arena,
    Image,
    Persistent,
}

/// A piece of memory and the times (places in the order of dispatches) at which it is in use.
#[derive(Debug, Clone)]
struct Interval {
    first: usize,
    last: usize,
    bytes: usize,
    pool: Pool,
    owner: Owner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Tensor(TensorId),
    /// Of a node, by number.
    Scratch(usize, usize),
}

/// A use of a tensor by a node at a time.
#[derive(Debug)]
pub(in crate::graph) struct Touch {
    pub time: usize,
    pub node: usize,
    pub tensor: TensorId,
}

/// What each launch touches, apart from scratch; the times are places in `order`.
pub(in crate::graph) fn touches(graph: &Graph, order: &[Vec<Unit>]) -> Vec<Touch> {
    let mut touches = Vec::new();
    for (time, group) in order.iter().enumerate() {
        for unit in group {
            let tensors = unit.operands().filter_map(|operand| graph.nodes()[unit.node].tensor(operand.slot));
            touches.extend(tensors.map(|tensor| Touch { time, node: unit.node, tensor }));
        }
    }
    touches
}

/// When the memory of each tensor is in use.
pub(in crate::graph) struct Lifetimes {
    intervals: Vec<Interval>,
    by_root: HashMap<TensorId, usize>,
    /// Tensors that live in another tensor's interval.
    shared: HashMap<TensorId, TensorId>,
}

pub(in crate::graph) struct Places {
    pub tensors: HashMap<TensorId, Placement>,
    pub scratch: HashMap<(usize, usize), Placement>,
}

impl Places {
    pub(in crate::graph) fn tensor(&self, graph: &Graph, id: TensorId) -> Option<Placement> {
        self.tensors.get(&graph.root(id)).copied()
    }
}

impl Lifetimes {
    /// Of what `touches` says, `end` being the number of times; whether ops may work `in_place`.
    pub(in crate::graph) fn new(graph: &Graph, touches: &[Touch], end: usize, in_place: bool) -> Lifetimes {
        let mut lifetimes = Lifetimes { intervals: Vec::new(), by_root: HashMap::new(), shared: HashMap::new() };
        let used: HashSet<TensorId> = touches.iter().map(|touch| graph.root(touch.tensor)).collect();
        for (i, tensor) in graph.tensors.iter().enumerate() {
            let persistent = matches!(tensor.storage, Storage::Input | Storage::Constant(_));
            if persistent && tensor.root.0 == i && (tensor.kept || used.contains(&tensor.root)) {
                lifetimes.touch(graph, TensorId(i), 0, Pool::Persistent);
                lifetimes.touch(graph, TensorId(i), end, Pool::Persistent);
            }
        }
        for &Touch { time, tensor: id, .. } in touches {
            if graph.tensor(id).storage == Storage::Transient {
                lifetimes.touch(graph, id, time, Pool::Arena);
                if graph.tensor(graph.root(id)).kept {
                    lifetimes.touch(graph, id, end, Pool::Arena);
                }
            }
        }
        if in_place {
            lifetimes.share_in_place(graph, touches);
        }
        lifetimes
    }

    fn touch(&mut self, graph: &Graph, id: TensorId, time: usize, pool: Pool) {
        let root = graph.root(id);
        let bytes = graph.tensor(root).spec.bytes();
        let intervals = &mut self.intervals;
        let slot = *self.by_root.entry(root).or_insert_with(|| {
            intervals.push(Interval { first: time, last: time, bytes, pool, owner: Owner::Tensor(root) });
            intervals.len() - 1
        });
        self.intervals[slot].first = self.intervals[slot].first.min(time);
        self.intervals[slot].last = self.intervals[slot].last.max(time);
    }

    /// The temporaries of the nodes, by node and number.
    pub(super) fn add_scratch(&mut self, order: &[Vec<Unit>], scratch: &HashMap<(usize, usize), Scratch>) {
        let mut spans: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
        for (time, group) in order.iter().enumerate() {
            for unit in group {
                for operand in unit.operands() {
                    if let Slot::Scratch(number) = operand.slot {
                        spans.entry((unit.node, number)).or_insert((time, time)).1 = time;
                    }
                }
            }
        }
        for ((node, number), (first, last)) in spans {
            let Some(scratch) = scratch.get(&(node, number)) else { continue };
            let pool = if matches!(scratch, Scratch::Image(_)) { Pool::Image } else { Pool::Arena };
            self.intervals.push(Interval {
                first,
                last,
                bytes: scratch.bytes(),
                pool,
                owner: Owner::Scratch(node, number),
            });
        }
    }

    fn owner_of(&self, mut root: TensorId) -> TensorId {
        while let Some(&owner) = self.shared.get(&root) {
            root = owner;
        }
        root
    }

    /// Lets an op overwrite an input that nobody else needs from its first launch on.
    fn share_in_place(&mut self, graph: &Graph, touches: &[Touch]) {
        let mut spans: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut users: HashMap<TensorId, Vec<&Touch>> = HashMap::new();
        for touch in touches {
            let span = spans.entry(touch.node).or_insert((touch.time, touch.time));
            *span = (span.0.min(touch.time), span.1.max(touch.time));
            users.entry(graph.root(touch.tensor)).or_default().push(touch);
        }
        let mut spans: Vec<_> = spans.into_iter().collect();
        spans.sort_by_key(|&(_, (first, _))| first);
        for (index, (first, last)) in spans {
            let node = &graph.nodes()[index];
            let Some((output, input)) = node.op.in_place() else { continue };
            let (input, output) = (graph.root(node.inputs[input]), graph.root(node.outputs[output]));
            let owner = self.owner_of(input);
            let (Some(&from), Some(&to)) = (self.by_root.get(&owner), self.by_root.get(&output)) else { continue };
            let times = node.inputs.iter().filter(|&&i| graph.root(i) == input).count();
            let is_free = |touch: &&Touch| touch.node == index || touch.time < first;
            let fits = self.intervals[from].last == last
                && self.intervals[from].pool == Pool::Arena
                && self.intervals[to].first == first
                && self.intervals[from].bytes == self.intervals[to].bytes
                && times == 1
                && users.get(&input).is_some_and(|users| users.iter().all(is_free));
            if fits {
                self.intervals[from].last = self.intervals[to].last;
                self.intervals[to].bytes = 0;
                self.shared.insert(output, owner);
                self.by_root.insert(output, from);
            }
        }
    }

    /// Bytes of transient tensors in use at each of the first `end` times.
    pub(in crate::graph) fn arena_bytes(&self, end: usize) -> Vec<usize> {
        let mut bytes = vec![0; end];
        for interval in self.intervals.iter().filter(|interval| interval.pool == Pool::Arena) {
            bytes[interval.first..end.min(interval.last + 1)].iter_mut().for_each(|sum| *sum += interval.bytes);
        }
        bytes
    }

    /// Greedy by size: the largest tensors first, each at the lowest free offset of the first arena that has room.
    pub(in crate::graph) fn place(mut self, graph: &Graph, limits: &KernelLimits, plan: &mut Plan) -> Result<Places> {
        let mut places = Places { tensors: HashMap::new(), scratch: HashMap::new() };
        self.intervals.retain(|interval| interval.bytes > 0);
        self.intervals.sort_by_key(|interval| (std::cmp::Reverse(interval.bytes), interval.first));
        let mut placed: Vec<(Interval, Placement)> = Vec::new();
        for interval in &self.intervals {
            let (alignment, capacity) = match interval.pool {
                Pool::Image => (LAYER_BYTES, limits.max_image_bytes),
                Pool::Arena | Pool::Persistent => (limits.offset_alignment_bytes, limits.max_buffer_bytes),
            };
            let capacity = capacity / alignment * alignment;
            let bytes = interval.bytes.next_multiple_of(alignment);
            if bytes > capacity {
                let name = match interval.owner {
                    Owner::Tensor(id) => graph.describe(id),
                    Owner::Scratch(..) => "a kernel's scratch memory".to_owned(),
                };
                return Err(Error::Memory(format!(
                    "{name} needs {bytes} bytes, more than this adapter's largest buffer or image ({capacity}); use a smaller \
                     T, grid (data.crop) or preset"
                )));
            }
            let mut arena = 0;
            let (buffer, offset) = loop {
                let buffer = match interval.pool {
                    Pool::Arena => BufferId::Arena(arena),
                    Pool::Image => BufferId::Image(arena),
                    Pool::Persistent => BufferId::Persistent(arena),
                };
                let mut busy: Vec<(usize, usize)> = placed
                    .iter()
                    .filter(|(other, place)| {
                        place.buffer == buffer && other.first <= interval.last && interval.first <= other.last
                    })
                    .map(|(_, place)| (place.offset, place.offset + place.bytes))
                    .collect();
                busy.sort_unstable();
                let mut offset = 0;
                for (start, end) in busy {
                    if start >= offset + bytes {
                        break;
                    }
                    offset = offset.max(end);
                }
                if offset + bytes <= capacity {
                    break (buffer, offset);
                }
                arena += 1;
            };
            let sizes = match interval.pool {
                Pool::Arena => &mut plan.arenas,
                Pool::Image => &mut plan.images,
                Pool::Persistent => &mut plan.persistent,
            };
            if sizes.len() <= arena {
                sizes.resize(arena + 1, 0);
            }
            sizes[arena] = sizes[arena].max(offset + bytes);
            let place = Placement { buffer, offset, bytes };
            match interval.owner {
                Owner::Tensor(id) => places.tensors.insert(id, Placement { bytes: interval.bytes, ..place }),
                Owner::Scratch(time, number) => {
                    places.scratch.insert((time, number), Placement { bytes: interval.bytes, ..place })
                }
            };
            placed.push((interval.clone(), place));
        }
        for &shared in self.shared.keys() {
            if let Some(&place) = places.tensors.get(&self.owner_of(shared)) {
                places.tensors.insert(shared, place);
            }
        }
        for (i, tensor) in graph.tensors.iter().enumerate() {
            if let Some((block, range)) = graph.block_range(tensor) {
                let place = Placement {
                    buffer: BufferId::Block(block),
                    offset: range.start * WORD_BYTES,
                    bytes: range.len() * WORD_BYTES,
                };
                places.tensors.insert(TensorId(i), place);
                plan.blocks.insert(block, graph.block_elements(block) * WORD_BYTES);
            }
        }
        Ok(places)
    }
}
