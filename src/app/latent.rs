//! The distributions of the latent planes as figures: sigma, KL divergence, and which cell lies where.

use super::shown::Shown;
use crate::train::inference::LatentPlane;

/// What of a latent's distribution is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quantity {
    /// The mean, mu.
    #[default]
    Mean,
    /// The standard deviation, sigma = exp(logvar / 2).
    Sigma,
    /// The divergence from the standard normal distribution, (mu^2 + sigma^2 - 1 - logvar) / 2, nats.
    Kl,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 3] = [Quantity::Mean, Quantity::Sigma, Quantity::Kl];

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

/// `quantity` of every cell of a plane, `[A1, A2]`.
pub fn cells(plane: &LatentPlane, quantity: Quantity, channels: Channels) -> Vec<f32> {
    let width = plane.shape.last().copied().unwrap_or(1).max(1);
    let rows = plane.mu.chunks(width).zip(plane.logvar.chunks(width));
    rows.map(|(mu, logvar)| {
        let mut values = mu.iter().zip(logvar).map(|(&mu, &logvar)| quantity.of(mu, logvar));
        match channels {
            Channels::Mean => values.map(f32::abs).sum::<f32>() / width as f32,
            Channels::Max => values.map(f32::abs).fold(0.0, f32::max),
            Channels::One(channel) => values.nth(channel).unwrap_or(f32::NAN),
        }
    })
    .collect()
}

/// The KL divergence of a whole plane, nats.
pub fn total_kl(plane: &LatentPlane) -> f64 {
    plane.mu.iter().zip(&plane.logvar).map(|(&mu, &logvar)| f64::from(Quantity::Kl.of(mu, logvar))).sum()
}

/// An axis of a plane.
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
    /// Where cell `i` lies, as `x -3.2 m` or `frame 4`.
    pub fn place(&self, i: usize) -> String {
        match self.name {
            't' => format!("frame {}", i + 1),
            name => format!("{name} {:.1} m", self.low + (i as f64 + 0.5) * self.step),
        }
    }

    /// The number at its beginning (false) or end (true).
    pub fn end(&self, high: bool) -> String {
        let cells = if high { self.len } else { 0 };
        match self.name {
            't' => format!("{}", if high { self.len } else { 1 }),
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

/// The axes of a plane in the order of its shape `[1, A1, A2, C]`; `None` if it is none of this clip.
pub fn axes(plane: &LatentPlane, shown: &Shown) -> Option<[Axis; 2]> {
    let [_, first, second, _] = *plane.shape.as_slice() else { return None };
    let mut names = plane.name.chars();
    let mut axis = |len: usize| {
        let name = names.next()?;
        let (low, extent) = match space(name) {
            Some(a) => (shown.grid.min_bound_m[a], shown.grid.size[a] as f64 * shown.grid.voxel_size_m[a]),
            None => (1.0, shown.frames as f64),
        };
        (len > 0).then(|| Axis { name, len, low, step: extent / len as f64 })
    };
    Some([axis(first)?, axis(second)?])
}

#[cfg(test)]
mod tests {
    use super::super::panels::sample;
    use super::*;

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

    #[test]
    fn channels_become_one_value() {
        let plane =
            LatentPlane { name: "xy", shape: vec![1, 1, 2, 2], mu: vec![1.0, -3.0, 0.5, 0.0], logvar: vec![0.0; 4] };
        assert_eq!(cells(&plane, Quantity::Mean, Channels::Mean), [2.0, 0.25]);
        assert_eq!(cells(&plane, Quantity::Mean, Channels::Max), [3.0, 0.5]);
        assert_eq!(cells(&plane, Quantity::Mean, Channels::One(1)), [-3.0, 0.0]);
        assert!(cells(&plane, Quantity::Mean, Channels::One(2))[0].is_nan());
        assert_eq!(cells(&plane, Quantity::Sigma, Channels::Mean), [1.0, 1.0]);
        assert!((total_kl(&plane) - 0.5 * (1.0 + 9.0 + 0.25)).abs() < 1e-6);
    }

    #[test]
    fn cells_lie_where_their_voxels_are() {
        let state = sample::state();
        let shown = state.shown.as_ref().unwrap();
        let planes = &shown.model.as_ref().unwrap().planes;
        let [x, y] = axes(&planes[0], shown).unwrap();
        assert_eq!((x.name, y.name, x.len), ('x', 'y', shown.grid.size[0] / 2));
        let voxel = [5, 8, 3];
        assert_eq!((x.cell(shown, voxel, 0), y.cell(shown, voxel, 0)), (Some(2), Some(4)));
        assert_eq!(x.cell(shown, [shown.grid.size[0], 0, 0], 0), None);
        let middle = (shown.position_m([4, 0, 0])[0] + shown.position_m([5, 0, 0])[0]) / 2.0;
        assert_eq!(x.place(2), format!("x {middle:.1} m"));
        let [t, z] = axes(&planes[5], shown).unwrap();
        assert_eq!((t.name, z.name, t.len), ('t', 'z', shown.frames));
        assert_eq!((t.place(3), t.end(false), t.end(true)), ("frame 4".into(), "1".into(), shown.frames.to_string()));
        assert_eq!(t.cell(shown, voxel, 3), Some(3));
    }
}
