//! Latents as figures: means, sigma, KL divergence, codes, and which cell lies where.

use glam::DVec3;

use super::shown::Shown;
use crate::data::{Pose, pose_of_rows};
use crate::models::{LatentKind, MOTION};
use crate::train::inference::Latent;

/// What of a latent's distribution is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quantity {
    /// What is decoded: the mean, mu, where the latent is a distribution.
    #[default]
    Mean,
    /// The standard deviation, sigma = exp(logvar / 2).
    Sigma,
    /// The divergence from the standard normal distribution, (mu^2 + sigma^2 - 1 - logvar) / 2, nats.
    Kl,
    /// The number of the cell's code, which says nothing about how alike codes are.
    Code,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 4] = [Quantity::Mean, Quantity::Sigma, Quantity::Kl, Quantity::Code];

    /// Those that a latent of this kind has.
    pub fn of_kind(kind: LatentKind) -> &'static [Quantity] {
        match kind {
            LatentKind::Gaussian => &[Quantity::Mean, Quantity::Sigma, Quantity::Kl],
            LatentKind::Plain => &[Quantity::Mean],
            LatentKind::Motion => &[],
            LatentKind::Code { .. } => &[Quantity::Code],
        }
    }

    /// Its sign in formulas.
    pub fn symbol(self) -> &'static str {
        match self {
            Quantity::Mean => "μ",
            Quantity::Sigma => "σ",
            Quantity::Kl => "KL",
            Quantity::Code => "code",
        }
    }

    /// Its value for one element.
    pub fn of(self, mu: f32, logvar: f32) -> f32 {
        match self {
            Quantity::Mean | Quantity::Code => mu,
            Quantity::Sigma => (0.5 * logvar).exp(),
            Quantity::Kl => 0.5 * (mu * mu + logvar.exp() - 1.0 - logvar),
        }
    }
}

/// How the channels of a cell become one value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Channels {
    /// The mean of the absolute values.
    #[default]
    Mean,
    /// The largest absolute value.
    Max,
    /// One channel, counted from 0, with its sign.
    One(usize),
}

/// A latent as a picture over two of its axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Flat {
    /// The axes of `values`, in order.
    pub axes: [Axis; 2],
    /// What became of the other axes, in a phrase such as `over all tz`; empty if there are none.
    pub over: String,
    /// `[A1, A2]`.
    pub values: Vec<f32>,
}

/// `quantity` of every cell of a latent, over x and y if it has both, else over its first two axes; `None` if it has fewer, or
/// is none of this clip. Over the others it is averaged, or the largest is taken with [`Channels::Max`]; of codes there are those
/// of frame `t`.
pub fn flat(latent: &Latent, quantity: Quantity, channels: Channels, shown: &Shown, t: usize) -> Option<Flat> {
    let [1, extents @ .., width] = latent.shape.as_slice() else { return None };
    let names: Vec<char> = latent.spec.axes.chars().collect();
    let cells = cells(latent, *width, quantity, channels);
    if names.len() != extents.len() || cells.is_empty() || cells.len() != extents.iter().product::<usize>() {
        return None;
    }
    let place = |name: char| names.iter().position(|other| *other == name);
    let [first, second] = match (place('x'), place('y')) {
        (Some(x), Some(y)) => [x, y],
        _ => [0, 1],
    };
    let is_canonical = !latent.spec.is_temporal() && motion(shown).is_some();
    let axis = |(&name, &len): (&char, &usize)| Axis::of(name, len, shown, is_canonical);
    let axes: Vec<Axis> = names.iter().zip(extents).map(axis).collect();
    let others: Vec<usize> = (0..axes.len()).filter(|axis| ![first, second].contains(axis)).collect();
    let in_view = |axis: usize| axes[axis].cell(shown, [0; 3], t).unwrap_or_default();
    let mut values = vec![0.0_f32; extents.get(first)? * extents.get(second)?];
    let shared = (cells.len() / values.len()) as f32;
    for (i, value) in cells.into_iter().enumerate() {
        let at = |axis: usize| i / extents[axis + 1..].iter().product::<usize>() % extents[axis];
        let cell = &mut values[at(first) * extents[second] + at(second)];
        match (quantity, channels) {
            (Quantity::Code, _) if others.iter().any(|&axis| at(axis) != in_view(axis)) => {}
            (Quantity::Code, _) => *cell = value,
            (_, Channels::Max) => *cell = cell.max(value),
            (_, Channels::Mean | Channels::One(_)) => *cell += value / shared,
        }
    }
    let over = match others.as_slice() {
        [] => String::new(),
        _ if quantity == Quantity::Code => {
            others.iter().map(|&axis| axes[axis].place(in_view(axis))).collect::<Vec<_>>().join(", ")
        }
        _ => format!("over all {}", others.iter().map(|&axis| names[axis]).collect::<String>()),
    };
    Some(Flat { axes: [axes[first], axes[second]], over, values })
}

/// `quantity` of every cell, the last axis fastest.
fn cells(latent: &Latent, width: usize, quantity: Quantity, channels: Channels) -> Vec<f32> {
    if quantity == Quantity::Code {
        return latent.mu.clone();
    }
    let value = |i: usize| quantity.of(latent.mu[i], latent.logvar.get(i).copied().unwrap_or_default());
    let rows = (0..latent.mu.len()).step_by(width.max(1));
    rows.map(|start| {
        let mut values = (start..(start + width).min(latent.mu.len())).map(value);
        match channels {
            Channels::Mean => values.map(f32::abs).sum::<f32>() / width as f32,
            Channels::Max => values.map(f32::abs).fold(0.0, f32::max),
            Channels::One(channel) => values.nth(channel).unwrap_or(f32::NAN),
        }
    })
    .collect()
}

/// The KL divergence of a whole latent, nats, if it is a distribution.
pub fn total_kl(latent: &Latent) -> Option<f64> {
    let elements = latent.mu.iter().zip(&latent.logvar);
    (latent.spec.kind == LatentKind::Gaussian)
        .then(|| elements.map(|(&mu, &logvar)| f64::from(Quantity::Kl.of(mu, logvar))).sum())
}

/// An axis of a latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    /// `t`, `x`, `y` or `z`.
    pub name: char,
    /// Cells along it.
    pub len: usize,
    /// Where its first cell begins: metres from the sensor, or frames from 1.
    pub low: f64,
    /// Where its last cell ends, or the last frame.
    pub high: f64,
    /// Length of a cell, metres or frames.
    pub step: f64,
    /// Whether it is one of the grid in which aligned frames meet.
    is_canonical: bool,
}

/// How the frames of the clip in view lie, where the model aligns them.
fn motion(shown: &Shown) -> Option<&Latent> {
    shown.model.as_ref()?.latents.iter().find(|latent| latent.spec.kind == LatentKind::Motion)
}

/// What takes the cells of each frame into the grid in which aligned frames meet; the centres of cells are whole numbers.
fn into_canonical(shown: &Shown) -> Option<Vec<Pose>> {
    let map = |maps: &[f32]| pose_of_rows(&std::array::from_fn(|i| f64::from(maps[MOTION / 2 + i])));
    Some(motion(shown)?.mu.chunks_exact(MOTION).map(map).collect())
}

/// How far the frames of the clip in view lie from its middle one, where the model aligns them: metres and degrees, at most.
pub fn farthest_motion(shown: &Shown) -> Option<(f64, f64)> {
    let maps = into_canonical(shown)?;
    let cell = 2.0 * DVec3::from(shown.grid.voxel_size_m);
    let sensor = -DVec3::from(shown.grid.min_bound_m) / cell - 0.5;
    let middle = maps.get(shown.frames / 2)?.transform_point3(sensor);
    let of_frame = |map: &Pose| {
        let axes = map.matrix3;
        let cosine = (axes.x_axis.x + axes.y_axis.y + axes.z_axis.z - 1.0) / 2.0;
        (((map.transform_point3(sensor) - middle) * cell).length(), cosine.clamp(-1.0, 1.0).acos().to_degrees())
    };
    maps.iter().map(of_frame).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
}

impl Axis {
    fn of(name: char, len: usize, shown: &Shown, is_canonical: bool) -> Axis {
        match space(name) {
            Some(a) => {
                let (low, extent) = (shown.grid.min_bound_m[a], shown.grid.size[a] as f64 * shown.grid.voxel_size_m[a]);
                // A canonical grid may begin before and end after those of the frames, and has their cells of two voxels.
                let step = if is_canonical { 2.0 * shown.grid.voxel_size_m[a] } else { extent / len as f64 };
                let low = low - (len as f64 * step - extent) / 2.0;
                Axis { name, len, low, high: low + len as f64 * step, step, is_canonical }
            }
            None => {
                // Models halve time as often as they like; what does not come out even is filled up at the end.
                let step =
                    (0..usize::BITS).map(|halvings| 1 << halvings).find(|&step| shown.frames.div_ceil(step) <= len);
                let step = step.unwrap_or(1) as f64;
                Axis { name, len, low: 1.0, high: shown.frames as f64, step, is_canonical: false }
            }
        }
    }

    /// The first frame of cell `i`, counted from 0.
    pub fn first_frame(&self, i: usize) -> usize {
        i * self.step as usize
    }

    /// Where cell `i` lies, as `x -3.2 m`, `frame 4` or `frames 1 to 8`.
    pub fn place(&self, i: usize) -> String {
        if self.name != 't' {
            return format!("{} {:.1} m", self.name, self.low + (i as f64 + 0.5) * self.step);
        }
        let (first, last) = (self.first_frame(i) + 1, self.first_frame(i + 1).min(self.high as usize));
        if first == last { format!("frame {first}") } else { format!("frames {first} to {last}") }
    }

    /// The number at its beginning (false) or end (true).
    pub fn end(&self, high: bool) -> String {
        let end = if high { self.high } else { self.low };
        if self.name == 't' { format!("{end}") } else { format!("{end:.1}") }
    }

    /// The cell in which `voxel` of frame `t` lies.
    pub fn cell(&self, shown: &Shown, voxel: [usize; 3], t: usize) -> Option<usize> {
        match space(self.name) {
            Some(axis) if self.is_canonical => {
                let cell = (DVec3::from(voxel.map(|at| at as f64)) - 0.5) / 2.0;
                let at = into_canonical(shown)?.get(t)?.transform_point3(cell)[axis].round();
                (0.0..self.len as f64).contains(&at).then_some(at as usize)
            }
            Some(axis) => {
                let (at, len) = (voxel[axis], shown.grid.size[axis]);
                (at < len).then(|| at * self.len / len)
            }
            None => (t < shown.frames).then_some(t / self.step as usize),
        }
    }
}

fn space(name: char) -> Option<usize> {
    "xyz".chars().position(|axis| axis == name)
}

#[cfg(test)]
mod tests {
    use super::super::panels::sample;
    use super::*;
    use crate::models::LatentSpec;

    #[test]
    fn the_standard_normal_has_no_divergence() {
        assert_eq!(Quantity::Kl.of(0.0, 0.0), 0.0);
        assert_eq!(Quantity::Sigma.of(3.0, 0.0), 1.0);
        assert!((Quantity::Kl.of(2.0, 0.0) - 2.0).abs() < 1e-6);
        // sigma = 1/2: (1/4 - 1 + 2 ln 2) / 2.
        let logvar = -2.0 * std::f32::consts::LN_2;
        assert!((Quantity::Sigma.of(0.0, logvar) - 0.5).abs() < 1e-6);
        assert!((Quantity::Kl.of(0.0, logvar) - 0.5 * (0.25 - 1.0 - logvar)).abs() < 1e-6);
        assert!(Quantity::Kl.of(0.0, 1.0) > 0.0 && Quantity::Kl.of(0.0, -1.0) > 0.0);
    }

    fn gaussian(axes: &'static str, shape: Vec<usize>, mu: Vec<f32>) -> Latent {
        let logvar = vec![0.0; mu.len()];
        Latent { spec: LatentSpec { name: axes, axes, kind: LatentKind::Gaussian }, shape, mu, logvar }
    }

    #[test]
    fn channels_become_one_value() {
        let latent = gaussian("xy", vec![1, 1, 2, 2], vec![1.0, -3.0, 0.5, 0.0]);
        assert_eq!(cells(&latent, 2, Quantity::Mean, Channels::Mean), [2.0, 0.25]);
        assert_eq!(cells(&latent, 2, Quantity::Mean, Channels::Max), [3.0, 0.5]);
        assert_eq!(cells(&latent, 2, Quantity::Mean, Channels::One(1)), [-3.0, 0.0]);
        assert!(cells(&latent, 2, Quantity::Mean, Channels::One(2))[0].is_nan());
        assert_eq!(cells(&latent, 2, Quantity::Sigma, Channels::Mean), [1.0, 1.0]);
        assert!((total_kl(&latent).unwrap() - 0.5 * (1.0 + 9.0 + 0.25)).abs() < 1e-6);
        let plain = Latent { spec: LatentSpec { kind: LatentKind::Plain, ..latent.spec }, logvar: vec![], ..latent };
        assert_eq!(total_kl(&plain), None);
        assert_eq!(cells(&plain, 2, Quantity::Mean, Channels::Max), [3.0, 0.5]);
    }

    #[test]
    fn a_volume_is_looked_at_from_above() {
        let shown = sample::state().shown.unwrap();
        let volume = gaussian("txyz", vec![1, 2, 1, 2, 2, 1], (0..8).map(|i| i as f32).collect());
        let Flat { axes, over, values } = flat(&volume, Quantity::Mean, Channels::One(0), &shown, 0).unwrap();
        assert_eq!((axes.map(|axis| (axis.name, axis.len)), over.as_str()), ([('x', 1), ('y', 2)], "over all tz"));
        assert_eq!(values, [2.5, 4.5]);
        assert_eq!(flat(&volume, Quantity::Mean, Channels::Max, &shown, 0).unwrap().values, [5.0, 7.0]);
        let line = gaussian("t", vec![1, 2, 1], vec![0.0; 2]);
        assert_eq!(flat(&line, Quantity::Mean, Channels::Mean, &shown, 0), None);
        let wrong = Latent { shape: vec![1, 3, 2, 1], ..line };
        assert_eq!(flat(&wrong, Quantity::Mean, Channels::Mean, &shown, 0), None);
    }

    #[test]
    fn of_codes_there_are_those_of_the_frame_in_view() {
        let shown = sample::state().shown.unwrap();
        assert_eq!(shown.frames, 6);
        let spec = LatentSpec { name: "codes", axes: "txy", kind: LatentKind::Code { codes: 64, channels: 8 } };
        let mu = vec![7.0, 63.0, 7.0, 0.0];
        let codes = Latent { spec, shape: vec![1, 2, 1, 2, 1], mu, logvar: vec![] };
        assert_eq!((Quantity::of_kind(spec.kind), total_kl(&codes)), (&[Quantity::Code][..], None));
        let at = |t| flat(&codes, Quantity::Code, Channels::Mean, &shown, t).unwrap();
        assert_eq!((at(0).values, at(0).over.as_str()), (vec![7.0, 63.0], "frames 1 to 4"));
        assert_eq!(at(3).values, [7.0, 63.0]);
        assert_eq!((at(4).values, at(4).over.as_str()), (vec![7.0, 0.0], "frames 5 to 6"));
    }

    #[test]
    fn aligned_frames_lie_where_their_motion_says() {
        let mut shown = sample::state().shown.unwrap();
        assert_eq!(farthest_motion(&shown), None);
        // With a margin of two cells every frame is turned by a right angle about cell (3, 3), but the middle one is not.
        let still = [1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0];
        let turned = [0.0, -1.0, 0.0, 8.0, 1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0];
        let frame = |t: usize| [[0.0; 12], if t == 3 { still } else { turned }].concat();
        let spec = LatentSpec { name: "motion", axes: "t", kind: LatentKind::Motion };
        let mu: Vec<f32> = (0..6).flat_map(frame).collect();
        let model = shown.model.as_mut().unwrap();
        model.latents.push(Latent { spec, shape: vec![1, 6, MOTION], mu, logvar: vec![] });
        let cells = [0, 1].map(|a| shown.grid.size[a] / 2);
        let plane = gaussian("xy", vec![1, cells[0] + 4, cells[1] + 4, 1], vec![0.0; (cells[0] + 4) * (cells[1] + 4)]);
        let [x, y] = flat(&plane, Quantity::Mean, Channels::Mean, &shown, 0).unwrap().axes;
        let size = shown.grid.voxel_size_m;
        assert!(
            (x.step - 2.0 * size[0]).abs() < 1e-9 && (x.low - (shown.grid.min_bound_m[0] - 4.0 * size[0])).abs() < 1e-9
        );
        // Voxel (9, 3) lies in cell (4, 1).
        let at = |t: usize| [x, y].map(|axis| axis.cell(&shown, [9, 3, 0], t));
        assert_eq!((at(3), at(0)), ([Some(6), Some(3)], [Some(7), Some(6)]));
        let (metres, degrees) = farthest_motion(&shown).unwrap();
        let sensor = [0, 1].map(|a| -shown.grid.min_bound_m[a] / (2.0 * size[a]) - 0.5);
        let moved = [8.0 - sensor[1] - sensor[0] - 2.0, 2.0 + sensor[0] - sensor[1] - 2.0];
        let expected = (moved[0] * 2.0 * size[0]).hypot(moved[1] * 2.0 * size[1]);
        assert!((metres - expected).abs() < 1e-6 && (degrees - 90.0).abs() < 1e-6, "{metres} {expected} {degrees}");
    }

    #[test]
    fn cells_lie_where_their_voxels_are() {
        let state = sample::state();
        let shown = state.shown.as_ref().unwrap();
        let latents = &shown.model.as_ref().unwrap().latents;
        let axes = |i: usize| flat(&latents[i], Quantity::Mean, Channels::Mean, shown, 0).unwrap().axes;
        let [x, y] = axes(0);
        assert_eq!((x.name, y.name, x.len), ('x', 'y', shown.grid.size[0] / 2));
        let voxel = [5, 8, 3];
        assert_eq!((x.cell(shown, voxel, 0), y.cell(shown, voxel, 0)), (Some(2), Some(4)));
        assert_eq!(x.cell(shown, [shown.grid.size[0], 0, 0], 0), None);
        let middle = (shown.position_m([4, 0, 0])[0] + shown.position_m([5, 0, 0])[0]) / 2.0;
        assert_eq!(x.place(2), format!("x {middle:.1} m"));
        let [t, z] = axes(5);
        assert_eq!((t.name, z.name, t.len), ('t', 'z', shown.frames));
        assert_eq!((t.place(3), t.end(false), t.end(true)), ("frame 4".into(), "1".into(), shown.frames.to_string()));
        assert_eq!(t.cell(shown, voxel, 3), Some(3));
    }
}
