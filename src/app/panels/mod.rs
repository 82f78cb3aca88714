//! The panels around the views. Each file draws one; what a panel remembers between frames is in [`Memory`].

use eframe::egui::{ScrollArea, Ui};

use super::actions::Action;
use super::layout::Pane;
use super::mix::Mix;
use super::scores::{Place, Scope};
use super::state::State;

mod classes;
mod common;
mod compare;
mod confusion;
mod frames;
mod heat;
mod latents;
mod mixing;
mod per_class;
pub(super) mod sample;
#[cfg(test)]
mod tests;
mod voxel;

mod plots;
mod settings;

/// What the panels remember besides the app's state.
#[derive(Debug, Default)]
pub struct Memory {
    /// What figures are over.
    pub scope: Scope,
    /// The mix of two clips' latents.
    pub mix: Mix,
    /// What a panel ordered while it was drawn.
    pub ordered: Option<Action>,
    plots: plots::Memory,
    settings: settings::Memory,
    confusion: confusion::Settings,
    latents: latents::Settings,
}

impl Memory {
    /// Lets go of what belongs to a window.
    pub fn leave_window(&mut self) {
        self.latents.pictures = None;
    }
}

/// Draws `pane`; returns the frame that was asked for.
pub fn ui(ui: &mut Ui, state: &mut State, memory: &mut Memory, pane: Pane) -> Option<Place> {
    let scroll = ScrollArea::vertical().id_salt(pane.title()).auto_shrink(false);
    let contents = |ui: &mut Ui| match pane {
        Pane::Classes => {
            classes::ui(ui, state, &mut memory.scope);
            None
        }
        Pane::Voxel => {
            voxel::ui(ui, state);
            None
        }
        Pane::Confusion => confusion::ui(ui, state, &mut memory.scope, &mut memory.confusion),
        Pane::Latents => {
            latents::ui(ui, state, &mut memory.latents);
            None
        }
        Pane::Mix => {
            mixing::ui(ui, state, &mut memory.mix);
            None
        }
        Pane::Settings => {
            memory.ordered = settings::ui(ui, state, &mut memory.settings);
            None
        }
        Pane::Frames => frames::ui(ui, state),
        Pane::PerClass => per_class::ui(ui, state, &mut memory.scope),
        Pane::Losses | Pane::Accuracy | Pane::LearningRate => {
            memory.ordered = plots::ui(ui, state, &mut memory.plots, pane);
            None
        }
        Pane::Compare => {
            memory.ordered = compare::ui(ui, state);
            None
        }
        Pane::Original | Pane::Reconstruction | Pane::Error | Pane::Rival(_) | Pane::Difference => None,
    };
    scroll.show(ui, contents).inner
}
