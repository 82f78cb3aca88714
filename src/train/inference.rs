//! A model on a device to be looked at: scored, encoded into latents, decoded from them.
//!
//! Each of the three is a graph of its own, planned at once and built when it is first used. They share parameters and
//! arenas with each other and with the training graph, if there is one.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint::{Weights, check_finite, conform};
use super::session::graphs::{
    DecoderGraph, EncoderGraph, EvaluationGraph, decoder_graph, encoder_graph, evaluation_graph,
};
use super::session::layout::Layout;
use super::session::{NamedTensor, Preflight};
use crate::data::batch::{Batch, from_blocked};
use crate::gpu::Context;
use crate::graph::execute::{Executor, Memory};
use crate::graph::plan::Plan;
use crate::graph::{Graph, KernelLimits};
use crate::layers::likely::Likely;
use crate::models::{BatchShape, BuiltLatent, LatentKind, LatentSpec, ModelConfig};
use crate::{Error, Result};

/// What a batch is scored.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchScores {
    /// Counts `[N, K, K]`, row truth, column prediction, observed voxels only.
    pub confusion: Vec<u64>,
    /// Weighted cross entropy.
    pub cross_entropy: f32,
    /// Lovasz-softmax.
    pub lovasz: f32,
    /// The codes of each latent that consists of codes, those of the clips one after the other.
    pub codes: Vec<(LatentSpec, Vec<u32>)>,
}

/// One latent of one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// Which one.
    pub spec: LatentSpec,
    /// `[1, A1.., C]`, with the axes of `spec`.
    pub shape: Vec<usize>,
    /// What is decoded: the means of a Gaussian latent, else its values, which may be numbers of codes.
    pub mu: Vec<f32>,
    /// Log-variances of a Gaussian latent.
    pub logvar: Vec<f32>,
}

/// A planned graph that is built when it first runs.
#[derive(Debug)]
pub(super) struct Stage<I> {
    pub graph: Graph,
    pub plan: Plan,
    pub ids: I,
    pub executor: Option<Executor>,
}

impl<I> Stage<I> {
    pub(super) fn new((graph, ids): (Graph, I), limits: &KernelLimits) -> Result<Self> {
        let plan = Plan::new(&graph, limits)?;
        Ok(Stage { graph, plan, ids, executor: None })
    }

    fn built(&mut self, context: &Arc<Context>, memory: &Arc<Memory>) -> Result<(&Executor, &I)> {
        let executor = match &mut self.executor {
            Some(executor) => executor,
            empty => empty.insert(Executor::new(context, self.graph.clone(), self.plan.clone(), memory)?),
        };
        Ok((executor, &self.ids))
    }

    /// The same, not built yet.
    fn anew(&self) -> Self
    where
        I: Clone,
    {
        Stage { graph: self.graph.clone(), plan: self.plan.clone(), ids: self.ids.clone(), executor: None }
    }
}

/// The planned graphs of an [`Inference`].
#[derive(Debug)]
pub(super) struct Parts {
    evaluation: Stage<EvaluationGraph>,
    encoder: Stage<EncoderGraph>,
    decoder: Stage<DecoderGraph>,
    class_weights: Vec<f32>,
}

impl Parts {
    /// Of the parameters, or of their moving averages. All classes weigh the same.
    pub(super) fn new(model: &ModelConfig, shape: &BatchShape, limits: &KernelLimits, averaged: bool) -> Result<Parts> {
        let mut graphs = (evaluation_graph(model, shape)?, encoder_graph(model, shape)?, decoder_graph(model, shape)?);
        if averaged {
            [&mut graphs.0.0, &mut graphs.1.0, &mut graphs.2.0].into_iter().for_each(Graph::use_averages);
        }
        Ok(Parts {
            evaluation: Stage::new(graphs.0, limits)?,
            encoder: Stage::new(graphs.1, limits)?,
            decoder: Stage::new(graphs.2, limits)?,
            class_weights: vec![1.0; model.classes],
        })
    }

    /// The same with weights of the classes in the loss, not built yet.
    pub(super) fn weighted(&self, class_weights: &[f32]) -> Result<Parts> {
        let (given, classes) = (class_weights.len(), self.class_weights.len());
        if given != classes {
            return Err(Error::Usage(format!("{given} class weights for {classes} classes")));
        }
        let Parts { evaluation, encoder, decoder, .. } = self;
        let (evaluation, encoder, decoder) = (evaluation.anew(), encoder.anew(), decoder.anew());
        Ok(Parts { evaluation, encoder, decoder, class_weights: class_weights.to_vec() })
    }

    pub(super) fn plans(&self) -> [&Plan; 3] {
        [&self.evaluation.plan, &self.encoder.plan, &self.decoder.plan]
    }
}

/// A model on a device that is not trained here.
#[derive(Debug)]
pub struct Inference {
    context: Arc<Context>,
    memory: Arc<Memory>,
    parts: Parts,
    layout: Layout,
    shape: BatchShape,
    steps: u32,
}

impl Inference {
    /// Plans and allocates for batches of `shape`, without any training; [`Inference::import`] gives it parameters.
    ///
    /// # Errors
    /// [`Error::Usage`] for extents that do not fit, [`Error::Memory`] and [`Error::Device`] from the adapter.
    pub fn new(context: &Arc<Context>, model: &ModelConfig, shape: &BatchShape) -> Result<Inference> {
        // Neither scores nor latents depend on the classes' weights in the loss.
        let parts = Parts::new(model, shape, context.limits(), false)?;
        let memory = Memory::new(context, &parts.plans())?;
        Ok(Inference::of(context, memory, parts, shape))
    }

    /// The model of a file, ready for one clip of a grid of `size` at a time.
    ///
    /// # Errors
    /// As for [`Inference::new`]; [`Error::Data`] if the parameters are others than the model's, [`Error::NonFinite`] if one of them is not finite.
    pub fn trained(context: &Arc<Context>, weights: &Weights, file: &Path, size: [usize; 3]) -> Result<Inference> {
        let Weights { config, parameters, step, .. } = weights;
        let shape = BatchShape { batch: 1, frames: config.data.frames, size };
        let mut inference = Inference::new(context, &config.model, &shape)?;
        conform(parameters, &inference.export()?, file)?;
        check_finite(parameters, file)?;
        inference.import(parameters, *step)?;
        context.build(&inference.preflight().kernels, |_| true)?;
        Ok(inference)
    }

    pub(super) fn of(context: &Arc<Context>, memory: Arc<Memory>, parts: Parts, shape: &BatchShape) -> Inference {
        let layout = Layout::of(&parts.encoder.graph);
        Inference { context: context.clone(), memory, parts, layout, shape: shape.clone(), steps: 0 }
    }

    /// What it needs on the device.
    pub fn preflight(&self) -> Preflight {
        Preflight::of(&self.parts.evaluation.graph, &self.parts.plans())
    }

    /// Extents of the batches that are scored.
    pub fn shape(&self) -> &BatchShape {
        &self.shape
    }

    /// Steps that the parameters were trained for.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    pub(super) fn set_steps(&mut self, steps: u32) {
        self.steps = steps;
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The device.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Checks that `batch` holds `clips` clips of the right extents.
    pub(super) fn check(&self, batch: &Batch, clips: usize) -> Result<()> {
        if (batch.batch, batch.frames, batch.size) == (clips, self.shape.frames, self.shape.size) {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "a batch of {} x {} frames of {:?} voxels does not fit where {clips} x {} frames of {:?} are needed",
            batch.batch, batch.frames, batch.size, self.shape.frames, self.shape.size
        )))
    }

    /// Scores a batch, reconstructed from its latents as they are expected to be.
    ///
    /// # Errors
    /// [`Error::Usage`] if the batch has other extents, [`Error::Device`] if the device failed.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<BatchScores> {
        self.check(batch, self.shape.batch)?;
        let (executor, ids) = self.parts.evaluation.built(&self.context, &self.memory)?;
        executor.write(ids.class_weights, &self.parts.class_weights)?;
        ids.inputs.write(executor, batch)?;
        executor.write(ids.observed, &batch.observed)?;
        executor.run()?;
        let confusion = executor.read::<u32>(ids.confusion)?.into_iter().map(u64::from).collect();
        let losses = executor.read::<f32>(ids.losses)?;
        let codes = ids.codes.iter().map(|codes| Ok((codes.latent, executor.read(codes.encoded)?)));
        Ok(BatchScores { confusion, cross_entropy: losses[0], lovasz: losses[1], codes: codes.collect::<Result<_>>()? })
    }

    /// The latents of one clip, in the model's order.
    ///
    /// # Errors
    /// [`Error::Usage`] if the batch has other extents or several clips, [`Error::Device`] if the device failed.
    pub fn encode(&mut self, clip: &Batch) -> Result<Vec<Latent>> {
        self.check(clip, 1)?;
        let (executor, ids) = self.parts.encoder.built(&self.context, &self.memory)?;
        ids.inputs.write(executor, clip)?;
        executor.run()?;
        let read = |latent: &BuiltLatent| {
            let (spec, mut shape) = (latent.latent, executor.graph().shape(latent.encoded).to_vec());
            let values = match spec.kind {
                LatentKind::Code { .. } => {
                    executor.read::<u32>(latent.encoded)?.into_iter().map(|code| code as f32).collect()
                }
                LatentKind::Gaussian | LatentKind::Plain | LatentKind::Motion => {
                    executor.read::<f32>(latent.encoded)?
                }
            };
            let (mut mu, mut logvar) = (values, Vec::new());
            if let (LatentKind::Gaussian, Some(width)) = (spec.kind, shape.last_mut()) {
                *width /= 2;
                let rows = mu.chunks(2 * *width);
                let halves: (Vec<&[f32]>, Vec<&[f32]>) = rows.map(|row| row.split_at(*width)).unzip();
                (mu, logvar) = (halves.0.concat(), halves.1.concat());
            }
            Ok(Latent { spec, shape, mu, logvar })
        };
        ids.latents.iter().map(read).collect()
    }

    /// What latents of one clip mean, `[T, X, Y, Z]` in C order, from what [`Latent::mu`] holds of each in the model's order.
    ///
    /// # Errors
    /// [`Error::Usage`] if they have other extents, [`Error::Device`] if the device failed.
    pub fn decode<V: AsRef<[f32]>>(&mut self, latents: &[V]) -> Result<Vec<Likely>> {
        let (executor, ids) = self.parts.decoder.built(&self.context, &self.memory)?;
        let needed = || ids.latents.iter().map(|latent| executor.graph().shape(latent.decoded));
        let given = latents.iter().map(|latent| latent.as_ref().len());
        if !given.clone().eq(needed().map(|shape| shape.iter().product::<usize>())) {
            let names: Vec<&str> = ids.latents.iter().map(|latent| latent.latent.name).collect();
            return Err(Error::Usage(format!(
                "latents of {:?} values cannot be decoded; {names:?} must have the extents {:?}",
                given.collect::<Vec<_>>(),
                needed().collect::<Vec<_>>()
            )));
        }
        for (values, latent) in latents.iter().zip(&ids.latents) {
            // One that the decoder makes nothing of is no part of its plan.
            if !executor.uses(latent.decoded) {
                continue;
            }
            match latent.latent.kind {
                LatentKind::Code { .. } => {
                    let codes: Vec<u32> = values.as_ref().iter().map(|&code| code as u32).collect();
                    executor.write(latent.decoded, &codes)?;
                }
                LatentKind::Gaussian | LatentKind::Plain | LatentKind::Motion => {
                    executor.write(latent.decoded, values.as_ref())?
                }
            }
        }
        executor.run()?;
        let blocked: Vec<Likely> = bytemuck::cast_vec(executor.read::<[u32; 2]>(ids.likely)?);
        let voxels = self.shape.size.iter().product();
        Ok(blocked.chunks(voxels).flat_map(|frame| from_blocked(frame, self.shape.size)).collect())
    }

    /// Reads back the parameters that it looks with.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn export(&self) -> Result<Vec<NamedTensor>> {
        self.layout.read(&self.memory, self.layout.looked_at)
    }

    /// Replaces them by others, which were trained for `steps` steps.
    ///
    /// # Errors
    /// [`Error::Data`] naming the parameter that is missing or has another shape.
    pub fn import(&mut self, parameters: &[NamedTensor], steps: u32) -> Result<()> {
        self.layout.write(&self.memory, self.layout.looked_at, parameters)?;
        self.steps = steps;
        Ok(())
    }
}
