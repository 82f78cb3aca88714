//! The executor: pipelines, buffers and bind groups are made once; a step only encodes dispatches.

mod profile;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::plan::{BufferId, Member, Placement, Plan, Step, parameter_bytes, shared_bytes};
use super::program::LAYER_BYTES;
use super::{Block, Graph, Storage, TensorId, WORD_BYTES};
use crate::gpu::Context;
use crate::kernel::PARAMETER_BYTES;
use crate::{Error, Result};

pub use profile::{LaunchProfile, OpProfile};

/// Work of one submission to a GPU, so that no driver's watchdog takes a long step for a hang.
const FLOPS_PER_SUBMISSION: u64 = 200_000_000_000;

/// Launches of a command buffer: enough for a thread to be worth waking.
const LAUNCHES_PER_COMMAND_BUFFER: usize = 32;

/// What outlives a step and is shared by the plans of a run: flat blocks, arenas and images.
#[derive(Debug)]
pub struct Memory {
    context: Arc<Context>,
    buffers: HashMap<BufferId, wgpu::Buffer>,
    images: HashMap<BufferId, wgpu::Texture>,
}

impl Memory {
    /// Allocates what the largest of `plans` needs.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has not that much.
    pub fn new(context: &Arc<Context>, plans: &[&Plan]) -> Result<Arc<Memory>> {
        let (mut buffers, mut images) = (HashMap::new(), HashMap::new());
        for (id, bytes) in shared_bytes(plans) {
            if let BufferId::Image(_) = id {
                images.insert(id, context.image(&format!("{id:?}"), bytes)?);
            } else {
                buffers.insert(id, allocate(context, id, bytes)?);
            }
        }
        Ok(Arc::new(Memory { context: context.clone(), buffers, images }))
    }

    /// Overwrites a flat block.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length differs or no plan uses the block.
    pub fn write_block(&self, block: Block, values: &[f32]) -> Result<()> {
        let buffer = self.block(block)?;
        if buffer.size() != (values.len() * WORD_BYTES) as u64 {
            return Err(Error::Shape(format!("{block:?} has {} bytes, not {} values", buffer.size(), values.len())));
        }
        self.context.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
        Ok(())
    }

    /// Reads a flat block back.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost, [`Error::Shape`] if no plan uses the block.
    pub fn read_block(&self, block: Block) -> Result<Vec<f32>> {
        let buffer = self.block(block)?;
        read(&self.context, buffer, 0, buffer.size() as usize)
    }

    /// Whether any plan uses the block.
    pub fn has(&self, block: Block) -> bool {
        self.buffers.contains_key(&BufferId::Block(block))
    }

    fn block(&self, block: Block) -> Result<&wgpu::Buffer> {
        self.buffers
            .get(&BufferId::Block(block))
            .ok_or_else(|| Error::Shape(format!("no plan of this run uses the block {block:?}")))
    }
}

fn allocate(context: &Context, id: BufferId, bytes: usize) -> Result<wgpu::Buffer> {
    context.guarded(&format!("a buffer of {bytes} bytes"), || {
        context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(&format!("{id:?}")),
            size: bytes as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    })
}

/// Reads `bytes` bytes from `offset` on.
fn read<T: bytemuck::Pod>(context: &Context, buffer: &wgpu::Buffer, offset: usize, bytes: usize) -> Result<Vec<T>> {
    let words = bytes.next_multiple_of(WORD_BYTES) as u64;
    let staging = context.guarded("a readback buffer", || {
        context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: words,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    })?;
    let mut encoder = context.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, offset as u64, &staging, 0, words);
    context.queue.submit([encoder.finish()]);
    let (sender, receiver) = std::sync::mpsc::channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| {
        // The receiver waits below; it is gone only if this function returned early.
        let _ = sender.send(result);
    });
    context.wait()?;
    let mapped =
        receiver.recv().map_err(|why| why.to_string()).and_then(|result| result.map_err(|why| why.to_string()));
    mapped.map_err(|why| Error::Device(format!("reading {bytes} bytes back from {}: {why}", context.adapter.name)))?;
    let view = staging
        .get_mapped_range(..)
        .map_err(|why| Error::Device(format!("reading {bytes} bytes back from {}: {why}", context.adapter.name)))?;
    Ok(bytemuck::pod_collect_to_vec(&view[..bytes]))
}

enum Encoded {
    Dispatch {
        /// The nodes whose launches share the dispatch, and the part of its workgroups that each has.
        shares: Vec<(usize, f64)>,
        entry: &'static str,
        on_matrix_units: bool,
        pipeline: wgpu::ComputePipeline,
        bind_group: wgpu::BindGroup,
        workgroups: [u32; 3],
    },
    Clear {
        buffer: wgpu::Buffer,
        offset: u64,
        bytes: u64,
    },
    Copy {
        from: (wgpu::Buffer, u64),
        to: (wgpu::Buffer, u64),
        bytes: u64,
    },
}

/// Runs one planned graph, step after step.
pub struct Executor {
    context: Arc<Context>,
    graph: Graph,
    plan: Plan,
    memory: Arc<Memory>,
    persistent: Vec<wgpu::Buffer>,
    encoded: Vec<Encoded>,
    /// The parts of `encoded` that are submitted one after the other.
    submissions: Vec<Range<usize>>,
    in_flight: Mutex<Option<wgpu::SubmissionIndex>>,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("steps", &self.encoded.len()).finish_non_exhaustive()
    }
}

impl Executor {
    /// Makes pipelines, persistent buffers and bind groups.
    ///
    /// # Errors
    /// [`Error::Device`] if a kernel does not compile, [`Error::Memory`] if the device is full.
    pub fn new(context: &Arc<Context>, graph: Graph, plan: Plan, memory: &Arc<Memory>) -> Result<Executor> {
        let mut persistent = Vec::new();
        for (i, &bytes) in plan.persistent.iter().enumerate() {
            persistent.push(allocate(context, BufferId::Persistent(i), bytes)?);
        }
        let mut executor = Executor {
            context: context.clone(),
            graph,
            plan,
            memory: memory.clone(),
            persistent,
            encoded: Vec::new(),
            submissions: Vec::new(),
            in_flight: Mutex::default(),
        };
        executor.encode_steps()?;
        executor.submissions = executor.split();
        for (i, tensor) in executor.graph.tensors.iter().enumerate() {
            if let (Storage::Constant(values), true) = (&tensor.storage, tensor.root.0 == i)
                && executor.uses(TensorId(i))
            {
                executor.write(TensorId(i), values.as_slice())?;
            }
        }
        Ok(executor)
    }

    fn encode_steps(&mut self) -> Result<()> {
        let context = self.context.clone();
        let mut words = Vec::new();
        for step in &self.plan.steps {
            if let Step::Dispatch { parameters, kernel, .. } = step {
                if parameter_bytes(parameters) > PARAMETER_BYTES && !kernel.is_grouped {
                    return Err(Error::Device(format!("kernel {} has too many parameter words", kernel.entry)));
                }
                let start = words.len();
                words.extend_from_slice(parameters);
                words.resize(start + parameter_bytes(parameters) / WORD_BYTES, 0);
            }
        }
        words.resize(words.len().max(PARAMETER_BYTES / WORD_BYTES), 0);
        let parameters = context.guarded("the kernels' parameters", || {
            let buffer = context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("parameters"),
                size: (words.len() * WORD_BYTES) as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            context.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
            buffer
        })?;
        let mut next_parameters = 0;
        for step in &self.plan.steps {
            let encoded = match step {
                Step::Clear { place } => Encoded::Clear {
                    buffer: self.buffer(place.buffer)?.clone(),
                    offset: place.offset as u64,
                    bytes: place.bytes as u64,
                },
                Step::Copy { from, to } => {
                    let at = |place: &Placement| Ok((self.buffer(place.buffer)?.clone(), place.offset as u64));
                    Encoded::Copy { from: at(from)?, to: at(to)?, bytes: to.bytes as u64 }
                }
                Step::Dispatch { members, kernel, parameters: block, bindings, workgroups } => {
                    let made = context.pipeline(kernel, bindings.len())?;
                    let mut entries = vec![wgpu::BindGroupEntry {
                        binding: 0,
                        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                            buffer: &parameters,
                            offset: next_parameters,
                            size: std::num::NonZeroU64::new(parameter_bytes(block) as u64),
                        }),
                    }];
                    next_parameters += parameter_bytes(block) as u64;
                    let views: Vec<_> = bindings.iter().map(|place| self.view(place)).collect();
                    for (i, (place, view)) in bindings.iter().zip(&views).enumerate() {
                        let resource = match view {
                            Some(view) => wgpu::BindingResource::TextureView(view),
                            None => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                                buffer: self.buffer(place.buffer)?,
                                offset: place.offset as u64,
                                size: std::num::NonZeroU64::new(place.bytes as u64),
                            }),
                        };
                        entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
                    }
                    let bind_group = context.guarded(&format!("binding {}", kernel.entry), || {
                        context.device.create_bind_group(&wgpu::BindGroupDescriptor {
                            label: Some(kernel.entry),
                            layout: &made.layout,
                            entries: &entries,
                        })
                    })?;
                    let all: u32 = members.iter().map(|member| member.workgroups).sum();
                    let share = |member: &Member| (member.node, f64::from(member.workgroups) / f64::from(all.max(1)));
                    Encoded::Dispatch {
                        shares: members.iter().map(share).collect(),
                        entry: kernel.entry,
                        on_matrix_units: kernel.on_matrix_units(),
                        pipeline: made.pipeline,
                        bind_group,
                        workgroups: *workgroups,
                    }
                }
            };
            self.encoded.push(encoded);
        }
        context.save_pipeline_cache();
        Ok(())
    }

    fn buffer(&self, id: BufferId) -> Result<&wgpu::Buffer> {
        match id {
            BufferId::Persistent(i) => self.persistent.get(i),
            id => self.memory.buffers.get(&id),
        }
        .ok_or_else(|| Error::Memory(format!("{id:?} was not allocated for this plan")))
    }

    /// The layers of an image at `place`; `None` if it is in a buffer.
    fn view(&self, place: &Placement) -> Option<wgpu::TextureView> {
        let first = (place.offset / LAYER_BYTES) as u32;
        let layers = (place.offset + place.bytes).div_ceil(LAYER_BYTES) as u32 - first;
        self.memory.images.get(&place.buffer).map(|image| {
            image.create_view(&wgpu::TextureViewDescriptor {
                dimension: Some(wgpu::TextureViewDimension::D2Array),
                base_array_layer: first,
                array_layer_count: Some(layers),
                ..Default::default()
            })
        })
    }

    /// The graph that runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Its plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn place(&self, id: TensorId) -> Result<Placement> {
        self.plan
            .places
            .get(&self.graph.root(id))
            .copied()
            .ok_or_else(|| Error::Shape(format!("{} is not part of the plan", self.graph.describe(id))))
    }

    /// Whether the plan has a place for `id`; inputs on which nothing observable depends have none.
    pub fn uses(&self, id: TensorId) -> bool {
        self.plan.places.contains_key(&self.graph.root(id))
    }

    /// Sets an input (f32 or u32 words) before a step.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length differs.
    pub fn write<T: bytemuck::Pod>(&self, id: TensorId, values: &[T]) -> Result<()> {
        let place = self.place(id)?;
        let bytes: &[u8] = bytemuck::cast_slice(values);
        if bytes.len() != place.bytes {
            return Err(Error::Shape(format!("{} was given {} values", self.graph.describe(id), values.len())));
        }
        self.context.queue.write_buffer(self.buffer(place.buffer)?, place.offset as u64, bytes);
        Ok(())
    }

    /// Reads a kept tensor after a step, as elements of its type.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost.
    pub fn read<T: bytemuck::Pod>(&self, id: TensorId) -> Result<Vec<T>> {
        let place = self.place(id)?;
        read(&self.context, self.buffer(place.buffer)?, place.offset, place.bytes)
    }

    /// Encodes and submits one step; returns before it is done, but not before the one before the last is, so that a host
    /// that never waits cannot pile up work.
    ///
    /// # Errors
    /// [`Error::Device`] if the device reported a failure.
    pub fn run(&self) -> Result<()> {
        let mut last = None;
        for buffers in self.encode_at_once() {
            last = Some(self.context.queue.submit(buffers));
        }
        let before = std::mem::replace(&mut *self.in_flight.lock().unwrap_or_else(PoisonError::into_inner), last);
        if let Some(before) = before {
            self.context.wait_for(Some(before))?;
        }
        self.context.check()
    }

    /// The command buffers of each submission, made side by side: what a GPU does in a few milliseconds takes one thread a
    /// millisecond or two to encode.
    fn encode_at_once(&self) -> Vec<Vec<wgpu::CommandBuffer>> {
        let one = |steps: &[Encoded]| {
            let mut encoder = self.context.device.create_command_encoder(&Default::default());
            encode(&mut encoder, steps);
            encoder.finish()
        };
        let submissions: Vec<_> = self.submissions().collect();
        let parts = |steps: &&[Encoded]| steps.par_chunks(LAUNCHES_PER_COMMAND_BUFFER).map(one).collect();
        submissions.par_iter().map(parts).collect()
    }

    /// The launches of a step, split where a submission has work enough for a GPU. Software Vulkan has no watchdog, but lets
    /// the host wait for a submission before it takes the next.
    fn split(&self) -> Vec<Range<usize>> {
        let most = if self.context.limits().is_software { u64::MAX } else { FLOPS_PER_SUBMISSION };
        let mut parts = Vec::new();
        let (mut start, mut flops, mut counted) = (0, 0, HashSet::new());
        for (i, step) in self.encoded.iter().enumerate() {
            if let Encoded::Dispatch { shares, .. } = step {
                let nodes = shares.iter().map(|(node, _)| *node).filter(|&node| counted.insert(node));
                flops += nodes.map(|node| self.graph.node_flops(&self.graph.nodes()[node])).sum::<u64>();
            }
            if flops >= most {
                parts.push(start..i + 1);
                (start, flops) = (i + 1, 0);
                counted.clear();
            }
        }
        parts.push(start..self.encoded.len());
        parts.retain(|part| !part.is_empty());
        parts
    }

    fn submissions(&self) -> impl Iterator<Item = &[Encoded]> {
        self.submissions.iter().map(|part| &self.encoded[part.clone()])
    }
}

fn encode(encoder: &mut wgpu::CommandEncoder, steps: &[Encoded]) {
    let mut pass: Option<wgpu::ComputePass> = None;
    for step in steps {
        match step {
            Encoded::Dispatch { pipeline, bind_group, workgroups, .. } => {
                let pass =
                    pass.get_or_insert_with(|| encoder.begin_compute_pass(&Default::default()).forget_lifetime());
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, bind_group, &[]);
                pass.dispatch_workgroups(workgroups[0], workgroups[1], workgroups[2]);
            }
            Encoded::Clear { buffer, offset, bytes } => {
                pass = None;
                encoder.clear_buffer(buffer, *offset, Some(*bytes));
            }
            Encoded::Copy { from, to, bytes } => {
                pass = None;
                encoder.copy_buffer_to_buffer(&from.0, from.1, &to.0, to.1, *bytes);
            }
        }
    }
}
