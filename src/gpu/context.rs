//! The device a run works on: adapter listing and choice, limits, error handling.

mod pipelines;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::tuning::TuningFile;
use crate::graph::program::{LAYER, LAYER_BYTES};
use crate::graph::{Grouping, KernelLimits, MatrixUnits, Tuning};
use crate::{Error, Result};
use pipelines::open_pipeline_cache;

pub use pipelines::{BoundKernel, Pipeline};

/// Which adapter to use.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum DeviceChoice {
    /// A discrete GPU before an integrated one before a software adapter.
    #[default]
    Best,
    /// Row `i` of [`adapters`].
    Index(usize),
    /// The first adapter whose name contains this text, upper and lower case alike.
    Name(String),
}

impl std::str::FromStr for DeviceChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(index) => DeviceChoice::Index(index),
            Err(_) if text.is_empty() || text == "best" => DeviceChoice::Best,
            Err(_) => DeviceChoice::Name(text.to_owned()),
        })
    }
}

/// Of images: every adapter reads and writes it.
const IMAGE_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Float;

/// Bytes of a kernel's parameter block, at most: the strictest uniform offset alignment.
pub const PARAMETER_BYTES: usize = 256;

/// One adapter as `sep4d devices` lists it.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    /// The driver's name for it.
    pub name: String,
    /// Discrete, integrated, virtual, software or other.
    pub kind: &'static str,
    /// Vulkan, Metal, D3D12...
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Limits that matter to kernels.
    pub limits: KernelLimits,
    /// Optional features that sep4d can use.
    pub features: Vec<&'static str>,
}

const OPTIONAL_FEATURES: [(wgpu::Features, &str); 5] = [
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative-matrix"),
    (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
    (wgpu::Features::SUBGROUP, "subgroup"),
    (wgpu::Features::SHADER_F16, "shader-f16"),
    (wgpu::Features::PIPELINE_CACHE, "pipeline-cache"),
];

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let mut adapters = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters.sort_by_key(rank);
    adapters
}

/// The better an adapter, the lower.
fn rank(adapter: &wgpu::Adapter) -> u8 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// The best of `adapters` that can draw to `surface`.
///
/// # Errors
/// [`Error::Device`] if there is no adapter, or none that can.
pub fn best_for(adapters: &[wgpu::Adapter], surface: Option<&wgpu::Surface<'_>>) -> Result<wgpu::Adapter> {
    let summaries: Vec<AdapterSummary> = adapters.iter().map(summary).collect();
    choose(&summaries, &DeviceChoice::Best)?;
    let fits = |adapter: &&wgpu::Adapter| surface.is_none_or(|surface| adapter.is_surface_supported(surface));
    adapters.iter().filter(fits).min_by_key(|adapter| rank(adapter)).cloned().ok_or_else(|| {
        let names: Vec<&str> = summaries.iter().map(|adapter| adapter.name.as_str()).collect();
        Error::Device(format!(
            "none of the adapters can draw to this display: {}; update their drivers",
            names.join(", ")
        ))
    })
}

/// Whether the adapter has the matrices for which there are kernels.
fn matrix_units(adapter: &wgpu::Adapter) -> MatrixUnits {
    let info = adapter.get_info();
    let needed =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    let fits = |matrix: &wgpu::CooperativeMatrixProperties| {
        [matrix.m_size, matrix.n_size, matrix.k_size] == [16; 3]
            && matrix.ab_type == wgpu::CooperativeScalarType::F16
            && matrix.cr_type == wgpu::CooperativeScalarType::F32
    };
    let has_units = adapter.features().contains(needed)
        && [info.subgroup_min_size, info.subgroup_max_size] == [32; 2]
        && adapter.cooperative_matrix_properties().iter().any(fits);
    if has_units { MatrixUnits::Present } else { MatrixUnits::None }
}

fn kernel_limits(adapter: &wgpu::Adapter) -> KernelLimits {
    let limits = adapter.limits();
    let is_cpu = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    KernelLimits {
        max_storage_binding_bytes: limits.max_storage_buffer_binding_size as usize,
        max_buffer_bytes: limits.max_buffer_size as usize,
        max_image_bytes: limits.max_texture_array_layers as usize * LAYER_BYTES,
        offset_alignment_bytes: 256
            .max(limits.min_storage_buffer_offset_alignment as usize)
            .max(limits.min_uniform_buffer_offset_alignment as usize),
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension as usize,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size as usize,
        is_cpu,
        min_subgroup_lanes: if adapter.features().contains(wgpu::Features::SUBGROUP) {
            adapter.get_info().subgroup_min_size as usize
        } else {
            0
        },
        tuning: Tuning::new(),
        matrices: matrix_units(adapter),
        has_f16: adapter.features().contains(wgpu::Features::SHADER_F16),
        // Drivers of GPUs are many; what they make of the rewritten kernels is tried before it is used.
        grouping: if is_cpu { Grouping::Small } else { Grouping::Tried },
    }
}

fn summary(adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let features = adapter.features();
    AdapterSummary {
        name: info.name.clone(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info),
        limits: kernel_limits(adapter),
        features: OPTIONAL_FEATURES.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| *name).collect(),
    }
}

/// All adapters, the best first; their places are what `--device N` counts.
pub fn adapters() -> Vec<AdapterSummary> {
    enumerate().iter().map(summary).collect()
}

/// The place of the chosen one among `adapters`.
///
/// # Errors
/// [`Error::Device`] if there is no adapter, or none of that name or number.
pub fn choose(adapters: &[AdapterSummary], choice: &DeviceChoice) -> Result<usize> {
    if adapters.is_empty() {
        return Err(Error::Device(
            "no Vulkan, Metal or D3D12 adapter was found; install a GPU driver, or Mesa's software driver \
             (Debian: apt-get install mesa-vulkan-drivers libvulkan1)"
                .into(),
        ));
    }
    let rows: Vec<String> = adapters.iter().enumerate().map(|(i, adapter)| format!("{i}: {}", adapter.name)).collect();
    let missing = |why: String| {
        Error::Device(format!("--device {why}; choose one of these: {} (`sep4d devices`)", rows.join(", ")))
    };
    match choice {
        DeviceChoice::Best => Ok(0),
        DeviceChoice::Index(index) if *index < adapters.len() => Ok(*index),
        DeviceChoice::Index(index) => Err(missing(format!("{index}: there is no adapter of that number"))),
        DeviceChoice::Name(name) => adapters
            .iter()
            .position(|adapter| adapter.name.to_lowercase().contains(&name.to_lowercase()))
            .ok_or_else(|| missing(format!("{name}: no adapter has that in its name"))),
    }
}

/// Device memory of everything alive on a [`Context`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct MemoryUse {
    /// Bytes of all buffers and textures.
    pub allocated_bytes: u64,
    /// Bytes that were taken from the driver to hold them.
    pub reserved_bytes: u64,
}

/// A device, its queue, and the pipelines made on it so far.
pub struct Context {
    /// The logical device.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    /// The adapter it came from.
    pub adapter: AdapterSummary,
    pipelines: Arc<Mutex<HashMap<BoundKernel, Pipeline>>>,
    cache: Option<(wgpu::PipelineCache, PathBuf)>,
    choices: Option<TuningFile>,
    failure: Arc<Mutex<Option<String>>>,
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
        let (adapter, mut summary) = (&adapters[number], summaries[number].clone());
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

        let failure = Arc::new(Mutex::new(None));
        let (lost, uncaptured) = (failure.clone(), failure.clone());
        // Dropping the device reports its loss too, but then nobody is left to ask.
        device.set_device_lost_callback(move |reason, message| {
            record(&lost, format!("the GPU device was lost ({reason:?}): {message}"));
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| record(&uncaptured, error.to_string())));
        let cache = open_pipeline_cache(adapter, &device);
        let choices = TuningFile::new(cache_folder().as_deref(), &adapter.get_info());
        if let (Some(choices), false) = (&choices, summary.limits.is_cpu) {
            summary.limits.tuning = choices.read();
        }
        Ok(Arc::new(Context { device, queue, adapter: summary, pipelines: Arc::default(), cache, choices, failure }))
    }

    /// Whether the fastest variants are to be measured on this adapter.
    pub fn is_tunable(&self) -> bool {
        self.choices.is_some() && !self.adapter.limits.is_cpu
    }

    /// Keeps the choices of variants for the next start.
    pub fn keep_tuning(&self) {
        if let Some(choices) = &self.choices {
            choices.write(&self.limits().tuning);
        }
    }

    /// The same device with other choices of variants.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Arc<Context> {
        let limits = KernelLimits { tuning, ..self.limits().clone() };
        Arc::new(Context {
            device: self.device.clone(),
            queue: self.queue.clone(),
            adapter: AdapterSummary { limits, ..self.adapter.clone() },
            pipelines: self.pipelines.clone(),
            cache: self.cache.clone(),
            choices: self.choices.clone(),
            failure: self.failure.clone(),
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
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
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
        let made = make();
        let mut error = None;
        for scope in scopes.into_iter().rev() {
            error = pollster::block_on(scope.pop()).or(error);
        }
        match error {
            None => Ok(made),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::Memory(format!(
                "{} has no memory left for {what}; use a smaller T, grid (data.crop) or preset",
                self.adapter.name
            ))),
            Some(why) => Err(Error::Device(format!("{what} failed on {}: {why}", self.adapter.name))),
        }
    }

    /// An image of so many bytes, in whole layers.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has not that much.
    pub fn image(&self, label: &str, bytes: usize) -> Result<wgpu::Texture> {
        let [width, height] = LAYER;
        let layers = bytes.div_ceil(LAYER_BYTES) as u32;
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
        self.device
            .poll(wgpu::PollType::Wait { submission_index: submission, timeout: None })
            .map_err(|why| Error::Device(format!("waiting for {} failed: {why}", self.adapter.name)))?;
        self.check()
    }
}

fn record(failure: &Mutex<Option<String>>, message: String) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
}

/// Where things are kept that only make the next start faster.
fn cache_folder() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("sep4d"))
}
