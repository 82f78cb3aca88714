//! The voxel renderer: draws grids into [`super::Offscreen`] targets.
//!
//! It owns pipelines only; what is drawn lives in a [`VoxelScene`], so linked views share one renderer.

use glam::{Mat4, Vec3};

use super::camera::{Camera, Projection};
use super::geometry::Geometry;
use super::mesh::{Face, Mesh};
use super::ornament::{Line, Ornaments, lines, round_length_m};
use super::palette::Palette;
use super::theme::{Rgb, Theme};

/// Format of what is drawn: colours are written as they are stored.
pub const COLOR_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;
/// Format of the depth.
pub const DEPTH_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Depth32Float;

const SHADER: &str = include_str!("../../shaders/view/voxel.wgsl");
const START_FACES: u64 = 16 * 1024;
const START_LINES: u64 = 64;

/// How smooth silhouettes are. The lines between voxels are always smooth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Antialiasing {
    /// One sample a pixel: for software adapters while something moves.
    Off,
    /// Four samples a pixel, which WebGPU guarantees on every adapter.
    Msaa4,
}

impl Antialiasing {
    /// Samples a pixel.
    pub fn samples(self) -> u32 {
        match self {
            Antialiasing::Off => 1,
            Antialiasing::Msaa4 => 4,
        }
    }
}

/// How a scene is seen.
#[derive(Debug, Clone)]
pub struct Look<'a> {
    /// From where.
    pub camera: &'a Camera,
    /// The grid that was meshed.
    pub geometry: Geometry,
    /// Colours of the classes.
    pub palette: &'a Palette,
    /// Colours of the rest.
    pub theme: Theme,
    /// What is drawn besides the voxels.
    pub ornaments: &'a Ornaments,
    /// Pixels for each point of the screen or page: lines keep their width on dense screens and when supersampling.
    pub pixels_per_point: f32,
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
    size_px: [f32; 4],
    palette: [[f32; 4]; 256],
}

impl ViewUniform {
    fn new(look: &Look<'_>, [width, height]: [f32; 2]) -> ViewUniform {
        let colors = look.theme.colors();
        let extent = look.geometry.extent_m();
        let [_, right, _] = look.camera.forward_right_up();
        // The light comes over the viewer's left shoulder, so the two sides in view always differ.
        let toward_viewer = right.cross(Vec3::Z);
        let light = (toward_viewer * -0.35 - right * 0.8 + Vec3::Z * 0.9).normalize();
        ViewUniform {
            clip_from_world: Mat4::to_cols_array_2d(&look.camera.clip_from_world(width / height)),
            voxel_size_m: Vec3::from_array(look.geometry.voxel_size_m)
                .extend(round_length_m(extent.truncate().max_element() / 5.0))
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
            size_px: [width, height, 0.0, 0.0],
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

/// Pipelines that draw voxel scenes into [`COLOR_FORMAT`] and [`DEPTH_FORMAT`].
#[derive(Debug)]
pub struct VoxelRenderer {
    layout: wgpu::BindGroupLayout,
    /// By [`Antialiasing`].
    pipelines: [Pipelines; 2],
}

#[derive(Debug)]
struct Pipelines {
    voxels: wgpu::RenderPipeline,
    sky: wgpu::RenderPipeline,
    floor: wgpu::RenderPipeline,
    hidden_lines: wgpu::RenderPipeline,
    lines: wgpu::RenderPipeline,
}

/// One grid on the device: its faces and how they are seen.
#[derive(Debug)]
pub struct VoxelScene {
    faces: wgpu::Buffer,
    mesh: Mesh,
    lines: wgpu::Buffer,
    line_count: u32,
    /// Which of the mesh's directions can be seen.
    facing: [bool; 6],
    sees_floor: bool,
    uniform: wgpu::Buffer,
    bind_group: wgpu::BindGroup,
}

impl VoxelRenderer {
    /// Builds the pipelines.
    ///
    /// wgpu reports errors to the device's error scopes, here and in every other method.
    pub fn new(device: &wgpu::Device) -> VoxelRenderer {
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
        let pipelines =
            [Antialiasing::Off, Antialiasing::Msaa4].map(|it| Pipelines::new(device, &module, &layout, it.samples()));
        VoxelRenderer { layout, pipelines }
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
        VoxelScene {
            faces: vertex_buffer::<Face>(device, START_FACES),
            mesh: Mesh::default(),
            lines: vertex_buffer::<Line>(device, START_LINES),
            line_count: 0,
            facing: [false; 6],
            sees_floor: false,
            uniform,
            bind_group,
        }
    }

    /// Draws voxels, sky, floor and lines of `scene` over the whole target of a pass whose depth is cleared to 1.
    pub(super) fn draw(&self, pass: &mut wgpu::RenderPass<'_>, scene: &VoxelScene, antialiasing: Antialiasing) {
        let pipelines = &self.pipelines[antialiasing as usize];
        pass.set_bind_group(0, &scene.bind_group, &[]);
        pass.set_pipeline(&pipelines.voxels);
        pass.set_vertex_buffer(0, scene.faces.slice(..));
        // Tops first: they hide most of the sides.
        for direction in (0..6).rev().filter(|direction| scene.facing[*direction]) {
            pass.draw(0..4, scene.mesh.directions[direction].clone());
        }
        // Only where no voxel is.
        pass.set_pipeline(&pipelines.sky);
        pass.draw(0..3, 0..1);
        if scene.sees_floor {
            pass.set_pipeline(&pipelines.floor);
            pass.draw(0..4, 0..1);
        }
        if scene.line_count > 0 {
            pass.set_vertex_buffer(0, scene.lines.slice(..));
            for pipeline in [&pipelines.hidden_lines, &pipelines.lines] {
                pass.set_pipeline(pipeline);
                pass.draw(0..4, 0..scene.line_count);
            }
        }
    }
}

impl Pipelines {
    fn new(
        device: &wgpu::Device,
        module: &wgpu::ShaderModule,
        layout: &wgpu::BindGroupLayout,
        samples: u32,
    ) -> Pipelines {
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("view"),
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        let face_attributes = wgpu::vertex_attr_array![0 => Uint32x2];
        let line_attributes =
            wgpu::vertex_attr_array![0 => Float32x4, 1 => Float32x4, 2 => Float32x4, 3 => Float32, 4 => Float32];
        let instances = |stride: usize, attributes| wgpu::VertexBufferLayout {
            array_stride: stride as u64,
            step_mode: wgpu::VertexStepMode::Instance,
            attributes,
        };
        let faces = [Some(instances(size_of::<Face>(), &face_attributes[..]))];
        let lines = [Some(instances(size_of::<Line>(), &line_attributes[..]))];
        let pipeline = |name: &str, vertex: &str, fragment: &str, depth_compare, buffers: &[_]| {
            let is_voxels = vertex == "voxel_vertex";
            device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
                label: Some(name),
                layout: Some(&layout),
                vertex: wgpu::VertexState {
                    module,
                    entry_point: Some(vertex),
                    compilation_options: Default::default(),
                    buffers,
                },
                primitive: wgpu::PrimitiveState {
                    topology: wgpu::PrimitiveTopology::TriangleStrip,
                    cull_mode: is_voxels.then_some(wgpu::Face::Back),
                    ..Default::default()
                },
                depth_stencil: Some(wgpu::DepthStencilState {
                    format: DEPTH_FORMAT,
                    depth_write_enabled: Some(is_voxels),
                    depth_compare: Some(depth_compare),
                    stencil: Default::default(),
                    bias: Default::default(),
                }),
                multisample: wgpu::MultisampleState { count: samples, ..Default::default() },
                fragment: Some(wgpu::FragmentState {
                    module,
                    entry_point: Some(fragment),
                    compilation_options: Default::default(),
                    targets: &[Some(wgpu::ColorTargetState {
                        format: COLOR_FORMAT,
                        blend: (!is_voxels).then_some(wgpu::BlendState::ALPHA_BLENDING),
                        write_mask: wgpu::ColorWrites::ALL,
                    })],
                }),
                multiview_mask: None,
                cache: None,
            })
        };
        use wgpu::CompareFunction::{Greater, Less, LessEqual};
        Pipelines {
            voxels: pipeline("view voxels", "voxel_vertex", "voxel_fragment", Less, &faces),
            sky: pipeline("view sky", "sky_vertex", "sky_fragment", LessEqual, &[]),
            floor: pipeline("view floor", "floor_vertex", "floor_fragment", Less, &[]),
            hidden_lines: pipeline("view hidden lines", "line_vertex", "hidden_line_fragment", Greater, &lines),
            lines: pipeline("view lines", "line_vertex", "line_fragment", LessEqual, &lines),
        }
    }
}

impl VoxelScene {
    /// Replaces what is drawn; the buffer grows when needed and is reused otherwise.
    pub fn set_mesh(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, mesh: Mesh) {
        upload(device, queue, &mut self.faces, &mesh.faces);
        self.mesh = mesh;
    }

    /// The rectangles that can face the camera, of those in the mesh.
    pub fn faces_drawn(&self) -> usize {
        (0..6).filter(|direction| self.facing[*direction]).map(|direction| self.mesh.directions[direction].len()).sum()
    }

    /// Sets how the scene is seen in a target of `[width, height]` pixels. Comes after [`VoxelScene::set_mesh`].
    pub fn set_look(&mut self, device: &wgpu::Device, queue: &wgpu::Queue, look: &Look<'_>, size_px: [u32; 2]) {
        let size_px = size_px.map(|side| side.max(1) as f32);
        queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&ViewUniform::new(look, size_px)));
        let lines = lines(look, size_px);
        upload(device, queue, &mut self.lines, &lines);
        self.line_count = lines.len() as u32;
        let eye = look.camera.eye_m() / Vec3::from_array(look.geometry.voxel_size_m);
        let forward = look.camera.forward_right_up()[0];
        self.facing = std::array::from_fn(|direction| {
            let (axis, is_positive) = (direction / 2, direction % 2 == 1);
            let [low, high] = self.mesh.planes[direction];
            match look.camera.projection {
                _ if self.mesh.directions[direction].is_empty() => false,
                Projection::Perspective if is_positive => eye[axis] > low as f32,
                Projection::Perspective => eye[axis] < high as f32,
                Projection::Orthographic if is_positive => forward[axis] < 0.0,
                Projection::Orthographic => forward[axis] > 0.0,
            }
        });
        self.sees_floor = match look.camera.projection {
            Projection::Perspective => eye.z > 0.0,
            Projection::Orthographic => forward.z < 0.0,
        };
    }
}

fn vertex_buffer<T>(device: &wgpu::Device, capacity: u64) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("view vertices"),
        size: capacity * size_of::<T>() as u64,
        usage: wgpu::BufferUsages::VERTEX | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

fn upload<T: bytemuck::Pod>(device: &wgpu::Device, queue: &wgpu::Queue, buffer: &mut wgpu::Buffer, items: &[T]) {
    if size_of_val(items) as u64 > buffer.size() {
        *buffer = vertex_buffer::<T>(device, (items.len() as u64).next_power_of_two());
    }
    queue.write_buffer(buffer, 0, bytemuck::cast_slice(items));
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
