//! Latents as figures: means, sigma, KL divergence, and which cell lies where.

use super::shown::Shown;
use crate::models::LatentKind;
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
}

impl Quantity {
    /// Those that a latent of this kind has.
    pub fn of_kind(kind: LatentKind) -> &'static [Quantity] {
        match kind {
            LatentKind::Gaussian => &[Quantity::Mean, Quantity::Sigma, Quantity::Kl],
            LatentKind::Plain => &[Quantity::Mean],
        }
    }

    /// Its sign in formulas.
    pub fn symbol(self) -> &'static str {
        match self {
            Quantity::Mean => "μ",
            Quantity::Sigma => "σ",
            Quantity::Kl => "KL",
        }
    }

    /// Its value for one element.
    pub fn of(self, mu: f32, logvar: f32) -> f32 {
        match self {
            Quantity::Mean => mu,
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
    /// The other axes, over which it is averaged, or the largest is taken with [`Channels::Max`].
    pub over: String,
    /// `[A1, A2]`.
    pub values: Vec<f32>,
}

/// `quantity` of every cell of a latent, over x and y if it has both, else over its first two axes; `None` if it has fewer, or
/// is none of this clip.
pub fn flat(latent: &Latent, quantity: Quantity, channels: Channels, shown: &Shown) -> Option<Flat> {
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
    let axes =
        [Axis::of(*names.get(first)?, extents[first], shown), Axis::of(*names.get(second)?, extents[second], shown)];
    let mut values = vec![0.0_f32; extents[first] * extents[second]];
    let shared = (cells.len() / values.len()) as f32;
    for (i, value) in cells.into_iter().enumerate() {
        let at = |axis: usize| i / extents[axis + 1..].iter().product::<usize>() % extents[axis];
        let cell = &mut values[at(first) * extents[second] + at(second)];
        match channels {
            Channels::Max => *cell = cell.max(value),
            Channels::Mean | Channels::One(_) => *cell += value / shared,
        }
    }
    let over = names.iter().enumerate().filter(|(i, _)| ![first, second].contains(i)).map(|(_, name)| name).collect();
    Some(Flat { axes, over, values })
}

/// `quantity` of every cell, the last axis fastest.
fn cells(latent: &Latent, width: usize, quantity: Quantity, channels: Channels) -> Vec<f32> {
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
    /// Length of a cell, metres or frames.
    pub step: f64,
}

impl Axis {
    fn of(name: char, len: usize, shown: &Shown) -> Axis {
        let (low, extent) = match space(name) {
            Some(a) => (shown.grid.min_bound_m[a], shown.grid.size[a] as f64 * shown.grid.voxel_size_m[a]),
            None => (1.0, shown.frames as f64),
        };
        Axis { name, len, low, step: extent / len as f64 }
    }

    /// Of time: the frame, counted from 0, with which cell `i` begins.
    pub fn frame(&self, i: usize) -> usize {
        (i as f64 * self.step) as usize
    }

    /// Where cell `i` lies, as `x -3.2 m`, `frame 4` or `frames 3 to 4`.
    pub fn place(&self, i: usize) -> String {
        match self.name {
            't' => match [self.frame(i) + 1, self.frame(i + 1)] {
                [first, last] if first < last => format!("frames {first} to {last}"),
                [first, _] => format!("frame {first}"),
            },
            name => format!("{name} {:.1} m", self.low + (i as f64 + 0.5) * self.step),
        }
    }

    /// The number at its beginning (false) or end (true).
    pub fn end(&self, high: bool) -> String {
        let cells = if high { self.len } else { 0 };
        match self.name {
            't' => format!("{}", if high { self.frame(self.len) } else { 1 }),
            _ => format!("{:.1}", self.low + cells as f64 * self.step),
        }
    }

    /// The cell in which `voxel` of frame `t` lies.
    pub fn cell(&self, shown: &Shown, voxel: [usize; 3], t: usize) -> Option<usize> {
        let (at, len) = match space(self.name) {
            Some(axis) => (voxel[axis], shown.grid.size[axis]),
            None => (t, shown.frames),
        };
        (at < len).then(|| at * self.len / len)
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
        let Flat { axes, over, values } = flat(&volume, Quantity::Mean, Channels::One(0), &shown).unwrap();
        assert_eq!((axes.map(|axis| (axis.name, axis.len)), over.as_str()), ([('x', 1), ('y', 2)], "tz"));
        assert_eq!(values, [2.5, 4.5]);
        assert_eq!(flat(&volume, Quantity::Mean, Channels::Max, &shown).unwrap().values, [5.0, 7.0]);
        let line = gaussian("t", vec![1, 2, 1], vec![0.0; 2]);
        assert_eq!(flat(&line, Quantity::Mean, Channels::Mean, &shown), None);
        let wrong = Latent { shape: vec![1, 3, 2, 1], ..line };
        assert_eq!(flat(&wrong, Quantity::Mean, Channels::Mean, &shown), None);
    }

    #[test]
    fn cells_lie_where_their_voxels_are() {
        let state = sample::state();
        let shown = state.shown.as_ref().unwrap();
        let latents = &shown.model.as_ref().unwrap().latents;
        let axes = |i: usize| flat(&latents[i], Quantity::Mean, Channels::Mean, shown).unwrap().axes;
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
        let halved = Axis::of('t', shown.frames / 2, shown);
        assert_eq!((halved.place(1), halved.end(true)), ("frames 3 to 4".into(), shown.frames.to_string()));
        assert_eq!((halved.cell(shown, voxel, 3), halved.frame(1)), (Some(1), 2));
    }
}
