//! What a run would need of which adapter, known before its first step.

use eframe::egui::{ComboBox, RichText, Ui};
use toml::Value;

use super::field;
use crate::Result;
use crate::app::lookup::Lookup;
use crate::app::state::Source;
use crate::app::style;
use crate::app::widgets;
use crate::figures::{bytes, thousands};
use crate::gpu::{AdapterSummary, DeviceChoice, adapters, choose};
use crate::graph::KernelLimits;
use crate::models::{BatchShape, ModelConfig};
use crate::train::config::RunConfig;
use crate::train::session::{Preflight, StepConfig, preflight};

/// The machine's adapters and the last plan.
#[derive(Debug, Default)]
pub struct Needs {
    adapters: Lookup<(), Vec<AdapterSummary>>,
    plan: Lookup<Question, Result<Preflight>>,
}

/// All that a plan depends on.
type Question = (ModelConfig, BatchShape, StepConfig, KernelLimits);

impl Needs {
    /// Draws the adapter and what the run needs of it; returns another choice of `train.device`.
    pub fn ui(&mut self, ui: &mut Ui, config: &RunConfig, source: Option<&Source>) -> Option<Value> {
        let adapters = self.adapters.get(ui.ctx(), &(), |()| adapters());
        let chosen = adapters.map(|adapters| choose(adapters, &config.device()).map(|number| (adapters, number)));
        let mut wanted = None;
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 0.0;
            let doc = RunConfig::keys().find(|(key, _)| *key == "train.device").map_or("", |(_, doc)| doc);
            let label = field::left_cell(ui, 62.0, |ui| ui.label("Adapter").on_hover_text(doc));
            let current = match &chosen {
                Some(Ok((adapters, number))) => adapters[*number].name.clone(),
                _ => config.train.device.clone(),
            };
            let combo = ComboBox::from_id_salt("adapter").selected_text(current).truncate();
            let shown = combo.width(ui.available_width()).show_ui(ui, |ui| {
                let rows = adapters.map(|adapters| rows(adapters)).unwrap_or_default();
                for (value, text) in rows {
                    if ui.selectable_label(config.train.device == value, text).clicked() {
                        wanted = Some(Value::String(value));
                    }
                }
            });
            shown.response.labelled_by(label.id).on_hover_text(doc);
        });
        let colors = style::colors(ui.visuals());
        let complain = |ui: &mut Ui, why: String| {
            ui.label(RichText::new(why).small().color(colors.error));
        };
        let limits = match chosen {
            Some(Ok((adapters, number))) => Some(adapters[number].limits.clone()),
            Some(Err(why)) => {
                complain(ui, why.to_string());
                None
            }
            None => None,
        };
        let size = config.crop().or(source.map(|source| source.held_out.file_size()));
        let plan = match (size, limits.clone()) {
            (Some(size), Some(limits)) if config.validate().is_ok() => {
                let shape = BatchShape { batch: config.train.batch, frames: config.data.frames, size };
                let has_poses = source.is_none_or(|source| source.held_out.has_poses());
                let model = config.model.clone().for_data(has_poses).unwrap_or_else(|_| config.model.clone());
                let question = (model, shape, config.step(), limits);
                self.plan.get(ui.ctx(), &question, |(model, shape, optimiser, limits)| {
                    preflight(&model, &shape, &optimiser, &limits)
                })
            }
            _ => None,
        };
        let known = plan.and_then(|plan| plan.as_ref().ok());
        let most =
            limits.map_or(String::new(), |limits| format!(" of {}", bytes(limits.max_storage_binding_bytes as u64)));
        let figures = [
            (
                "Memory planned",
                known.map(|plan| bytes(plan.peak_bytes as u64)),
                "Device memory that the run would take",
            ),
            (
                "Largest binding",
                known.map(|plan| bytes(plan.largest_binding as u64) + &most),
                "The largest piece of memory that a kernel sees at once, and what the adapter allows",
            ),
            ("Parameters", known.map(|plan| thousands(plan.parameters as u64)), "Numbers that are learnt"),
        ];
        for (name, value, hint) in figures {
            widgets::figure(ui, name, value.unwrap_or_else(|| "–".into())).on_hover_text(hint);
        }
        match plan {
            Some(Err(why)) => complain(ui, why.to_string()),
            Some(Ok(plan)) => {
                if let Some(why) = config.memory_budget_bytes().and_then(|budget| plan.check(budget).err()) {
                    complain(ui, why.to_string());
                }
            }
            None => {}
        }
        wanted
    }
}

/// Choices of `train.device` with what they are called.
fn rows(adapters: &[AdapterSummary]) -> Vec<(String, String)> {
    let best = [("best".to_owned(), "best".to_owned())];
    let named = adapters.iter().enumerate().map(|(number, adapter)| {
        // The first adapter of a name goes by it, so that the choice outlives a change of the machine.
        let first = choose(adapters, &DeviceChoice::Name(adapter.name.clone())).ok() == Some(number);
        let value = if first { adapter.name.clone() } else { number.to_string() };
        (value, format!("{} ({}, {})", adapter.name, adapter.kind, adapter.backend))
    });
    best.into_iter().chain(named).collect()
}
