//! The device a run works on, and its errors.

mod build;
#[cfg(test)]
pub(crate) mod faults;
mod pipelines;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::adapters::{AdapterSummary, DeviceChoice, OPTIONAL_FEATURES, choose, enumerate, summary};
use super::tuning::TuningFile;
use crate::files::cache_folder;
use crate::kernel::{KernelLimits, LAYER, LAYER_BYTES, Tuning};
use crate::{Error, Result};
use pipelines::{Pipelines, open_pipeline_cache};

pub use build::BuildProgress;

/// Of images: every adapter reads and writes it.
const IMAGE_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

/// Device memory of everything alive on a [`Context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Bytes of all buffers and textures.
    pub allocated_bytes: u64,
    /// Bytes that were taken from the driver to hold them.
    pub reserved_bytes: u64,
}

/// What a device reported outside of any error scope.
#[derive(Debug, Default)]
struct Failure {
    loss: Option<String>,
    /// The first of them; a lost device objects to whatever comes after.
    error: Option<String>,
}

/// A device, its queue, and the pipelines made on it so far.
pub struct Context {
    /// The logical device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// The adapter it came from.
    pub adapter: AdapterSummary,
    source: wgpu::Adapter,
    pipelines: Arc<Mutex<Pipelines>>,
    cache: Option<(wgpu::PipelineCache, PathBuf)>,
    choices: Option<TuningFile>,
    failure: Arc<Mutex<Failure>>,
    #[cfg(test)]
    faults: Option<Arc<faults::Faults>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("adapter", &self.adapter).finish_non_exhaustive()
    }
}

impl Context {
    /// Opens the chosen adapter with all its limits and the optional features it has.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no adapter, none of that name or number, or it cannot be opened.
    pub fn open(choice: &DeviceChoice) -> Result<Arc<Context>> {
        let adapters = enumerate();
        let summaries: Vec<AdapterSummary> = adapters.iter().map(summary).collect();
        let number = choose(&summaries, choice)?;
        Context::of(&adapters[number], summaries[number].clone())
    }

    /// Opens `adapter`, which `summary` describes.
    fn of(adapter: &wgpu::Adapter, mut summary: AdapterSummary) -> Result<Arc<Context>> {
        #[cfg(test)]
        let faults = faults::Faults::of_thread();
        #[cfg(test)]
        if let Some(why) = faults.as_ref().and_then(|faults| faults.opening()) {
            return Err(Error::Device(format!("adapter {} cannot be opened: {why}", summary.name)));
        }
        let wanted = OPTIONAL_FEATURES.iter().fold(wgpu::Features::empty(), |all, (feature, _)| all | *feature);
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("sep4d"),
            required_features: adapter.features() & wanted,
            required_limits: adapter.limits(),
            // A run has a few large buffers, so there is nothing to gain by reserving much for many small ones.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            // SAFETY: the only experimental feature asked for is cooperative matrices. Our own kernels, which keep to their rules
            // (whole subgroups in uniform control flow), are the only ones, and they run only where a tuner found that they agree.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        }))
        .map_err(|why| Error::Device(format!("adapter {} cannot be opened: {why}", summary.name)))?;

        let failure: Arc<Mutex<Failure>> = Arc::default();
        let (lost, uncaptured) = (failure.clone(), failure.clone());
        // Dropping the device reports its loss too, but then nobody is left to ask.
        device.set_device_lost_callback(move |reason, message| {
            let message = format!("the GPU device was lost ({reason:?}) {message}");
            lost.lock().unwrap_or_else(PoisonError::into_inner).loss.get_or_insert(message);
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let message = error.to_string();
            uncaptured.lock().unwrap_or_else(PoisonError::into_inner).error.get_or_insert(message);
        }));
        let cache = open_pipeline_cache(adapter, &device);
        let choices = TuningFile::new(cache_folder().as_deref(), &adapter.get_info());
        if let (Some(choices), false) = (&choices, summary.limits.is_software) {
            summary.limits.policy.tuning = choices.read();
        }
        let source = adapter.clone();
        Ok(Arc::new(Context {
            device,
            queue,
            adapter: summary,
            source,
            pipelines: Arc::default(),
            cache,
            choices,
            failure,
            #[cfg(test)]
            faults,
        }))
    }

    /// Whether the fastest variants are to be measured on this adapter.
    pub fn is_tunable(&self) -> bool {
        self.choices.is_some() && !self.adapter.limits.is_software
    }

    /// Keeps the choices of variants for the next start.
    pub fn keep_tuning(&self) {
        if let Some(choices) = &self.choices {
            choices.write(&self.limits().policy.tuning);
        }
    }

    /// The same device with other choices of variants.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Arc<Context> {
        let limits = self.limits().tuned(tuning);
        Arc::new(Context {
            device: self.device.clone(),
            queue: self.queue.clone(),
            adapter: AdapterSummary { limits, ..self.adapter.clone() },
            source: self.source.clone(),
            pipelines: self.pipelines.clone(),
            cache: self.cache.clone(),
            choices: self.choices.clone(),
            failure: self.failure.clone(),
            #[cfg(test)]
            faults: self.faults.clone(),
        })
    }

    /// The adapter's limits.
    pub fn limits(&self) -> &KernelLimits {
        &self.adapter.limits
    }

    /// Device memory in use, where the backend counts it.
    pub fn memory_use(&self) -> Option<MemoryUse> {
        self.device.generate_allocator_report().map(|report| MemoryUse {
            allocated_bytes: report.total_allocated_bytes,
            reserved_bytes: report.total_reserved_bytes,
        })
    }

    /// The first error that the device reported outside of any error scope, such as its loss.
    ///
    /// # Errors
    /// [`Error::Device`] with that message.
    pub fn check(&self) -> Result<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.loss.as_ref().or(failure.error.as_ref()) {
            Some(message) => Err(Error::Device(format!(
                "{message}; resume from the last checkpoint (--resume), or choose another adapter (--device)"
            ))),
            None => Ok(()),
        }
    }

    /// Runs `make` and turns what the device objects to into one error.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device is out of memory, [`Error::Device`] for anything else.
    pub fn guarded<R>(&self, what: &str, make: impl FnOnce() -> R) -> Result<R> {
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let mut error = None;
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            error = faults.making(&self.device);
        }
        let made = make();
        for scope in scopes.into_iter().rev() {
            error = pollster::block_on(scope.pop()).or(error);
        }
        let Some(error) = error else { return Ok(made) };
        // A lost device objects to everything: then its loss is the reason.
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.check()?;
        Err(match error {
            wgpu::Error::OutOfMemory { .. } => Error::Memory(format!(
                "{} has no memory left for {what}; use a smaller T, grid (data.crop) or preset",
                self.adapter.name
            )),
            why => Error::Device(format!("{what} failed on {}: {why}", self.adapter.name)),
        })
    }

    /// An image of so many bytes, in whole layers, and of several: software Vulkan compiles another kernel for an image of one.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has not that much.
    pub fn image(&self, label: &str, bytes: usize) -> Result<wgpu::Texture> {
        let [width, height] = LAYER;
        let layers = bytes.div_ceil(LAYER_BYTES).max(2) as u32;
        self.guarded(&format!("an image of {bytes} bytes"), || {
            self.device.create_texture(&wgpu::TextureDescriptor {
                label: Some(label),
                size: wgpu::Extent3d { width, height, depth_or_array_layers: layers },
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: IMAGE_FORMAT,
                // Copied to so that wgpu can clear it before its first use.
                usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST,
                view_formats: &[],
            })
        })
    }

    /// Waits until everything submitted so far is done.
    ///
    /// # Errors
    /// [`Error::Device`] if the device was lost meanwhile.
    pub fn wait(&self) -> Result<()> {
        self.wait_for(None)
    }

    /// Waits until `submission` is done, or everything submitted so far.
    ///
    /// # Errors
    /// [`Error::Device`] if the device was lost meanwhile.
    pub fn wait_for(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            faults.waiting(&self.device);
        }
        self.device
            .poll(wgpu::PollType::Wait { submission_index: submission, timeout: None })
            .map_err(|why| Error::Device(format!("waiting for {} failed: {why}", self.adapter.name)))?;
        self.check()
    }
}
