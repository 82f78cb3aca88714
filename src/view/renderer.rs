//! The voxel renderer: draws one grid into any rectangle of any render pass.
//!
//! It owns pipelines only; what is drawn lives in a [`VoxelScene`], so linked viewports share one renderer.

use glam::{Mat4, Vec3};

use super::camera::Camera;
use super::mesh::Face;
use super::theme::{Rgb, Theme};

/// Depth format a render pass must have for [`VoxelRenderer::draw`].
pub const DEPTH_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Depth32Float;
/// Samples a pixel; WebGPU guarantees this many for the common 8-bit colour formats on every adapter.
pub const SAMPLES: u32 = 4;

const SHADER: &str = include_str!("../../shaders/view/voxel.wgsl");
const START_FACES: u64 = 16 * 1024;

/// The look of every class id.
#[derive(Debug, Clone, PartialEq)]
pub struct Palette {
    /// sRGB colours by class id.
    pub colors: [Rgb; 256],
    /// By class id, how strongly shading, occlusion and edges show: 1 fully, 0 a flat silhouette.
    pub relief: [f32; 256],
}

impl Default for Palette {
    /// Mid grey with full relief for every class.
    fn default() -> Palette {
        Palette { colors: [[128; 3]; 256], relief: [1.0; 256] }
    }
}

impl Palette {
    /// The given colours for the first ids, mid grey for the rest, all with full relief.
    pub fn from_colors(colors: impl IntoIterator<Item = Rgb>) -> Palette {
        let mut palette = Palette::default();
        for (slot, color) in palette.colors.iter_mut().zip(colors) {
            *slot = color;
        }
        palette
    }
}

/// A rectangle of the target, in pixels from its top left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewport {
    /// Left edge.
    pub x: u32,
    /// Top edge.
    pub y: u32,
    /// Width; at least 1.
    pub width: u32,
    /// Height; at least 1.
    pub height: u32,
}

impl Viewport {
    /// Width over height.
    pub fn aspect(&self) -> f32 {
        self.width as f32 / self.height.max(1) as f32
    }
}

/// How a scene is seen.
#[derive(Debug, Clone)]
pub struct Look<'a> {
    /// From where.
    pub camera: &'a Camera,
    /// Grid size in voxels, `[X, Y, Z]`.
    pub size: [usize; 3],
    /// Edges of one voxel, metres.
    pub voxel_size_m: [f32; 3],
    /// Colours of the classes.
    pub palette: &'a Palette,
    /// Colours of the rest.
    pub theme: Theme,
    /// Pixels for each point of the screen or page: lines keep their width on dense screens and when supersampling.
    pub pixels_per_point: f32,
}

impl Look<'_> {
    /// The grid's size in metres.
    pub fn extent_m(&self) -> Vec3 {
        extent_m(self.size, self.voxel_size_m)
    }
}

/// The size in metres of a grid of `size` voxels.
pub fn extent_m(size: [usize; 3], voxel_size_m: [f32; 3]) -> Vec3 {
    Vec3::from_array(std::array::from_fn(|axis| size[axis] as f32 * voxel_size_m[axis]))
}

/// The uniform of voxel.wgsl, field by field.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ViewUniform {
    clip_from_world: [[f32; 4]; 4],
    voxel_size_m: [f32; 4],
    extent_m: [f32; 4],
    light: [f32; 4],
    sky_top: [f32; 4],
    sky_bottom: [f32; 4],
    floor: [f32; 4],
    floor_line: [f32; 4],
    shadow: [f32; 4],
    palette: [[f32; 4]; 256],
}

impl ViewUniform {
    fn new(look: &Look<'_>, aspect: f32) -> ViewUniform {
        let colors = look.theme.colors();
        let extent = look.extent_m();
        let [_, right, _] = look.camera.forward_right_up();
        // The light comes over the viewer's left shoulder, so the two sides in view always differ.
        let toward_viewer = right.cross(Vec3::Z);
        let light = (toward_viewer * -0.35 - right * 0.8 + Vec3::Z * 0.9).normalize();
        ViewUniform {
            clip_from_world: Mat4::to_cols_array_2d(&look.camera.clip_from_world(aspect)),
            voxel_size_m: Vec3::from_array(look.voxel_size_m)
                .extend(round_spacing_m(extent.truncate().max_element() / 5.0))
                .to_array(),
            extent_m: extent.extend(0.02 * extent.truncate().max_element()).to_array(),
            light: light.extend(0.22).to_array(),
            sky_top: unit(colors.sky_top),
            sky_bottom: unit(colors.sky_bottom),
            floor: {
                let [r, g, b, _] = unit(colors.floor);
                [r, g, b, look.pixels_per_point]
            },
            floor_line: unit(colors.floor_line),
            shadow: unit(colors.shadow),
            palette: std::array::from_fn(|id| {
                let [r, g, b, _] = unit(look.palette.colors[id]);
                [r, g, b, look.palette.relief[id]]
            }),
        }
    }
}

fn unit(color: Rgb) -> [f32; 4] {
    let [r, g, b] = color.map(|c| f32::from(c) / 255.0);
    [r, g, b, 1.0]
}

/// The largest of 1, 2, 5 times a power of ten that is no more than `at_most_m`: a spacing people can read.
fn round_spacing_m(at_most_m: f32) -> f32 {
    let power = 10f32.powf(at_most_m.max(1e-6).log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().find(|step| step * power <= at_most_m * 1.0001);
    step.unwrap_or(1.0) * power
}

/// Pipelines that draw voxel scenes into passes of one colour format, with [`SAMPLES`] and [`DEPTH_FORMAT`].
#[derive(Debug)]
pub struct VoxelRenderer {
    layout: wgpu::BindGroupLayout,
    sky: wgpu::RenderPipeline,
    floor: wgpu::RenderPipeline,
    voxels: wgpu::RenderPipeline,
}

/// One grid on the device: its faces and how they are seen.
#[derive(Debug)]
pub struct VoxelScene {
    faces: wgpu::Buffer,
    face_count: u32,
    uniform: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
}

impl VoxelRenderer {
    /// Builds the pipelines. `color_format` is not an sRGB format: colours are written as they are stored.
    ///
    /// wgpu reports errors to the device's error scopes, here and in every other method.
    pub fn new(device: &wgpu::Device, color_format: wgpu::TextureFormat) -> VoxelRenderer {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("view/voxel.wgsl"),
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("view"),
            entries: &[wgpu::BindGroupLayoutEntry {
                binding: 0,
                visibility: wgpu::ShaderStages::VERTEX_FRAGMENT,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Uniform,
                    has_dynamic_offset: false,
                    min_binding_size: wgpu::BufferSize::new(size_of::<ViewUniform>() as u64),
                },
                count: None,
            }],
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("view"),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let face_attributes = wgpu::vertex_attr_array![0 => Uint32x2];
        let face_layouts = [Some(wgpu::VertexBufferLayout {
            array_stride: size_of::<Face>() as u64,
            step_mode: wgpu::VertexStepMode::Instance,
            attributes: &face_attributes,
        })];
        let pipeline = |name: &str, vertex: &str, fragment: &str, is_voxels: bool| {
            device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
                label: Some(name),
                layout: Some(&pipeline_layout),
                vertex: wgpu::VertexState {
                    module: &module,
                    entry_point: Some(vertex),
                    compilation_options: Default::default(),
                    buffers: if is_voxels { &face_layouts } else { &[] },
                },
                primitive: wgpu::PrimitiveState {
                    topology: wgpu::PrimitiveTopology::TriangleStrip,
                    cull_mode: is_voxels.then_some(wgpu::Face::Back),
                    ..Default::default()
                },
                depth_stencil: Some(wgpu::DepthStencilState {
                    format: DEPTH_FORMAT,
                    depth_write_enabled: Some(is_voxels),
                    depth_compare: Some(if is_voxels {
                        wgpu::CompareFunction::Less
                    } else {
                        wgpu::CompareFunction::Always
                    }),
                    stencil: Default::default(),
                    bias: Default::default(),
                }),
                multisample: wgpu::MultisampleState { count: SAMPLES, ..Default::default() },
                fragment: Some(wgpu::FragmentState {
                    module: &module,
                    entry_point: Some(fragment),
                    compilation_options: Default::default(),
                    targets: &[Some(wgpu::ColorTargetState {
                        format: color_format,
                        blend: Some(wgpu::BlendState::ALPHA_BLENDING),
                        write_mask: wgpu::ColorWrites::ALL,
                    })],
                }),
                multiview_mask: None,
                cache: None,
            })
        };
        VoxelRenderer {
            sky: pipeline("view sky", "sky_vertex", "sky_fragment", false),
            floor: pipeline("view floor", "floor_vertex", "floor_fragment", false),
            voxels: pipeline("view voxels", "voxel_vertex", "voxel_fragment", true),
            layout,
        }
    }

    /// An empty scene.
    pub fn scene(&self, device: &wgpu::Device) -> VoxelScene {
        let uniform = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("view uniform"),
            size: size_of::<ViewUniform>() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("view"),
            layout: &self.layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }],
        });
        VoxelScene { faces: face_buffer(device, START_FACES), face_count: 0, uniform, bind_group }
    }

    /// Draws sky, floor and voxels of `scene` into `viewport`, over whatever the pass holds there.
    ///
    /// The rectangle must lie inside the target. The pass's depth should be cleared to 1.
    pub fn draw(&self, pass: &mut wgpu::RenderPass<'_>, scene: &VoxelScene, viewport: Viewport) {
        let Viewport { x, y, width, height } = viewport;
        pass.set_viewport(x as f32, y as f32, width as f32, height as f32, 0.0, 1.0);
        pass.set_scissor_rect(x, y, width, height);
        pass.set_bind_group(0, &scene.bind_group, &[]);
        pass.set_pipeline(&self.sky);
        pass.draw(0..3, 0..1);
        pass.set_pipeline(&self.floor);
        pass.draw(0..4, 0..1);
        if scene.face_count > 0 {
            pass.set_pipeline(&self.voxels);
            pass.set_vertex_buffer(0, scene.faces.slice(..));
            pass.draw(0..4, 0..scene.face_count);
        }
    }
}

impl VoxelScene {
    /// Replaces the faces; the buffer grows when needed and is reused otherwise.
    pub fn set_faces(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, faces: &[Face]) {
        let capacity = self.faces.size() / size_of::<Face>() as u64;
        if faces.len() as u64 > capacity {
            self.faces = face_buffer(device, (faces.len() as u64).next_power_of_two());
        }
        queue.write_buffer(&self.faces, 0, bytemuck::cast_slice(faces));
        self.face_count = faces.len() as u32;
    }

    /// Sets how the scene is seen in a viewport of `aspect = width / height`.
    pub fn set_look(&self, queue: &wgpu::Queue, look: &Look<'_>, aspect: f32) {
        queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&ViewUniform::new(look, aspect)));
    }
}

fn face_buffer(device: &wgpu::Device, capacity: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("view faces"),
        size: capacity * size_of::<Face>() as u64,
        usage: wgpu::BufferUsages::VERTEX | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_lines_are_at_round_distances() {
        for (at_most_m, spacing_m) in [(10.24, 10.0), (2.56, 2.0), (16.0, 10.0), (0.9, 0.5), (1.0, 1.0)] {
            assert!((round_spacing_m(at_most_m) - spacing_m).abs() < 1e-6, "{at_most_m}");
        }
    }

    #[test]
    fn the_shader_is_valid_webgpu() {
        let module = naga::front::wgsl::parse_str(SHADER).unwrap_or_else(|e| panic!("{}", e.emit_to_string(SHADER)));
        let mut validator =
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::default());
        let info = validator.validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string(SHADER)));
        drop(info);
        let (_, view) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("View")).unwrap();
        let naga::TypeInner::Struct { span, .. } = view.inner else { panic!("View is a struct") };
        assert_eq!(span as usize, size_of::<ViewUniform>(), "the uniform matches the shader's layout");
    }

    #[test]
    fn palettes_keep_their_order() {
        let palette = Palette::from_colors([[1, 2, 3], [4, 5, 6]]);
        assert_eq!((palette.colors[1], palette.colors[2]), ([4, 5, 6], [128; 3]));
    }
}
