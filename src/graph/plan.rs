//! The plan: which nodes run, where every tensor lives, how much memory that takes. Made once, before anything is
//! allocated.

use std::collections::{HashMap, HashSet};

use super::program::{Launch, Operand, Slot};
use super::{Block, DType, Graph, Kernel, KernelLimits, Node, OpContext, Storage, TensorId, WORD_BYTES};
use crate::gpu::BoundKernel;
use crate::{Error, Result};

/// A buffer of the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BufferId {
    /// Transient tensors; shared by all plans of a run.
    Arena(usize),
    /// Inputs and constants of this plan.
    Persistent(usize),
    /// A flat block.
    Block(Block),
}

/// A range of bytes in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Which buffer.
    pub buffer: BufferId,
    /// First byte.
    pub offset: usize,
    /// Number of bytes.
    pub bytes: usize,
}

/// A kernel launch with resolved places.
#[derive(Debug, Clone)]
pub enum Step {
    /// Runs a kernel.
    Dispatch {
        /// The node it belongs to.
        node: usize,
        /// Shader and entry point.
        kernel: Kernel,
        /// Words of the parameter block.
        parameters: Vec<u32>,
        /// Ranges bound from binding 1 on.
        bindings: Vec<Placement>,
        /// Workgroups.
        workgroups: [u32; 3],
    },
    /// Zeroes a range.
    Clear {
        /// What is cleared.
        place: Placement,
    },
}

/// Everything the executor needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Launches in order.
    pub steps: Vec<Step>,
    /// Place of every tensor that has one, by the tensor that owns the memory.
    pub places: HashMap<TensorId, Placement>,
    /// Bytes of each arena.
    pub arenas: Vec<usize>,
    /// Bytes of each persistent buffer.
    pub persistent: Vec<usize>,
    /// Bytes of the flat blocks in use.
    pub blocks: HashMap<Block, usize>,
    /// Largest range bound to a kernel, in bytes.
    pub largest_binding: usize,
    /// Largest tensor, in bytes.
    pub largest_tensor: usize,
}

impl Plan {
    /// Plans `graph` under `limits`.
    ///
    /// # Errors
    /// [`Error::Device`] if a kernel cannot work within the limits, [`Error::Memory`] if a tensor exceeds the largest buffer.
    pub fn new(graph: &Graph, limits: &KernelLimits) -> Result<Plan> {
        if !limits.has_f16 && graph.tensors.iter().any(|tensor| tensor.spec.dtype == DType::F16) {
            return Err(Error::Device(
                "this adapter has no 16-bit floats (shader-f16 of `sep4d devices`), which train.precision = \"f16\" needs; set it \
                 to \"f32\" or choose another adapter (--device)"
                    .into(),
            ));
        }
        let live = live_nodes(graph);
        let mut lifetimes = Lifetimes::new(graph, &live);
        lifetimes.share_in_place(graph, &live);

        let mut programs = Vec::with_capacity(live.len());
        for (time, &index) in live.iter().enumerate() {
            let node = &graph.nodes()[index];
            let (inputs, outputs) = (graph.specs(&node.inputs), graph.specs(&node.outputs));
            let program = node.op.program(&OpContext { inputs: &inputs, outputs: &outputs, limits })?;
            for (number, elements) in program.scratch.iter().enumerate() {
                lifetimes.add_scratch(time, number, elements * WORD_BYTES);
            }
            programs.push(program);
        }

        let mut plan = Plan {
            steps: Vec::new(),
            places: HashMap::new(),
            arenas: Vec::new(),
            persistent: Vec::new(),
            blocks: HashMap::new(),
            largest_binding: 0,
            largest_tensor: graph.tensors.iter().map(|t| t.spec.bytes()).max().unwrap_or(0),
        };
        let places = lifetimes.place(graph, limits, &mut plan)?;
        for (time, (&index, program)) in live.iter().zip(programs).enumerate() {
            let resolver = Resolver { graph, limits, places: &places, time, node: &graph.nodes()[index] };
            for launch in &program.launches {
                plan.steps.push(match launch {
                    Launch::Dispatch { kernel, parameters, operands, workgroups } => {
                        let mut bindings = Vec::with_capacity(operands.len());
                        let mut kernel = kernel.clone();
                        for (i, operand) in operands.iter().enumerate() {
                            if resolver.dtype(operand.slot) == DType::F16 {
                                kernel.half_bindings |= 1 << (i + 1);
                            }
                            let place = resolver.binding(operand)?;
                            plan.largest_binding = plan.largest_binding.max(place.bytes);
                            bindings.push(place);
                        }
                        Step::Dispatch {
                            node: index,
                            kernel,
                            parameters: parameters.clone(),
                            bindings,
                            workgroups: *workgroups,
                        }
                    }
                    Launch::Clear { operand } => {
                        // A clear is no binding, so its size does not matter.
                        Step::Clear { place: resolver.place(operand)? }
                    }
                });
            }
        }
        plan.places = places.tensors;
        Ok(plan)
    }

    /// The kernel of every launch, with the number of its operands.
    pub fn kernels(&self) -> impl Iterator<Item = BoundKernel> {
        self.steps.iter().filter_map(|step| match step {
            Step::Dispatch { kernel, bindings, .. } => Some((kernel.clone(), bindings.len())),
            Step::Clear { .. } => None,
        })
    }

    /// Bytes of everything this plan needs on the device, kernels' parameter words excepted.
    pub fn peak_bytes(&self) -> usize {
        let buffers = self.arenas.iter().chain(&self.persistent);
        buffers.sum::<usize>() + self.blocks.values().sum::<usize>()
    }
}

/// Sizes of the buffers that several plans of a run share, each as large as the plan that needs most of it.
pub fn shared_bytes(plans: &[&Plan]) -> HashMap<BufferId, usize> {
    let mut sizes: HashMap<BufferId, usize> = HashMap::new();
    for plan in plans {
        let arenas = plan.arenas.iter().enumerate().map(|(i, &bytes)| (BufferId::Arena(i), bytes));
        let blocks = plan.blocks.iter().map(|(&block, &bytes)| (BufferId::Block(block), bytes));
        for (id, bytes) in arenas.chain(blocks) {
            let size = sizes.entry(id).or_default();
            *size = bytes.max(*size);
        }
    }
    sizes
}

/// Finds the places of one live node's operands.
struct Resolver<'a> {
    graph: &'a Graph,
    limits: &'a KernelLimits,
    places: &'a Places,
    time: usize,
    node: &'a Node,
}

impl Resolver<'_> {
    fn dtype(&self, slot: Slot) -> DType {
        match slot {
            Slot::Input(i) => self.graph.tensor(self.node.inputs[i]).spec.dtype,
            Slot::Output(i) => self.graph.tensor(self.node.outputs[i]).spec.dtype,
            Slot::Scratch(_) => DType::F32,
        }
    }

    /// Where `operand` lies. One that reaches beyond its tensor is a mistake of the op; the end of the last word may.
    fn place(&self, operand: &Operand) -> Result<Placement> {
        let Resolver { graph, node, .. } = self;
        let element_bytes = self.dtype(operand.slot).bytes();
        let of = |id| (self.places.tensor(graph, id), graph.tensor(id).spec.elements());
        let (place, elements) = match operand.slot {
            Slot::Input(i) => of(node.inputs[i]),
            Slot::Output(i) => of(node.outputs[i]),
            Slot::Scratch(i) => {
                let place = self.places.scratch.get(&(self.time, i)).copied();
                (place, place.map_or(0, |p| p.bytes / WORD_BYTES))
            }
        };
        let range = &operand.elements;
        let (start, bytes) = (range.start * element_bytes, (range.len() * element_bytes).next_multiple_of(WORD_BYTES));
        let alignment = self.limits.offset_alignment_bytes;
        match place {
            Some(place) if range.end <= elements && bytes > 0 && start.is_multiple_of(alignment) => {
                Ok(Placement { buffer: place.buffer, offset: place.offset + start, bytes })
            }
            _ => Err(Error::Device(format!(
                "{} in '{}' binds elements {range:?} of {:?}, which has {elements} (at {place:?}, alignment {alignment} \
                 bytes); this is a mistake in the layer, please report it",
                node.op.name(),
                node.scope,
                operand.slot
            ))),
        }
    }

    /// The same if a kernel can bind that much at once.
    fn binding(&self, operand: &Operand) -> Result<Placement> {
        let Resolver { graph, node, limits, .. } = self;
        let place = self.place(operand)?;
        let limit = limits.max_storage_binding_bytes;
        if place.bytes <= limit {
            return Ok(place);
        }
        let name = match operand.slot {
            Slot::Input(i) => graph.describe(node.inputs[i]),
            Slot::Output(i) => graph.describe(node.outputs[i]),
            Slot::Scratch(_) => "scratch memory".to_owned(),
        };
        Err(Error::Device(format!(
            "{} in '{}' needs {} bytes of {name} at once, but this adapter binds at most {limit} bytes; use a smaller T \
             (data.frames), grid (data.crop) or preset, or another adapter (--device)",
            node.op.name(),
            node.scope,
            place.bytes
        )))
    }
}

/// Indices of the nodes on which something observable depends.
pub(super) fn live_nodes(graph: &Graph) -> Vec<usize> {
    let mut needed: Vec<bool> = graph
        .tensors
        .iter()
        .map(|t| t.kept || matches!(t.storage, Storage::Gradient(_) | Storage::Block(_) | Storage::Input))
        .collect();
    let mut live = Vec::new();
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        if node.outputs.iter().any(|&o| needed[graph.root(o).0] || needed[o.0]) {
            for &input in &node.inputs {
                needed[graph.root(input).0] = true;
            }
            live.push(index);
        }
    }
    live.reverse();
    live
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    Arena,
    Persistent,
}

/// A piece of memory and the times (positions among the live nodes) at which it is in use.
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
    Scratch(usize, usize),
}

/// When the memory of each tensor is in use.
pub(super) struct Lifetimes {
    intervals: Vec<Interval>,
    by_root: HashMap<TensorId, usize>,
    /// Tensors that live in another tensor's interval.
    shared: HashMap<TensorId, TensorId>,
}

struct Places {
    tensors: HashMap<TensorId, Placement>,
    scratch: HashMap<(usize, usize), Placement>,
}

impl Places {
    fn tensor(&self, graph: &Graph, id: TensorId) -> Option<Placement> {
        self.tensors.get(&graph.root(id)).copied()
    }
}

impl Lifetimes {
    pub(super) fn new(graph: &Graph, live: &[usize]) -> Lifetimes {
        let end = live.len();
        let mut lifetimes = Lifetimes { intervals: Vec::new(), by_root: HashMap::new(), shared: HashMap::new() };
        let operands = |index: &usize| graph.nodes()[*index].inputs.iter().chain(&graph.nodes()[*index].outputs);
        let used: HashSet<TensorId> = live.iter().flat_map(operands).map(|&id| graph.root(id)).collect();
        for (i, tensor) in graph.tensors.iter().enumerate() {
            let persistent = matches!(tensor.storage, Storage::Input | Storage::Constant(_));
            if persistent && tensor.root.0 == i && (tensor.kept || used.contains(&tensor.root)) {
                lifetimes.touch(graph, TensorId(i), 0, Pool::Persistent);
                lifetimes.touch(graph, TensorId(i), end, Pool::Persistent);
            }
        }
        for (time, index) in live.iter().enumerate() {
            for &id in operands(index) {
                if graph.tensor(id).storage == Storage::Transient {
                    lifetimes.touch(graph, id, time, Pool::Arena);
                    if graph.tensor(graph.root(id)).kept {
                        lifetimes.touch(graph, id, end, Pool::Arena);
                    }
                }
            }
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

    fn add_scratch(&mut self, time: usize, number: usize, bytes: usize) {
        let owner = Owner::Scratch(time, number);
        self.intervals.push(Interval { first: time, last: time, bytes, pool: Pool::Arena, owner });
    }

    fn owner_of(&self, mut root: TensorId) -> TensorId {
        while let Some(&owner) = self.shared.get(&root) {
            root = owner;
        }
        root
    }

    /// Lets an op overwrite an input that nobody needs afterwards.
    pub(super) fn share_in_place(&mut self, graph: &Graph, live: &[usize]) {
        for (time, &index) in live.iter().enumerate() {
            let node = &graph.nodes()[index];
            let Some((output, input)) = node.op.in_place() else { continue };
            let (input, output) = (graph.root(node.inputs[input]), graph.root(node.outputs[output]));
            let owner = self.owner_of(input);
            let (Some(&from), Some(&to)) = (self.by_root.get(&owner), self.by_root.get(&output)) else { continue };
            let times = node.inputs.iter().filter(|&&i| graph.root(i) == input).count();
            let fits = self.intervals[from].last == time
                && self.intervals[from].pool == Pool::Arena
                && self.intervals[to].first == time
                && self.intervals[from].bytes == self.intervals[to].bytes
                && times == 1;
            if fits {
                self.intervals[from].last = self.intervals[to].last;
                self.intervals[to].bytes = 0;
                self.shared.insert(output, owner);
                self.by_root.insert(output, from);
            }
        }
    }

    /// Bytes of transient tensors in use at each of the first `end` times.
    pub(super) fn arena_bytes(&self, end: usize) -> Vec<usize> {
        let mut bytes = vec![0; end];
        for interval in self.intervals.iter().filter(|interval| interval.pool == Pool::Arena) {
            bytes[interval.first..end.min(interval.last + 1)].iter_mut().for_each(|sum| *sum += interval.bytes);
        }
        bytes
    }

    /// Greedy by size: the largest tensors first, each at the lowest free offset of the first arena that has room.
    fn place(mut self, graph: &Graph, limits: &KernelLimits, plan: &mut Plan) -> Result<Places> {
        let capacity = limits.max_buffer_bytes / limits.offset_alignment_bytes * limits.offset_alignment_bytes;
        let mut places = Places { tensors: HashMap::new(), scratch: HashMap::new() };
        self.intervals.retain(|interval| interval.bytes > 0);
        self.intervals.sort_by_key(|interval| (std::cmp::Reverse(interval.bytes), interval.first));
        let mut placed: Vec<(Interval, Placement)> = Vec::new();
        for interval in &self.intervals {
            let bytes = interval.bytes.next_multiple_of(limits.offset_alignment_bytes);
            if bytes > capacity {
                let name = match interval.owner {
                    Owner::Tensor(id) => graph.describe(id),
                    Owner::Scratch(..) => "a kernel's scratch memory".to_owned(),
                };
                return Err(Error::Memory(format!(
                    "{name} needs {bytes} bytes, more than this adapter's largest buffer ({capacity}); use a smaller T, \
                     grid (data.crop) or preset"
                )));
            }
            let mut arena = 0;
            let (buffer, offset) = loop {
                let buffer = match interval.pool {
                    Pool::Arena => BufferId::Arena(arena),
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
            if let Some((block, range)) = graph.block_range(&tensor.storage) {
                let place = Placement {
                    buffer: BufferId::Block(block),
                    offset: range.start * WORD_BYTES,
                    bytes: range.len() * WORD_BYTES,
                };
                places.tensors.insert(TensorId(i), place);
                let copies = if block == Block::Moments { 2 } else { 1 };
                plan.blocks.insert(block, copies * graph.block_elements() * WORD_BYTES);
            }
        }
        Ok(places)
    }
}
