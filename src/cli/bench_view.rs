//! `sep4d bench --view`: how long the compare view takes to draw on this adapter.

use std::time::Instant;

use sep4d::data::{Frame, synth};
use sep4d::gpu::Context;
use sep4d::view::{
    Antialiasing, Camera, Geometry, Look, Mesh, Offscreen, Ornaments, Palette, Projection, Theme, Visible,
    VoxelRenderer, VoxelScene,
};
use sep4d::{Error, Result};

use super::output::{put, say};
use super::table::table;
use sep4d::figures::thousands;

/// What the window shows around its two views, points.
const AROUND: [u32; 2] = [40, 200];
/// Frames of the clip that is scrubbed through.
const CLIP_FRAMES: usize = 10;
/// Towns among which the fullest is drawn.
const TOWNS: u64 = 24;
/// Frames drawn before time is taken, while the driver compiles.
const WARM_UP: usize = 3;

/// Draws two linked views of a generated town in a window of `size_px`, `frames` times for each row that it prints.
///
/// # Errors
/// [`Error::Usage`] for a grid or a window that cannot be, [`Error::Device`] if the adapter fails.
pub fn run(context: &Context, size: [usize; 3], size_px: [u32; 2], frames: usize) -> Result<()> {
    let view_px = [size_px[0].saturating_sub(AROUND[0]) / 2, size_px[1].saturating_sub(AROUND[1])];
    let longest = context.device.limits().max_texture_dimension_2d;
    if frames == 0 || view_px.iter().any(|side| *side == 0 || *side > longest) {
        return Err(Error::Usage(format!(
            "cannot time {frames} frames of {} x {} pixels; try --frames 200 --size 1280x800",
            size_px[0], size_px[1]
        )));
    }
    let grid = synth::grid(size, [0.4, 0.4, 0.375])?;
    let geometry = Geometry {
        handedness: synth::CLASSES.handedness,
        ..Geometry::new(size, grid.voxel_size_m.map(|edge| edge as f32))
    };
    geometry.check(grid.voxels())?;
    // Views must keep up with the fullest streets.
    let fullest = (0..TOWNS).max_by_key(|seed| occupied(&synth::clip(&grid, *seed, 1).frames[0])).unwrap_or(0);
    let clip = synth::clip(&grid, fullest, CLIP_FRAMES);
    let least = clip.frames.iter().map(occupied).min().unwrap_or(0);
    say!("two views of {} x {} pixels on {}", view_px[0], view_px[1], context.adapter.name)?;
    say!(
        "{} occupied voxels each while the camera moves, at least {} while time scrubs",
        thousands(occupied(&clip.frames[0]) as u64),
        thousands(least as u64)
    )?;

    let renderer = VoxelRenderer::new(&context.device);
    let mut bench = Bench {
        context,
        views: std::array::from_fn(|_| (renderer.scene(&context.device), Offscreen::new(&context.device, view_px))),
        renderer,
        geometry,
        palette: Palette::from_colors(synth::CLASSES.colors.iter().copied()),
        meshing_ms: Vec::new(),
    };
    let (off, msaa) = (Antialiasing::Off, Antialiasing::Msaa4);
    let rows = [("camera moves", off, false), ("camera moves, 4 samples", msaa, false), ("time scrubs", off, true)];
    let mut cells = Vec::new();
    for (name, antialiasing, scrubs) in rows {
        let mut times_ms = Vec::new();
        for frame in 0..WARM_UP + frames {
            let labels = &clip.frames[if scrubs { frame % CLIP_FRAMES } else { 0 }].labels;
            let start = Instant::now();
            bench.frame(labels, scrubs || frame == 0, frame as f32 / frames as f32, antialiasing)?;
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let [median, p95] = quantiles(&mut times_ms[WARM_UP..]);
        let faces: usize = bench.views.iter().map(|(scene, _)| scene.faces_drawn()).sum();
        let rate = format!("{:.1}", 1e3 / median);
        cells.push(vec![name.into(), format!("{median:.2}"), format!("{p95:.2}"), rate, thousands(faces as u64)]);
    }
    put!("{}", table(&["", "ms", "p95", "frames/s", "rectangles"], &cells))?;
    let [median, p95] = quantiles(&mut bench.meshing_ms);
    say!("meshing one grid takes {median:.2} ms, p95 {p95:.2}")
}

fn occupied(frame: &Frame) -> usize {
    frame.labels.iter().filter(|label| **label != 0).count()
}

struct Bench<'a> {
    context: &'a Context,
    renderer: VoxelRenderer,
    views: [(VoxelScene, Offscreen); 2],
    geometry: Geometry,
    palette: Palette,
    meshing_ms: Vec<f64>,
}

impl Bench<'_> {
    /// One frame of the window without egui's painting, `turn` of the way around the town.
    fn frame(&mut self, labels: &[u8], is_new: bool, turn: f32, antialiasing: Antialiasing) -> Result<()> {
        let Context { device, queue, .. } = self.context;
        let extent_m = self.geometry.extent_m();
        let ornaments =
            Ornaments { selected: Some(self.geometry.size.map(|n| n / 2)), axes: true, ..Default::default() };
        let mut encoder = device.create_command_encoder(&Default::default());
        for (scene, target) in &mut self.views {
            if is_new {
                let start = Instant::now();
                let mesh = Mesh::new(labels, &self.geometry, &Visible::all())?;
                self.meshing_ms.push(start.elapsed().as_secs_f64() * 1e3);
                scene.set_mesh(device, queue, mesh);
            }
            let [width, height] = target.size_px();
            let mut camera = Camera::three_quarter(extent_m, width as f32 / height as f32, Projection::Perspective);
            camera.orbit(turn * std::f32::consts::TAU, 0.0);
            let look = Look {
                camera: &camera,
                geometry: self.geometry,
                palette: &self.palette,
                theme: Theme::Dark,
                ornaments: &ornaments,
                pixels_per_point: 1.0,
            };
            scene.set_look(device, queue, &look, target.size_px());
            target.draw(device, &mut encoder, &self.renderer, scene, antialiasing);
        }
        queue.submit([encoder.finish()]);
        device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|why| Error::Device(format!("the views could not be drawn: {why}")))?;
        self.context.check()
    }
}

/// Median and 95th percentile of at least one value.
fn quantiles(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [0.5, 0.95].map(|share| values[((values.len() - 1) as f64 * share).round() as usize])
}
