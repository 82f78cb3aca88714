//! The panels around the views. Each file draws one; what a panel remembers between frames is in [`Memory`].

use eframe::egui::{Frame, Margin, Ui};

use super::actions::Action;
use super::layout::Pane;
use super::state::State;
use super::widgets;
use crate::train::events::{DecodedClip, ValidationMetrics};

mod plots;
mod settings;

/// What the panels remember besides the app's state.
#[derive(Debug, Default)]
pub struct Memory {
    /// The last validation, with what was confused in it.
    pub validation: Option<ValidationMetrics>,
    /// The last answer to a mixed latent.
    pub decoded: Option<DecodedClip>,
    /// What a panel ordered while it was drawn.
    pub ordered: Option<Action>,
    plots: plots::Memory,
    settings: settings::Memory,
}

impl Memory {
    #[cfg(test)]
    pub fn plots_for_look(&mut self) {
        self.plots.for_look();
    }

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
pub fn ui(ui: &mut Ui, state: &mut State, memory: &mut Memory, pane: Pane) {
    let margin = Frame::new().inner_margin(Margin::same(8));
    margin.show(ui, |ui| match pane {
        Pane::Settings => memory.ordered = settings::ui(ui, state, &mut memory.settings),
        Pane::Losses | Pane::Accuracy | Pane::LearningRate => {
            memory.ordered = plots::ui(ui, state, &mut memory.plots, pane);
        }
        _ => widgets::empty(ui, pane.title()),
    });
}
