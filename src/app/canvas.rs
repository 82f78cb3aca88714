//! The large plain parts of the window, the views' pictures and the ground behind the panels, drawn past egui's shader.
//!
//! That shader filters every texture twice, by the sampler and by hand, and a software adapter runs both for each pixel:
//! with these rectangles left to it, most of a frame's time would go there.

use std::sync::Arc;

use eframe::egui::{Color32, Painter, Rect, Rgba};
use eframe::egui_wgpu::{Callback, CallbackResources, CallbackTrait};
use eframe::epaint::PaintCallbackInfo;
use eframe::wgpu;

const SHADER: &str = include_str!("../../shaders/view/canvas.wgsl");

/// Draws rectangles with pipelines of its own.
#[derive(Debug, Clone)]
pub struct Canvas {
    fill: wgpu::RenderPipeline,
    show: wgpu::RenderPipeline,
    converts: bool,
}

impl Canvas {
    /// Builds the pipelines for targets of format `target`.
    pub fn new(device: &wgpu::Device, target: wgpu::TextureFormat) -> Canvas {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("view/canvas.wgsl"),
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let converts = target.is_srgb();
        let constant = wgpu::BlendComponent {
            src_factor: wgpu::BlendFactor::Constant,
            dst_factor: wgpu::BlendFactor::Zero,
            operation: wgpu::BlendOperation::Add,
        };
        let pipeline = |entry, blend| {
            device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
                label: Some(entry),
                layout: None,
                vertex: wgpu::VertexState {
                    module: &module,
                    entry_point: Some("vertex"),
                    compilation_options: Default::default(),
                    buffers: &[],
                },
                primitive: Default::default(),
                depth_stencil: None,
                multisample: Default::default(),
                fragment: Some(wgpu::FragmentState {
                    module: &module,
                    entry_point: Some(entry),
                    compilation_options: wgpu::PipelineCompilationOptions {
                        constants: &[("converts", f64::from(u8::from(converts)))],
                        ..Default::default()
                    },
                    targets: &[Some(wgpu::ColorTargetState { blend, ..target.into() })],
                }),
                multiview_mask: None,
                cache: None,
            })
        };
        let constant = wgpu::BlendState { color: constant, alpha: constant };
        Canvas { fill: pipeline("fill", Some(constant)), show: pipeline("show", None), converts }
    }

    /// Fills `rect` with an opaque colour.
    pub fn fill(&self, painter: &Painter, rect: Rect, color: Color32) {
        painter.add(Callback::new_paint_callback(rect, self.filled(color)));
    }

    fn filled(&self, color: Color32) -> Rectangle {
        let [r, g, b, a] = if self.converts {
            Rgba::from(color).to_array().map(f64::from)
        } else {
            color.to_array().map(|level| f64::from(level) / 255.0)
        };
        Rectangle { pipeline: self.fill.clone(), paint: Paint::Fill(wgpu::Color { r, g, b, a }) }
    }

    /// What shows a picture with [`Canvas::show`].
    pub fn picture(&self, device: &wgpu::Device, view: &wgpu::TextureView) -> Arc<wgpu::BindGroup> {
        Arc::new(device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("picture"),
            layout: &self.show.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::TextureView(view) }],
        }))
    }

    /// Shows a picture, gamma-encoded and opaque, in `rect`, which is to have the picture's size in pixels.
    pub fn show(&self, painter: &Painter, rect: Rect, picture: &Arc<wgpu::BindGroup>) {
        painter.add(Callback::new_paint_callback(rect, self.shown(picture)));
    }

    fn shown(&self, picture: &Arc<wgpu::BindGroup>) -> Rectangle {
        Rectangle { pipeline: self.show.clone(), paint: Paint::Show(picture.clone()) }
    }
}

/// One rectangle of a frame.
struct Rectangle {
    pipeline: wgpu::RenderPipeline,
    paint: Paint,
}

enum Paint {
    Fill(wgpu::Color),
    Show(Arc<wgpu::BindGroup>),
}

impl CallbackTrait for Rectangle {
    fn paint(&self, _: PaintCallbackInfo, pass: &mut wgpu::RenderPass<'static>, _: &CallbackResources) {
        pass.set_pipeline(&self.pipeline);
        match &self.paint {
            Paint::Fill(color) => pass.set_blend_constant(*color),
            Paint::Show(picture) => pass.set_bind_group(0, &**picture, &[]),
        }
        pass.draw(0..3, 0..1);
    }
}

#[cfg(test)]
mod tests {
    use eframe::wgpu::util::{DeviceExt, TextureDataOrder};

    use super::*;
    use crate::gpu::{Context, DeviceChoice};
    use crate::view::read_texture;

    const PICTURE: [[u8; 4]; 6] = [
        [0, 0, 0, 255],
        [5, 10, 11, 255],
        [27, 30, 36, 255],
        [76, 157, 255, 255],
        [128, 200, 250, 255],
        [255, 255, 255, 255],
    ];

    /// A colour, and below it a picture of the same size, as they arrive in a target of a format.
    fn drawn(gpu: &Context, format: wgpu::TextureFormat, color: Color32) -> Vec<[u8; 4]> {
        let texture = |height, format, usage| wgpu::TextureDescriptor {
            label: None,
            size: wgpu::Extent3d { width: 3, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format,
            usage,
            view_formats: &[],
        };
        let usage = wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC;
        let target = gpu.device.create_texture(&texture(4, format, usage));
        let picture = texture(2, wgpu::TextureFormat::Rgba8Unorm, wgpu::TextureUsages::TEXTURE_BINDING);
        let (order, pixels) = (TextureDataOrder::default(), PICTURE.as_flattened());
        let picture = gpu.device.create_texture_with_data(&gpu.queue, &picture, order, pixels);
        let canvas = Canvas::new(&gpu.device, format);
        let picture = canvas.picture(&gpu.device, &picture.create_view(&Default::default()));
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let view = target.create_view(&Default::default());
        let attachment = wgpu::RenderPassColorAttachment {
            view: &view,
            depth_slice: None,
            resolve_target: None,
            ops: Default::default(),
        };
        let pass = wgpu::RenderPassDescriptor { color_attachments: &[Some(attachment)], ..Default::default() };
        let mut pass = encoder.begin_render_pass(&pass).forget_lifetime();
        for (top, rectangle) in [(0.0, canvas.filled(color)), (2.0, canvas.shown(&picture))] {
            pass.set_viewport(0.0, top, 3.0, 2.0, 0.0, 1.0);
            let info = PaintCallbackInfo {
                viewport: Rect::ZERO,
                clip_rect: Rect::ZERO,
                pixels_per_point: 1.0,
                screen_size_px: [3, 4],
            };
            rectangle.paint(info, &mut pass, &CallbackResources::default());
        }
        drop(pass);
        gpu.queue.submit([encoder.finish()]);
        let image = read_texture(&gpu.device, &gpu.queue, &target).unwrap();
        image.pixels().map(|pixel| pixel.0).collect()
    }

    #[test]
    fn colors_arrive_as_they_are_in_every_kind_of_target() {
        let gpu = Context::open(&DeviceChoice::Best).unwrap();
        let color = Color32::from_rgb(27, 30, 36);
        let expected: Vec<[u8; 4]> = std::iter::repeat_n(color.to_array(), 6).chain(PICTURE).collect();
        for format in [wgpu::TextureFormat::Rgba8Unorm, wgpu::TextureFormat::Rgba8UnormSrgb] {
            assert_eq!(drawn(&gpu, format, color), expected, "{format:?}");
        }
    }
}
