//! Renders scenes without a display: an offscreen target and its readback.

use image::RgbaImage;

use super::mesh::Face;
use super::renderer::{DEPTH_FORMAT, Look, SAMPLES, Viewport, VoxelRenderer, VoxelScene};
use crate::{Error, Result};

const COLOR_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

/// A [`VoxelRenderer`] with an offscreen target on a device of the caller's.
#[derive(Debug)]
pub struct Headless {
    device: wgpu::Device,
    queue: wgpu::Queue,
    renderer: VoxelRenderer,
    scene: VoxelScene,
    target: Option<Target>,
}

#[derive(Debug)]
struct Target {
    width: u32,
    height: u32,
    samples: wgpu::TextureView,
    depth: wgpu::TextureView,
    color: wgpu::Texture,
    readback: wgpu::Buffer,
    bytes_per_row: u32,
}

impl Headless {
    /// Builds the pipelines on `device`.
    ///
    /// # Errors
    /// [`Error::Device`] if the device refuses them or is lost.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Headless> {
        let (renderer, scene) = guarded(device, "set up the voxel renderer", || {
            let renderer = VoxelRenderer::new(device, COLOR_FORMAT);
            let scene = renderer.scene(device);
            (renderer, scene)
        })?;
        Ok(Headless { device: device.clone(), queue: queue.clone(), renderer, scene, target: None })
    }

    /// One view of `faces` as an opaque picture of `width` x `height` pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] if the picture is empty or larger than the adapter allows; [`Error::Device`] if drawing fails.
    pub fn render(&mut self, faces: &[Face], look: &Look<'_>, width: u32, height: u32) -> Result<RgbaImage> {
        let limits = self.device.limits();
        let longest = limits.max_texture_dimension_2d;
        if width == 0 || height == 0 || width > longest || height > longest {
            return Err(Error::Usage(format!(
                "cannot render a panel of {width} x {height} pixels: this adapter draws 1 to {longest} a side"
            )));
        }
        if size_of_val(faces) as u64 > limits.max_buffer_size {
            return Err(Error::Device(format!(
                "{} voxel faces need more than the {} bytes this adapter allows in one buffer; hide some classes",
                faces.len(),
                limits.max_buffer_size
            )));
        }
        let device = self.device.clone();
        guarded(&device, "render voxels", || self.draw(faces, look, width, height))??;
        self.read_back()
    }

    fn draw(&mut self, faces: &[Face], look: &Look<'_>, width: u32, height: u32) -> Result<()> {
        if self.target.as_ref().is_none_or(|t| (t.width, t.height) != (width, height)) {
            self.target = Some(Target::new(&self.device, width, height));
        }
        let target = self.target.as_ref().ok_or_else(no_target)?;
        let viewport = Viewport { x: 0, y: 0, width, height };
        self.scene.set_faces(&self.device, &self.queue, faces);
        self.scene.set_look(&self.queue, look, viewport.aspect());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let resolved = target.color.create_view(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("view headless"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &target.samples,
                depth_slice: None,
                resolve_target: Some(&resolved),
                ops: wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLACK), store: wgpu::StoreOp::Discard },
            })],
            depth_stencil_attachment: Some(wgpu::RenderPassDepthStencilAttachment {
                view: &target.depth,
                depth_ops: Some(wgpu::Operations { load: wgpu::LoadOp::Clear(1.0), store: wgpu::StoreOp::Discard }),
                stencil_ops: None,
            }),
            ..Default::default()
        });
        self.renderer.draw(&mut pass, &self.scene, viewport);
        drop(pass);
        encoder.copy_texture_to_buffer(
            target.color.as_image_copy(),
            wgpu::TexelCopyBufferInfo {
                buffer: &target.readback,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(target.bytes_per_row),
                    rows_per_image: None,
                },
            },
            target.color.size(),
        );
        self.queue.submit([encoder.finish()]);
        Ok(())
    }

    fn read_back(&self) -> Result<RgbaImage> {
        let target = self.target.as_ref().ok_or_else(no_target)?;
        let slice = target.readback.slice(..);
        let (sender, receiver) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // The receiver outlives the poll below, so a failed send cannot lose a result.
            let _ = sender.send(result);
        });
        self.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| readback_failed(&e.to_string()))?;
        receiver
            .try_recv()
            .map_err(|e| readback_failed(&e.to_string()))?
            .map_err(|e| readback_failed(&e.to_string()))?;
        let mapped = slice.get_mapped_range().map_err(|e| readback_failed(&e.to_string()))?;
        let row = target.width as usize * 4;
        let pixels = mapped.chunks_exact(target.bytes_per_row as usize).flat_map(|r| &r[..row]).copied().collect();
        drop(mapped);
        target.readback.unmap();
        RgbaImage::from_raw(target.width, target.height, pixels)
            .ok_or_else(|| readback_failed("the picture came back with the wrong size"))
    }
}

impl Target {
    fn new(device: &wgpu::Device, width: u32, height: u32) -> Target {
        let texture = |label, format, sample_count, usage| {
            device.create_texture(&wgpu::TextureDescriptor {
                label: Some(label),
                size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count,
                dimension: wgpu::TextureDimension::D2,
                format,
                usage,
                view_formats: &[],
            })
        };
        let attachment = wgpu::TextureUsages::RENDER_ATTACHMENT;
        let samples = texture("view samples", COLOR_FORMAT, SAMPLES, attachment);
        let depth = texture("view depth", DEPTH_FORMAT, SAMPLES, attachment);
        let color = texture("view color", COLOR_FORMAT, 1, attachment | wgpu::TextureUsages::COPY_SRC);
        let bytes_per_row = (width * 4).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
        let readback = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("view readback"),
            size: u64::from(bytes_per_row) * u64::from(height),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Target {
            width,
            height,
            samples: samples.create_view(&Default::default()),
            depth: depth.create_view(&Default::default()),
            color,
            readback,
            bytes_per_row,
        }
    }
}

fn no_target() -> Error {
    Error::Device("the voxel renderer has no target to draw into".into())
}

fn readback_failed(why: &str) -> Error {
    Error::Device(format!("could not read the rendered picture back from the device: {why}"))
}

/// Runs `work` and turns what wgpu reports meanwhile into one error that says what was being done.
fn guarded<T>(device: &wgpu::Device, what: &str, work: impl FnOnce() -> T) -> Result<T> {
    let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let result = work();
    let mut first = None;
    for scope in scopes.into_iter().rev() {
        first = pollster::block_on(scope.pop()).or(first);
    }
    match first {
        None => Ok(result),
        Some(error) => Err(Error::Device(format!("could not {what}: {error}"))),
    }
}
