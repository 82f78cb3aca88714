//! The panels around the views. Each file draws one; what a panel remembers between frames is in [`Memory`].

use eframe::egui::Ui;

use super::layout::Pane;
use super::state::State;
use super::widgets;
use crate::train::events::{DecodedClip, ValidationMetrics};

/// What the panels remember besides the app's state.
#[derive(Debug, Default)]
pub struct Memory {
    /// The last validation, with what was confused in it.
    pub validation: Option<ValidationMetrics>,
    /// The last answer to a mixed latent.
    pub decoded: Option<DecodedClip>,
}

impl Memory {
    /// Takes in a validation.
    pub fn validated(&mut self, metrics: ValidationMetrics) {
        self.validation = Some(metrics);
    }

    /// Takes in a decoded latent.
    pub fn decoded(&mut self, clip: DecodedClip) {
        self.decoded = Some(clip);
    }
}

/// Draws `pane`.
pub fn ui(ui: &mut Ui, _state: &mut State, _memory: &mut Memory, pane: Pane) {
    widgets::empty(ui, pane.title());
}
