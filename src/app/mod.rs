//! The desktop app: train and scrub, original beside reconstruction.
//!
//! [`State`] is all that is shown and changed; [`actions`] is all that can be ordered; panels draw the one and give the
//! other. The window never waits: the trainer is a thread behind [`engine::Engine`], anything else that takes time is a job
//! of [`jobs::Jobs`].

use std::sync::Arc;
use std::time::Duration;

use eframe::egui::util::undoer::Undoer;
use eframe::egui::{self, CentralPanel, Context, Ui};
use eframe::egui_wgpu::RenderState;
use egui_tiles::Tree;

use crate::train::trainer::Wake;
use crate::{Error, Result};
use layout::{Pane, Panels};
use state::{Page, State};
use view::View;

pub mod actions;
mod dialogs;
mod draft;
pub mod engine;
mod events;
pub mod history;
mod icons;
pub mod jobs;
pub mod layout;
#[cfg(test)]
mod look;
mod lookup;
pub mod notices;
mod open;
mod output;
mod palette;
mod panels;
mod perform;
pub mod playback;
mod run_bar;
mod shell;
pub mod shown;
pub mod state;
mod style;
mod timeline;
mod training;
pub mod view;
mod view_camera;
mod viewports;
mod welcome;
mod widgets;

/// However much the trainer tells, the window is drawn anew for it after this time at the soonest: on a software adapter
/// each frame costs what training needs.
const CADENCE: Duration = Duration::from_millis(100);

/// The window's contents.
pub struct App {
    /// All that is shown and changed.
    pub state: State,
    tree: Tree<Pane>,
    undo: Undoer<View>,
    used_pane: Pane,
    viewports: viewports::Viewports,
    palette: palette::Palette,
    panels: panels::Memory,
    /// The data that were last asked for.
    watched: Option<training::Watched>,
    /// The window's device, from its first frame on.
    gpu: Option<RenderState>,
}

impl App {
    /// The app as it was left, or as a new user sees it.
    pub fn new(creation: &eframe::CreationContext<'_>) -> App {
        style::install(&creation.egui_ctx);
        let mut app = App {
            state: State::default(),
            tree: layout::default_tree(),
            undo: Undoer::default(),
            used_pane: Pane::Reconstruction,
            viewports: viewports::Viewports::default(),
            palette: palette::Palette::default(),
            panels: panels::Memory::default(),
            watched: None,
            gpu: creation.wgpu_render_state.clone(),
        };
        app.state.jobs.wake = Some(creation.egui_ctx.clone());
        let context = creation.egui_ctx.clone();
        app.state.engine.wake = Some(Wake(Arc::new(move || context.request_repaint_after(CADENCE))));
        app
    }

    fn pane(&mut self, ui: &mut Ui, pane: Pane, gpu: Option<&RenderState>) {
        match pane {
            Pane::Original | Pane::Reconstruction | Pane::Error => {
                self.viewports.ui(ui, &mut self.state, pane, gpu);
            }
            _ => panels::ui(ui, &mut self.state, &mut self.panels, pane),
        }
        if let Some(action) = self.panels.ordered.take() {
            self.perform(&ui.ctx().clone(), action);
        }
    }

    fn workspace(&mut self, ui: &mut Ui, gpu: Option<&RenderState>) {
        shell::top_bar(ui, self);
        if let Some(action) = timeline::ui(ui, &mut self.state) {
            self.perform(&ui.ctx().clone(), action);
        }
        CentralPanel::no_frame().show(ui, |ui| {
            // The panels need the app, and the app holds the panels' tree.
            let mut tree = std::mem::replace(&mut self.tree, Tree::empty(egui::Id::unique("panels")));
            tree.ui(&mut Panels { app: self, gpu }, ui);
            self.tree = tree;
        });
    }

    fn remember_view(&mut self, context: &Context) {
        self.undo.feed_state(context.input(|input| input.time), &self.state.view);
    }
}

impl eframe::App for App {
    fn logic(&mut self, context: &Context, _: &mut eframe::Frame) {
        self.take_in(context);
        self.follow_draft(context);
    }

    fn ui(&mut self, ui: &mut Ui, frame: &mut eframe::Frame) {
        let context = ui.ctx().clone();
        self.obey_keys(&context);
        self.play(&context);
        match self.state.page {
            Page::Welcome => welcome::ui(ui, self, frame.wgpu_render_state()),
            Page::Workspace => self.workspace(ui, frame.wgpu_render_state()),
        }
        shell::notices(&context, &mut self.state);
        if let Some(action) = self.palette.ui(&context, &self.state) {
            self.perform(&context, action);
        }
        self.take_dropped(&context);
        self.remember_view(&context);
    }

    fn on_exit(&mut self) {
        self.state.engine.finish();
    }
}

/// Opens the window and returns when it is closed.
///
/// # Errors
/// [`Error::Device`] if there is no display or no adapter that can draw.
pub fn run() -> Result<()> {
    let options = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("sep4d")
            .with_app_id("sep4d")
            .with_inner_size([1280.0, 800.0])
            .with_min_inner_size([800.0, 520.0])
            .with_drag_and_drop(true),
        ..Default::default()
    };
    eframe::run_native("sep4d", options, Box::new(|creation| Ok(Box::new(App::new(creation))))).map_err(|why| {
        Error::Device(format!(
            "the window cannot be opened: {why}; on a machine without a display, train with `sep4d --train`"
        ))
    })
}
