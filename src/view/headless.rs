//! Renders scenes without a display: an offscreen target and its readback.

use image::RgbaImage;

use super::mesh::{Face, Mesh};
use super::offscreen::Offscreen;
use super::renderer::{Antialiasing, Look, VoxelRenderer, VoxelScene};
use crate::{Error, Result};

/// A [`VoxelRenderer`] with an offscreen target on a device of the caller's.
#[derive(Debug)]
pub struct Headless {
    device: wgpu::Device,
    queue: wgpu::Queue,
    renderer: VoxelRenderer,
    scene: VoxelScene,
    target: Offscreen,
}

impl Headless {
    /// Builds the pipelines on `device`.
    ///
    /// # Errors
    /// [`Error::Device`] if the device refuses them or is lost.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<Headless> {
        guarded(device, "set up the voxel renderer", || {
            let renderer = VoxelRenderer::new(device);
            let scene = renderer.scene(device);
            let target = Offscreen::new(device, [1, 1]);
            Headless { device: device.clone(), queue: queue.clone(), renderer, scene, target }
        })
    }

    /// One view of `mesh` as an opaque picture of `width` x `height` pixels.
    ///
    /// # Errors
    /// [`Error::Usage`] if the picture is empty or larger than the adapter allows; [`Error::Device`] if drawing fails.
    pub fn render(&mut self, mesh: Mesh, look: &Look<'_>, width: u32, height: u32) -> Result<RgbaImage> {
        let limits = self.device.limits();
        let longest = limits.max_texture_dimension_2d;
        if width == 0 || height == 0 || width > longest || height > longest {
            return Err(Error::Usage(format!(
                "cannot render a panel of {width} x {height} pixels: this adapter draws 1 to {longest} a side"
            )));
        }
        if (mesh.faces.len() * size_of::<Face>()) as u64 > limits.max_buffer_size {
            return Err(Error::Device(format!(
                "{} voxel faces need more than the {} bytes this adapter allows in one buffer; hide some classes",
                mesh.faces.len(),
                limits.max_buffer_size
            )));
        }
        let device = self.device.clone();
        guarded(&device, "render voxels", || {
            self.target.resize(&self.device, [width, height]);
            self.scene.set_mesh(&self.device, &self.queue, mesh);
            self.scene.set_look(&self.device, &self.queue, look, [width, height]);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            self.target.draw(&self.device, &mut encoder, &self.renderer, &self.scene, Antialiasing::Msaa4);
            self.queue.submit([encoder.finish()]);
            read_texture(&self.device, &self.queue, self.target.color())
        })?
    }
}

/// The pixels of a texture of [`super::renderer::COLOR_FORMAT`], such as [`Offscreen::color`], after all that was
/// submitted before.
///
/// # Errors
/// [`Error::Device`] if the device is lost.
pub fn read_texture(device: &wgpu::Device, queue: &wgpu::Queue, texture: &wgpu::Texture) -> Result<RgbaImage> {
    let (width, height) = (texture.width(), texture.height());
    let bytes_per_row = (width * 4).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
    let readback = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("view readback"),
        size: u64::from(bytes_per_row) * u64::from(height),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.copy_texture_to_buffer(
        texture.as_image_copy(),
        wgpu::TexelCopyBufferInfo {
            buffer: &readback,
            layout: wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(bytes_per_row), rows_per_image: None },
        },
        texture.size(),
    );
    queue.submit([encoder.finish()]);

    let failed =
        |why: String| Error::Device(format!("could not read the rendered picture back from the device: {why}"));
    let slice = readback.slice(..);
    let (sender, receiver) = std::sync::mpsc::channel();
    slice.map_async(wgpu::MapMode::Read, move |result| {
        // The receiver outlives the poll below, so a failed send cannot lose a result.
        let _ = sender.send(result);
    });
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| failed(e.to_string()))?;
    receiver.try_recv().map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
    let mapped = slice.get_mapped_range().map_err(|e| failed(e.to_string()))?;
    let row = width as usize * 4;
    let pixels = mapped.chunks_exact(bytes_per_row as usize).flat_map(|r| &r[..row]).copied().collect();
    RgbaImage::from_raw(width, height, pixels).ok_or_else(|| failed("it has the wrong size".into()))
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
