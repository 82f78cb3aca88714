//! How long the launches of a step take on the device.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Encoded, Executor, encode, read};
use crate::Result;
use crate::gpu::Context;

/// Launches timed at once: wgpu's query sets hold 4,096 stamps, two a launch.
const LAUNCHES_PER_QUERY_SET: usize = 2048;

/// What one op took in [`Executor::profile`].
#[derive(Debug, Clone, PartialEq)]
pub struct OpProfile {
    /// Its name.
    pub op: &'static str,
    /// The part of the model that it belongs to.
    pub scope: String,
    /// Floating-point operations, by [`Graph::node_flops`](crate::graph::Graph::node_flops).
    pub flops: u64,
    /// Bytes of its operands and results, by [`Graph::node_bytes`](crate::graph::Graph::node_bytes).
    pub bytes: u64,
    /// Its launches.
    pub launches: Vec<LaunchProfile>,
}

/// What one launch took.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchProfile {
    /// Entry point.
    pub kernel: &'static str,
    /// Whether it multiplies by matrix units.
    pub on_matrix_units: bool,
    /// The part of a dispatch that it is, by workgroups: 1 unless it shares one with other launches.
    pub share: f64,
    /// Seconds; of a dispatch that it shares, its part.
    pub secs: f64,
}

impl OpProfile {
    /// Seconds of all its launches.
    pub fn elapsed_secs(&self) -> f64 {
        self.launches.iter().map(|launch| launch.secs).sum()
    }
}

impl Executor {
    /// Runs one step and returns the seconds that the device was at it, from the first launch of each submission to the end of
    /// its last; `None` without timestamp queries.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn device_secs(&self) -> Result<Option<f64>> {
        if !self.has_stamps() {
            return Ok(None);
        }
        let mut total = 0.0;
        for steps in self.submissions() {
            let stamps = Stamps::new(&self.context, 2);
            let mut encoder = self.context.device.create_command_encoder(&Default::default());
            stamps.between_passes(&mut encoder, 0);
            encode(&mut encoder, steps);
            stamps.between_passes(&mut encoder, 1);
            total += stamps.read(&self.context, encoder)?.iter().sum::<f64>();
        }
        Ok(Some(total))
    }

    fn has_stamps(&self) -> bool {
        self.context.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// Runs one step with each launch in a pass of its own and times it: by timestamp queries where the adapter has them,
    /// else by the clock, waiting in between, which adds the driver's overhead of a submission to each.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) if the device is lost.
    pub fn profile(&self) -> Result<Vec<OpProfile>> {
        let stamped = self.has_stamps();
        let mut profiles: BTreeMap<usize, OpProfile> = BTreeMap::new();
        for steps in self.encoded.chunks(if stamped { LAUNCHES_PER_QUERY_SET } else { 1 }) {
            let seconds = if stamped { self.stamped(steps)? } else { vec![self.clocked(steps)?] };
            for (step, secs) in steps.iter().zip(seconds) {
                let Encoded::Dispatch { shares, entry: kernel, on_matrix_units, .. } = step else { continue };
                for &(index, share) in shares {
                    let profile = profiles.entry(index).or_insert_with(|| {
                        let node = &self.graph.nodes()[index];
                        OpProfile {
                            op: node.op.name(),
                            scope: node.scope.clone(),
                            flops: self.graph.node_flops(node),
                            bytes: self.graph.node_bytes(node),
                            launches: Vec::new(),
                        }
                    });
                    let (on_matrix_units, secs) = (*on_matrix_units, share * secs);
                    profile.launches.push(LaunchProfile { kernel, on_matrix_units, share, secs });
                }
            }
        }
        Ok(profiles.into_values().collect())
    }

    /// Seconds of `steps` by the clock.
    fn clocked(&self, steps: &[Encoded]) -> Result<f64> {
        self.context.wait()?;
        let start = Instant::now();
        let mut encoder = self.context.device.create_command_encoder(&Default::default());
        encode(&mut encoder, steps);
        self.context.queue.submit([encoder.finish()]);
        self.context.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds of each of `steps`; zero for clears and copies, which are no passes.
    fn stamped(&self, steps: &[Encoded]) -> Result<Vec<f64>> {
        let stamps = Stamps::new(&self.context, 2 * steps.len() as u32);
        let mut encoder = self.context.device.create_command_encoder(&Default::default());
        for (i, step) in (0..).zip(steps) {
            match step {
                Encoded::Dispatch { pipeline, bind_group, workgroups: [x, y, z], .. } => {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: None,
                        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                            query_set: &stamps.queries,
                            beginning_of_pass_write_index: Some(2 * i),
                            end_of_pass_write_index: Some(2 * i + 1),
                        }),
                    });
                    pass.set_pipeline(pipeline);
                    pass.set_bind_group(0, bind_group, &[]);
                    pass.dispatch_workgroups(*x, *y, *z);
                }
                Encoded::Clear { .. } | Encoded::Copy { .. } => {
                    encode(&mut encoder, std::slice::from_ref(step));
                    stamps.between_passes(&mut encoder, 2 * i);
                    stamps.between_passes(&mut encoder, 2 * i + 1);
                }
            }
        }
        stamps.read(&self.context, encoder)
    }
}

/// Timestamps of one submission, in pairs.
struct Stamps {
    queries: wgpu::QuerySet,
    count: u32,
}

impl Stamps {
    fn new(context: &Context, count: u32) -> Stamps {
        let queries = context.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        Stamps { queries, count }
    }

    /// Takes number `index` when all before it is done.
    fn between_passes(&self, encoder: &mut wgpu::CommandEncoder, index: u32) {
        drop(encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: None,
                end_of_pass_write_index: Some(index),
            }),
        }));
    }

    /// Submits what was encoded and returns the seconds between the two stamps of each pair.
    fn read(&self, context: &Context, mut encoder: wgpu::CommandEncoder) -> Result<Vec<f64>> {
        let bytes = self.count as usize * size_of::<u64>();
        let resolved = context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("profile"),
            size: bytes as u64,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        encoder.resolve_query_set(&self.queries, 0..self.count, &resolved, 0);
        context.queue.submit([encoder.finish()]);
        let stamps = read::<u64>(context, &resolved, 0, bytes)?;
        let period_secs = f64::from(context.queue.get_timestamp_period()) * 1e-9;
        Ok(stamps.chunks(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * period_secs).collect())
    }
}
