//! The plan: which nodes run, where every tensor lives, how much memory that takes. Made once, before anything is
//! allocated.

mod dispatch;
mod lifetimes;
mod schedule;

use std::collections::HashMap;

use super::program::{Launch, Operand, Slot};
use super::{Block, DType, Graph, Kernel, KernelLimits, OpContext, Storage, TensorId, WORD_BYTES};
use crate::kernel::{BoundKernel, PARAMETER_BYTES};
use crate::{Error, Result};
use dispatch::{Resolved, Shared};
use lifetimes::{Places, touches};
use schedule::{Unit, schedule};

pub(super) use lifetimes::{Lifetimes, Touch};

/// A buffer or image of the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BufferId {
    /// Transient tensors; shared by all plans of a run.
    Arena(usize),
    /// Temporaries in a storage image; likewise.
    Image(usize),
    /// Inputs and constants of this plan.
    Persistent(usize),
    /// A flat block.
    Block(Block),
    /// What a binding is bound to in place of a range that overlaps another's, if that is forbidden.
    Detour(usize),
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

impl Placement {
    /// Whether they have a byte in common.
    pub fn overlaps(&self, other: &Placement) -> bool {
        self.buffer == other.buffer
            && self.offset < other.offset + other.bytes
            && other.offset < self.offset + self.bytes
    }

    fn is_image(&self) -> bool {
        matches!(self.buffer, BufferId::Image(_))
    }
}

/// One of the launches of a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The node it belongs to.
    pub node: usize,
    /// Its workgroups.
    pub workgroups: u32,
    /// What it touches, one for each binding.
    pub operands: Vec<(Slot, Placement)>,
}

/// A kernel launch with resolved places.
#[derive(Debug, Clone)]
pub enum Step {
    /// Runs a kernel.
    Dispatch {
        /// The launches that share it; mostly one.
        members: Vec<Member>,
        /// Shader and entry point.
        kernel: Kernel,
        /// Words of the parameter block, or of the table of the launches that share it.
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
    /// Copies a range to another buffer.
    Copy {
        /// What is copied.
        from: Placement,
        /// Where to.
        to: Placement,
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
    /// Bytes of each image, whole layers.
    pub images: Vec<usize>,
    /// Bytes of each persistent buffer.
    pub persistent: Vec<usize>,
    /// Bytes of the flat blocks in use.
    pub blocks: HashMap<Block, usize>,
    /// Largest range of a buffer bound to a kernel, in bytes.
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
        let (mut units, mut scratch) = (Vec::new(), HashMap::new());
        for index in live_nodes(graph) {
            let node = &graph.nodes()[index];
            let (inputs, outputs) = (graph.specs(&node.inputs), graph.specs(&node.outputs));
            let program = node.op.program(&OpContext { inputs: &inputs, outputs: &outputs, limits })?;
            scratch.extend(program.scratch.iter().enumerate().map(|(number, kind)| ((index, number), *kind)));
            units.extend(program.launches.into_iter().map(|launch| Unit::new(graph, index, launch)));
        }
        let order = schedule(graph, units, limits);
        let mut lifetimes = Lifetimes::new(graph, &touches(graph, &order), order.len(), !limits.forbids_aliasing);
        lifetimes.add_scratch(&order, &scratch);

        let mut plan = Plan {
            steps: Vec::new(),
            places: HashMap::new(),
            arenas: Vec::new(),
            images: Vec::new(),
            persistent: Vec::new(),
            blocks: HashMap::new(),
            largest_binding: 0,
            largest_tensor: graph.tensors.iter().map(|t| t.spec.bytes()).max().unwrap_or(0),
        };
        let places = lifetimes.place(graph, limits, &mut plan)?;
        for group in order {
            let mut shared: Option<Shared> = None;
            for unit in group {
                let resolver = Resolver { graph, limits, places: &places, node: unit.node };
                let (kernel, parameters, operands, workgroups) = match unit.launch {
                    Launch::Dispatch { kernel, parameters, operands, workgroups } => {
                        (kernel, parameters, operands, workgroups)
                    }
                    // A clear is no binding, so its size does not matter.
                    Launch::Clear { operand } => {
                        plan.steps.push(Step::Clear { place: resolver.place(&operand)? });
                        continue;
                    }
                };
                let place = |operand: &Operand| Ok((operand.slot, resolver.binding(operand)?));
                let operands = operands.iter().map(place).collect::<Result<Vec<_>>>()?;
                let launch = Resolved { node: unit.node, parameters, operands, workgroups };
                match &mut shared {
                    Some(shared) if shared.takes(&launch, limits) => shared.launches.push(launch),
                    shared => {
                        plan.steps.extend(shared.take().into_iter().flat_map(|shared| shared.steps(limits)));
                        *shared = Some(Shared { kernel, launches: vec![launch] });
                    }
                }
            }
            plan.steps.extend(shared.into_iter().flat_map(|shared| shared.steps(limits)));
        }
        let bindings = plan.steps.iter().flat_map(|step| match step {
            Step::Dispatch { bindings, .. } => &bindings[..],
            Step::Clear { .. } | Step::Copy { .. } => &[],
        });
        let buffers = bindings.filter(|place| !place.is_image());
        plan.largest_binding = buffers.map(|place| place.bytes).max().unwrap_or(0);
        plan.places = places.tensors;
        Ok(plan)
    }

    /// The kernel of every launch, with the number of its operands.
    pub fn kernels(&self) -> impl Iterator<Item = BoundKernel> {
        self.steps.iter().filter_map(|step| match step {
            Step::Dispatch { kernel, bindings, .. } => Some((kernel.clone(), bindings.len())),
            Step::Clear { .. } | Step::Copy { .. } => None,
        })
    }

    /// Bytes of everything this plan needs on the device.
    pub fn peak_bytes(&self) -> usize {
        shared_bytes(&[self]).values().sum::<usize>() + self.own_bytes()
    }

    /// What is bound in place of ranges that would overlap, with its size.
    fn detours(&self) -> impl Iterator<Item = (BufferId, usize)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Copy { to: Placement { buffer: id @ BufferId::Detour(_), bytes, .. }, .. } => Some((*id, *bytes)),
            _ => None,
        })
    }

    /// Bytes of what no other plan shares: inputs, constants and the kernels' parameters.
    pub fn own_bytes(&self) -> usize {
        let parameters = self.steps.iter().map(|step| match step {
            Step::Dispatch { parameters, .. } => parameter_bytes(parameters),
            Step::Clear { .. } | Step::Copy { .. } => 0,
        });
        self.persistent.iter().sum::<usize>() + parameters.sum::<usize>()
    }
}

/// Bytes of the block that holds a dispatch's parameter words.
pub(super) fn parameter_bytes(words: &[u32]) -> usize {
    (words.len().max(1) * WORD_BYTES).next_multiple_of(PARAMETER_BYTES)
}

/// Sizes of the buffers that several plans of a run share, each as large as the plan that needs most of it.
pub fn shared_bytes(plans: &[&Plan]) -> HashMap<BufferId, usize> {
    let mut sizes: HashMap<BufferId, usize> = HashMap::new();
    for plan in plans {
        let arenas = plan.arenas.iter().enumerate().map(|(i, &bytes)| (BufferId::Arena(i), bytes));
        let blocks = plan.blocks.iter().map(|(&block, &bytes)| (BufferId::Block(block), bytes));
        let images = plan.images.iter().enumerate().map(|(i, &bytes)| (BufferId::Image(i), bytes));
        for (id, bytes) in arenas.chain(images).chain(blocks).chain(plan.detours()) {
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
    node: usize,
}

impl Resolver<'_> {
    /// Where `operand` lies. One that reaches beyond its tensor is a mistake of the op; the end of the last word may.
    fn place(&self, operand: &Operand) -> Result<Placement> {
        let graph = self.graph;
        let node = &graph.nodes()[self.node];
        let element_bytes = node.dtype(graph, operand.slot).bytes();
        let of = |id| (self.places.tensor(graph, id), graph.tensor(id).spec.elements());
        let (place, elements) = match operand.slot {
            Slot::Input(i) => of(node.inputs[i]),
            Slot::Output(i) => of(node.outputs[i]),
            Slot::Scratch(i) => {
                let place = self.places.scratch.get(&(self.node, i)).copied();
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
        let Resolver { graph, limits, .. } = self;
        let node = &graph.nodes()[self.node];
        let place = self.place(operand)?;
        let limit = limits.max_storage_binding_bytes;
        if place.bytes <= limit || place.is_image() {
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
        .map(|t| t.kept || !matches!(t.storage, Storage::Transient | Storage::Constant(_)))
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
