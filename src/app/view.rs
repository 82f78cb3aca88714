//! How the scene is looked at: shared by all viewports, remembered, and undone step by step.

use glam::Vec3;
use serde::{Deserialize, Serialize};

use crate::view::{ClassMask, Visible};

/// As far as the view looks down: just short of where left and right change places.
const STEEPEST_RAD: f32 = 89.5 * std::f32::consts::PI / 180.0;

/// What a reconstruction's colours mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coloring {
    /// The class.
    #[default]
    Class,
    /// The entropy of the model's probabilities.
    Uncertainty,
    /// Where it is wrong.
    Errors,
}

/// The look of all viewports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// Direction of view around z, radians.
    pub yaw_rad: f32,
    /// How far the view looks down, radians.
    pub pitch_rad: f32,
    /// Distance from the target, as a multiple of the one at which the whole grid fits the viewport.
    pub zoom: f32,
    /// The point in the middle, as a fraction of the grid's extent along x, y and z.
    pub target: Vec3,
    /// Parallel lines stay parallel.
    pub orthographic: bool,
    /// The camera keeps behind the ego vehicle.
    pub follow_ego: bool,
    /// Classes that are not drawn, by number.
    pub hidden: Vec<u8>,
    /// The only class that is drawn, if there is one.
    pub solo: Option<u8>,
    /// The part of the grid that is drawn, as fractions along x, y and z.
    pub crop: [[f32; 2]; 3],
    /// Colours for colour-blind readers.
    pub safe_colors: bool,
    /// Colours of the reconstructions.
    pub coloring: Coloring,
    /// Axes, scale bar and crop box are drawn.
    pub ornaments: bool,
}

impl Default for View {
    fn default() -> View {
        View {
            yaw_rad: 24f32.to_radians(),
            pitch_rad: 50f32.to_radians(),
            zoom: 1.0,
            target: Vec3::splat(0.5),
            orthographic: false,
            follow_ego: false,
            hidden: Vec::new(),
            solo: None,
            crop: [[0.0, 1.0]; 3],
            safe_colors: false,
            coloring: Coloring::Class,
            ornaments: true,
        }
    }
}

impl View {
    /// Whether voxels of `class` are drawn; class 0 is free space.
    pub fn shows(&self, class: u8) -> bool {
        class != 0 && self.solo.map_or(!self.hidden.contains(&class), |solo| solo == class)
    }

    /// The classes and the part that are drawn of a grid of `size` voxels.
    pub fn visible(&self, size: [usize; 3]) -> Visible {
        let mut classes = ClassMask::none();
        (1..=u8::MAX).for_each(|class| classes.set(class, self.shows(class)));
        Visible { classes, crop: std::array::from_fn(|axis| self.crop_voxels(axis, size[axis])) }
    }

    /// Draws a class or leaves it out; ends solo.
    pub fn toggle_class(&mut self, class: u8) {
        self.solo = None;
        match self.hidden.iter().position(|&hidden| hidden == class) {
            Some(place) => {
                self.hidden.remove(place);
            }
            None => self.hidden.push(class),
        }
    }

    /// Draws only this class, or all that were drawn before if it was so already.
    pub fn toggle_solo(&mut self, class: u8) {
        self.solo = if self.solo == Some(class) { None } else { Some(class) };
    }

    /// Colours reconstructions so, or by class again if they were.
    pub fn toggle_coloring(&mut self, coloring: Coloring) {
        self.coloring = if self.coloring == coloring { Coloring::Class } else { coloring };
    }

    /// Puts the camera back; what is drawn stays.
    pub fn reset_camera(&mut self) {
        let fresh = View::default();
        self.yaw_rad = fresh.yaw_rad;
        self.pitch_rad = fresh.pitch_rad;
        self.zoom = fresh.zoom;
        self.target = fresh.target;
        self.follow_ego = false;
    }

    /// Looks straight down, x up on the screen.
    pub fn look_from_top(&mut self) {
        let fresh = View::default();
        self.yaw_rad = 0.0;
        self.pitch_rad = STEEPEST_RAD;
        self.zoom = fresh.zoom;
        self.target = fresh.target;
        self.follow_ego = false;
    }

    /// Turns the camera around its target.
    pub fn orbit(&mut self, yaw_rad: f32, pitch_rad: f32) {
        self.yaw_rad = (self.yaw_rad + yaw_rad).rem_euclid(std::f32::consts::TAU);
        self.pitch_rad = (self.pitch_rad + pitch_rad).clamp(-STEEPEST_RAD, STEEPEST_RAD);
    }

    /// Multiplies the distance: below 1 comes closer.
    pub fn zoom_by(&mut self, factor: f32) {
        self.zoom = (self.zoom * factor).clamp(0.01, 10.0);
    }

    /// The drawn part of a grid of `size` voxels along `axis`, at least one voxel.
    pub fn crop_voxels(&self, axis: usize, size: usize) -> std::ops::Range<usize> {
        let [low, high] = self.crop[axis];
        let first = ((low * size as f32).round() as usize).min(size.saturating_sub(1));
        first..((high * size as f32).round() as usize).clamp(first + 1, size.max(first + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_toggle_and_go_solo() {
        let mut view = View::default();
        assert!(view.shows(3) && !view.shows(0));
        view.toggle_class(3);
        assert!(!view.shows(3) && view.shows(4));
        view.toggle_solo(3);
        assert!(view.shows(3) && !view.shows(4));
        view.toggle_solo(3);
        assert!(!view.shows(3) && view.shows(4));
        view.toggle_class(3);
        assert!(view.shows(3));
    }

    #[test]
    fn a_crop_keeps_at_least_one_voxel() {
        let mut view = View::default();
        assert_eq!(view.crop_voxels(0, 8), 0..8);
        view.crop[2] = [0.25, 0.5];
        assert_eq!(view.crop_voxels(2, 8), 2..4);
        view.crop[2] = [1.0, 0.0];
        assert_eq!(view.crop_voxels(2, 8), 7..8);
    }
}
