//! Pipelines: made on first use or before a run, and kept on disk by drivers that can.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::PoisonError;

use super::{Context, IMAGE_FORMAT};
use crate::Result;
use crate::files::cache_folder;
use crate::kernel::{BoundKernel, Kernel, LAYER_BYTES, grouped, render_shader};

/// Room for one element of any array that a kernel binds as storage.
const SMALLEST_STORAGE_BYTES: usize = 1 << 10;

/// A compute pipeline and the layout of its only bind group.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The pipeline.
    pub pipeline: wgpu::ComputePipeline,
    /// Layout of bind group 0.
    pub layout: wgpu::BindGroupLayout,
}

/// What the entry point is called in the text that a driver gets.
const ENTRY: &str = "main";

/// All that a pipeline is made of. Kernels that differ in their name only, or in what the shader makes nothing of, share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Text {
    pub source: String,
    operands: usize,
    read_images: u32,
    written_images: u32,
}

impl Text {
    /// # Errors
    /// [`crate::Error::Device`] if the shader does not assemble.
    pub fn of((kernel, operands): &BoundKernel) -> Result<Text> {
        let source = render_shader(kernel)?.replace(&format!("fn {}(", kernel.entry), &format!("fn {ENTRY}("));
        let Kernel { read_images, written_images, .. } = *kernel;
        Ok(Text { source, operands: *operands, read_images, written_images })
    }
}

/// The pipelines of a device.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    of_kernel: HashMap<BoundKernel, Pipeline>,
    of_text: HashMap<Text, Pipeline>,
}

impl Context {
    /// The pipeline of `kernel` with so many operands, made on first use.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the shader does not assemble or the driver refuses it.
    pub fn pipeline(&self, kernel: &Kernel, operands: usize) -> Result<Pipeline> {
        let key = (kernel.clone(), operands);
        let pipelines = || self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines().of_kernel.get(&key) {
            return Ok(pipeline.clone());
        }
        // The maps are free meanwhile, so that several threads can each make one.
        let text = Text::of(&key)?;
        let made = pipelines().of_text.get(&text).cloned();
        let made = match made {
            Some(made) => made,
            None => self.make(kernel, operands, &text)?,
        };
        let mut pipelines = pipelines();
        pipelines.of_text.insert(text, made.clone());
        pipelines.of_kernel.insert(key, made.clone());
        Ok(made)
    }

    fn make(&self, kernel: &Kernel, operands: usize, text: &Text) -> Result<Pipeline> {
        self.guarded(&format!("kernel {}", kernel.entry), || {
            let entries: Vec<_> = (0..=operands as u32)
                .map(|binding| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: binding_type(kernel, binding),
                    count: None,
                })
                .collect();
            let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(kernel.entry),
                entries: &entries,
            });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(kernel.entry),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(kernel.entry),
                source: wgpu::ShaderSource::Wgsl(text.source.as_str().into()),
            };
            // SAFETY: bounds and loop checks cost half of a convolution's time on software Vulkan. Our own shaders are the only
            // ones: every loop is bounded, the plan checks every binding's range, and the tests compare each kernel with its
            // twin on odd shapes.
            let module =
                unsafe { self.device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.entry),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(ENTRY),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Kernels write workgroup memory before they read it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.cache.as_ref().map(|(cache, _)| cache),
            });
            Pipeline { pipeline, layout }
        })
    }

    /// Makes a driver compile that leaves it to the first launch, as software adapters do.
    pub(super) fn launch_over_nothing(&self, pipeline: &Pipeline, kernel: &Kernel, operands: usize) -> Result<()> {
        let image = self.image("warm-up", LAYER_BYTES)?;
        let view = image.create_view(&wgpu::TextureViewDescriptor {
            dimension: Some(wgpu::TextureViewDimension::D2Array),
            ..Default::default()
        });
        let buffer = |usage, bytes: usize| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("warm-up"),
                size: bytes as u64,
                usage,
                mapped_at_creation: false,
            })
        };
        self.guarded("a kernel's first launch", || {
            let storage = buffer(wgpu::BufferUsages::STORAGE, SMALLEST_STORAGE_BYTES);
            let parameters = buffer(wgpu::BufferUsages::UNIFORM, grouped::TABLE_BYTES);
            let entries: Vec<_> = (0..=operands as u32)
                .map(|binding| wgpu::BindGroupEntry {
                    binding,
                    resource: match binding_type(kernel, binding) {
                        wgpu::BindingType::StorageTexture { .. } => wgpu::BindingResource::TextureView(&view),
                        _ => if binding == 0 { &parameters } else { &storage }.as_entire_binding(),
                    },
                })
                .collect();
            let bind_group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("warm-up"),
                layout: &pipeline.layout,
                entries: &entries,
            });
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups(0, 1, 1);
            drop(pass);
            self.queue.submit([encoder.finish()]);
        })?;
        self.wait()
    }

    /// Keeps the pipelines made so far for the next start. A cache that cannot be written is only slower, so failures are
    /// ignored.
    pub fn save_pipeline_cache(&self) {
        if let Some((cache, path)) = &self.cache
            && let Some(data) = cache.get_data()
        {
            let parent = path.parent().map(std::fs::create_dir_all);
            if matches!(parent, Some(Ok(()))) {
                let _ = crate::files::write_atomically(path, &data);
            }
        }
    }
}

/// What a kernel has bound there.
fn binding_type(kernel: &Kernel, binding: u32) -> wgpu::BindingType {
    let has = |bindings: u32| bindings >> binding & 1 == 1;
    if has(kernel.read_images | kernel.written_images) {
        return wgpu::BindingType::StorageTexture {
            access: match has(kernel.written_images) {
                true => wgpu::StorageTextureAccess::WriteOnly,
                false => wgpu::StorageTextureAccess::ReadOnly,
            },
            format: IMAGE_FORMAT,
            view_dimension: wgpu::TextureViewDimension::D2Array,
        };
    }
    wgpu::BindingType::Buffer {
        ty: match binding {
            0 => wgpu::BufferBindingType::Uniform,
            _ => wgpu::BufferBindingType::Storage { read_only: false },
        },
        has_dynamic_offset: false,
        min_binding_size: None,
    }
}

pub(super) fn open_pipeline_cache(
    adapter: &wgpu::Adapter,
    device: &wgpu::Device,
) -> Option<(wgpu::PipelineCache, PathBuf)> {
    if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
        return None;
    }
    let path = cache_folder()?.join(wgpu::util::pipeline_cache_key(&adapter.get_info())?);
    let data = std::fs::read(&path).ok();
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("sep4d"), data: data.as_deref(), fallback: true };
    // SAFETY: the data is what this program wrote for this very driver (the key names it); the driver validates its header,
    // and `fallback` starts an empty cache where it does not fit.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    Some((cache, path))
}
