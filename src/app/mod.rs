//! The desktop app: train and scrub, original beside reconstruction.
//!
//! [`State`] is all that is shown and changed; [`actions`] is all that can be ordered; panels draw the one and give the
//! other. The window never waits: the trainer is a thread behind [`engine::Engine`], anything else that takes time is a job
//! of [`jobs::Jobs`].

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eframe::egui::util::undoer::Undoer;
use eframe::egui::{self, CentralPanel, Context, Ui, ViewportCommand};
use eframe::egui_wgpu::RenderState;
use egui_tiles::Tree;

use crate::Error;
use crate::train::events::Command;
use crate::train::trainer::Wake;
use canvas::Canvas;
use layout::{Pane, Panels};
use state::{Page, State};
use view::View;

pub mod actions;
mod canvas;
mod comparison;
mod dialogs;
mod display;
mod draft;
pub mod engine;
mod events;
mod example;
mod failure;
pub mod history;
mod icons;
pub mod jobs;
mod latent;
pub mod layout;
mod lookup;
pub mod memory;
mod menu;
pub mod mix;
pub mod notices;
mod open;
mod output;
mod palette;
mod panels;
mod perform;
mod placement;
mod places;
pub mod playback;
pub mod rivals;
mod run_bar;
pub mod scores;
mod sequence;
mod shell;
pub mod shown;
pub mod state;
mod style;
#[cfg(test)]
mod tests;
mod timeline;
mod toolkit;
mod training;
pub mod view;
mod view_camera;
mod viewports;
mod welcome;
mod widgets;
mod window;

pub use window::run;

/// However much the trainer tells, the window is drawn anew for it after this time at the soonest: on a software adapter
/// each frame takes from training what it needs, and a key that comes meanwhile waits for its end.
const CADENCE: Duration = Duration::from_millis(250);

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
    welcome: welcome::Memory,
    path_field: Option<dialogs::PathField>,
    /// Why the trainer has ended, until that was read.
    failure: Option<Error>,
    /// The list of all keys is open.
    keys_are_shown: bool,
    /// Paths are chosen in the system's dialogs, where it has any; else in a field of the window.
    pub native_dialogs: bool,
    example: Option<example::Example>,
    /// The window was closed while a run was at work: it saves, and the window follows.
    closing: bool,
    /// A run has ended and is being opened to be looked at; whether it was told to train meanwhile.
    reopening: Option<bool>,
    /// The data that were last asked for.
    watched: Option<training::Watched>,
    /// The window's device, and what draws on it.
    gpu: Option<RenderState>,
    canvas: Option<Canvas>,
    /// The window to wake when the trainer tells something, which outlives windows.
    window: Arc<Mutex<Context>>,
}

impl App {
    /// The app as it was left, or as a new user sees it.
    pub fn new(creation: &eframe::CreationContext<'_>) -> App {
        let window = Arc::new(Mutex::new(creation.egui_ctx.clone()));
        let mut app = App {
            state: State::default(),
            tree: layout::default_tree(),
            undo: Undoer::default(),
            used_pane: Pane::Reconstruction,
            viewports: viewports::Viewports::default(),
            palette: palette::Palette::default(),
            panels: panels::Memory::default(),
            welcome: welcome::Memory::default(),
            path_field: None,
            failure: None,
            keys_are_shown: false,
            native_dialogs: false,
            example: None,
            closing: false,
            reopening: None,
            watched: None,
            gpu: None,
            canvas: None,
            window: window.clone(),
        };
        app.state.engine.wake = Some(Wake(Arc::new(move || {
            window.lock().unwrap_or_else(PoisonError::into_inner).request_repaint_after(CADENCE);
        })));
        if let Some(storage) = creation.storage {
            app.restore(storage);
        }
        app.enter(creation);
        app
    }

    /// Opens `path`, or what was open when the window was last closed, and has the example ready, which is written below
    /// `data`.
    pub fn start(&mut self, path: Option<&Path>, data: Option<&Path>) {
        let last = self.state.recent.open.clone();
        self.unpack_example(data);
        match (path, last) {
            (Some(path), _) => self.open(path),
            (None, Some(last)) if open::recognise(&last).is_ok() => self.open(&last),
            _ => self.load_example(),
        }
    }

    /// Settles in a window: the first, or another after the loss of the device.
    fn enter(&mut self, creation: &eframe::CreationContext<'_>) {
        style::install(&creation.egui_ctx);
        self.panels.leave_window();
        self.gpu = creation.wgpu_render_state.clone();
        self.canvas = self.gpu.as_ref().map(|gpu| Canvas::new(&gpu.device, gpu.target_format));
        self.viewports = match (&self.gpu, &self.canvas) {
            (Some(gpu), Some(canvas)) => viewports::Viewports::new(gpu, canvas.clone()),
            _ => viewports::Viewports::default(),
        };
        self.state.jobs.wake = Some(creation.egui_ctx.clone());
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = creation.egui_ctx.clone();
    }

    fn pane(&mut self, ui: &mut Ui, pane: Pane) {
        match pane {
            pane if pane.is_view() => {
                self.viewports.ui(ui, &mut self.state, pane);
            }
            _ => {
                if let Some(place) = panels::ui(ui, &mut self.state, &mut self.panels, pane) {
                    self.go_to(place);
                }
            }
        }
        if let Some(action) = self.panels.ordered.take() {
            self.perform(&ui.ctx().clone(), action);
        }
    }

    /// Fills the whole window: no panel has a ground of its own.
    fn ground(&self, ui: &Ui) {
        let (rect, color) = (ui.ctx().content_rect(), ui.visuals().panel_fill);
        match &self.canvas {
            Some(canvas) => canvas.fill(ui.painter(), rect, color),
            None => drop(ui.painter().rect_filled(rect, 0.0, color)),
        }
    }

    fn workspace(&mut self, ui: &mut Ui) {
        shell::top_bar(ui, self);
        match timeline::ui(ui, &mut self.state) {
            Some(timeline::Choice::Order(action)) => self.perform(&ui.ctx().clone(), action),
            Some(timeline::Choice::Clip(clip)) => self.go_to_clip(clip),
            None => {}
        }
        CentralPanel::no_frame().show(ui, |ui| {
            // The panels need the app, and the app holds the panels' tree.
            layout::close_useless(&mut self.tree, &self.state);
            let mut tree = std::mem::replace(&mut self.tree, Tree::empty(egui::Id::unique("panels")));
            tree.ui(&mut Panels { app: self }, ui);
            self.tree = tree;
        });
    }

    /// A window that is closed while a run is at work stays until the run has saved.
    fn close_after_saving(&mut self, context: &Context) {
        let asked = context.input(|input| input.viewport().close_requested());
        if asked && !self.closing && self.state.engine.is_training() {
            self.closing = true;
            self.state.engine.send(Command::Stop);
            context.send_viewport_cmd(ViewportCommand::CancelClose);
        } else if self.closing && !self.state.engine.is_training() {
            context.send_viewport_cmd(ViewportCommand::Close);
        }
    }

    fn remember_view(&mut self, context: &Context) {
        self.undo.feed_state(context.input(|input| input.time), &self.state.view);
    }
}

impl eframe::App for App {
    fn logic(&mut self, context: &Context, _: &mut eframe::Frame) {
        self.take_in(context);
        self.follow_draft(context);
        self.close_after_saving(context);
    }

    fn ui(&mut self, ui: &mut Ui, _: &mut eframe::Frame) {
        let context = ui.ctx().clone();
        self.ground(ui);
        self.obey_keys(&context);
        self.play(&context);
        match self.state.page {
            Page::Welcome => welcome::ui(ui, self),
            Page::Workspace => self.workspace(ui),
        }
        shell::notices(&context, &mut self.state);
        self.path_field(&context);
        self.failure(&context);
        menu::keys(&context, &mut self.keys_are_shown);
        shell::overlay(&context, self.closing);
        if let Some(action) = self.palette.ui(&context, &self.state) {
            self.perform(&context, action);
        }
        self.take_dropped(&context);
        self.remember_view(&context);
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        self.store(storage);
    }

    fn on_exit(&mut self) {
        self.state.engine.finish();
    }
}
