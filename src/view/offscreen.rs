//! A texture that a scene is drawn into, for a window to show or a picture to be read from.

use super::renderer::{Antialiasing, COLOR_FORMAT, DEPTH_FORMAT, VoxelRenderer, VoxelScene};

/// A colour texture with depth, and with samples where they are wanted.
#[derive(Debug)]
pub struct Offscreen {
    size_px: [u32; 2],
    color: wgpu::Texture,
    color_view: wgpu::TextureView,
    /// Depth and, if multisampled, colour samples, by [`Antialiasing`]; made when first drawn into.
    attachments: [Option<Attachments>; 2],
}

#[derive(Debug)]
struct Attachments {
    samples: Option<wgpu::TextureView>,
    depth: wgpu::TextureView,
}

impl Offscreen {
    /// A target of `[width, height]` pixels, each at least 1 and at most the device's `max_texture_dimension_2d`.
    pub fn new(device: &wgpu::Device, size_px: [u32; 2]) -> Offscreen {
        let usage = wgpu::TextureUsages::RENDER_ATTACHMENT
            | wgpu::TextureUsages::TEXTURE_BINDING
            | wgpu::TextureUsages::COPY_SRC;
        let color = texture(device, "view color", size_px, COLOR_FORMAT, 1, usage);
        let color_view = color.create_view(&Default::default());
        Offscreen { size_px, color, color_view, attachments: [None, None] }
    }

    /// Changes the size; `true` if it did change, and with it [`Offscreen::color_view`].
    pub fn resize(&mut self, device: &wgpu::Device, size_px: [u32; 2]) -> bool {
        let changes = size_px != self.size_px;
        if changes {
            *self = Offscreen::new(device, size_px);
        }
        changes
    }

    /// Width and height, pixels.
    pub fn size_px(&self) -> [u32; 2] {
        self.size_px
    }

    /// What was drawn, opaque, of format [`COLOR_FORMAT`].
    pub fn color(&self) -> &wgpu::Texture {
        &self.color
    }

    /// The view under which a shader samples [`Offscreen::color`].
    pub fn color_view(&self) -> &wgpu::TextureView {
        &self.color_view
    }

    /// Draws `scene` over the whole target.
    pub fn draw(
        &mut self,
        device: &wgpu::Device,
        encoder: &mut wgpu::CommandEncoder,
        renderer: &VoxelRenderer,
        scene: &VoxelScene,
        antialiasing: Antialiasing,
    ) {
        let size_px = self.size_px;
        let count = antialiasing.samples();
        let attachments = self.attachments[antialiasing as usize].get_or_insert_with(|| {
            let texture = |label, format| {
                texture(device, label, size_px, format, count, wgpu::TextureUsages::RENDER_ATTACHMENT)
                    .create_view(&Default::default())
            };
            Attachments {
                samples: (count > 1).then(|| texture("view samples", COLOR_FORMAT)),
                depth: texture("view depth", DEPTH_FORMAT),
            }
        });
        let color = wgpu::RenderPassColorAttachment {
            view: attachments.samples.as_ref().unwrap_or(&self.color_view),
            depth_slice: None,
            resolve_target: attachments.samples.as_ref().map(|_| &self.color_view),
            ops: wgpu::Operations {
                load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                store: if count > 1 { wgpu::StoreOp::Discard } else { wgpu::StoreOp::Store },
            },
        };
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("view"),
            color_attachments: &[Some(color)],
            depth_stencil_attachment: Some(wgpu::RenderPassDepthStencilAttachment {
                view: &attachments.depth,
                depth_ops: Some(wgpu::Operations { load: wgpu::LoadOp::Clear(1.0), store: wgpu::StoreOp::Discard }),
                stencil_ops: None,
            }),
            ..Default::default()
        });
        renderer.draw(&mut pass, scene, antialiasing);
    }
}

fn texture(
    device: &wgpu::Device,
    label: &str,
    [width, height]: [u32; 2],
    format: wgpu::TextureFormat,
    sample_count: u32,
    usage: wgpu::TextureUsages,
) -> wgpu::Texture {
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
}
