//! The solids that towns are built of, and the raw CarlaSC ids they carry.

use super::roads::{Vec2, along};

/// Raw ids of CarlaSC.
pub(super) mod raw {
    pub const BUILDING: u8 = 1;
    pub const FENCE: u8 = 2;
    pub const PEDESTRIAN: u8 = 4;
    pub const POLE: u8 = 5;
    pub const ROAD_LINE: u8 = 6;
    pub const ROAD: u8 = 7;
    pub const SIDEWALK: u8 = 8;
    pub const VEGETATION: u8 = 9;
    pub const VEHICLE: u8 = 10;
    pub const WALL: u8 = 11;
    pub const SIGN: u8 = 12;
    pub const GROUND: u8 = 14;
    pub const GUARD_RAIL: u8 = 17;
    pub const TRAFFIC_LIGHT: u8 = 18;
    pub const STATIC: u8 = 19;
    pub const DYNAMIC: u8 = 20;
    pub const TERRAIN: u8 = 22;
}

/// A box or an ellipsoid standing on or hanging above the ground.
#[derive(Debug, Clone, Copy)]
pub(super) struct Solid {
    /// Its middle.
    pub at: Vec2,
    /// The direction of its length, a unit vector.
    pub heading: Vec2,
    /// Half its length and half its width, metres.
    pub half: [f64; 2],
    /// Its lower and upper end above the ground, metres.
    pub height: [f64; 2],
    /// Its raw class id.
    pub raw: u8,
    /// Whether it is an ellipsoid.
    pub round: bool,
    /// Whether it hides what is behind it.
    pub opaque: bool,
}

impl Solid {
    /// An opaque box.
    pub fn block(raw: u8, at: Vec2, heading: Vec2, half: [f64; 2], height: [f64; 2]) -> Solid {
        Solid { at, heading, half, height, raw, round: false, opaque: true }
    }

    /// A thin upright thing that hides nothing.
    pub fn post(raw: u8, at: Vec2, radius: f64, top: f64) -> Solid {
        Solid { opaque: false, ..Solid::block(raw, at, [1.0, 0.0], [radius; 2], [0.0, top]) }
    }

    /// Foliage: rounded, and light passes through.
    pub fn foliage(at: Vec2, radius: f64, height: [f64; 2]) -> Solid {
        let block = Solid::block(raw::VEGETATION, at, [1.0, 0.0], [radius; 2], height);
        Solid { round: true, opaque: false, ..block }
    }

    /// The same solid, hiding nothing.
    pub fn porous(self) -> Solid {
        Solid { opaque: false, ..self }
    }
}

/// A tree: a trunk and a crown.
pub(super) fn tree(at: Vec2, crown_radius: f64, crown_bottom: f64) -> [Solid; 2] {
    let crown = Solid::foliage(at, crown_radius, [crown_bottom, crown_bottom + 3.5]);
    [Solid::post(raw::VEGETATION, at, 0.22, crown_bottom + 0.8), crown]
}

/// What moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Car,
    Truck,
    Bus,
    Motorbike,
    Pedestrian,
}

impl Kind {
    /// Length, width and height, metres.
    pub fn size(self) -> [f64; 3] {
        match self {
            Kind::Car => [4.6, 1.8, 1.6],
            Kind::Truck => [5.8, 2.3, 3.0],
            Kind::Bus => [12.0, 2.9, 3.4],
            Kind::Motorbike => [2.2, 0.8, 1.7],
            Kind::Pedestrian => [0.7, 0.6, 1.8],
        }
    }

    /// Distance between the axles, metres.
    pub fn wheelbase(self) -> f64 {
        self.size()[0] * 0.6
    }

    /// Adds its solids at a place.
    pub fn build(self, at: Vec2, heading: Vec2, solids: &mut Vec<Solid>) {
        let [length, width, top] = self.size();
        let mut part = |from: f64, to: f64, width: f64, bottom: f64, top: f64| {
            let raw = if self == Kind::Pedestrian { raw::PEDESTRIAN } else { raw::VEHICLE };
            let middle = along(at, heading, (from + to) / 2.0);
            let block = Solid::block(raw, middle, heading, [(to - from) / 2.0, width / 2.0], [bottom, top]);
            // Rays pass beside what is narrow, so it casts no shadow.
            solids.push(if width < 1.0 { block.porous() } else { block });
        };
        let half = length / 2.0;
        match self {
            Kind::Car => {
                part(-half, half, width, 0.2, 0.95);
                part(-0.78 * half, 0.36 * half, width - 0.2, 0.95, top);
            }
            Kind::Truck => {
                part(-half, half - 1.8, width, 0.2, top);
                part(half - 1.8, half, width, 0.2, 2.2);
            }
            Kind::Bus | Kind::Motorbike | Kind::Pedestrian => part(-half, half, width, 0.15, top),
        }
    }
}
