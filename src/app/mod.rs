//! The desktop app: train and scrub, original beside reconstruction.
//!
//! [`State`] is all that is shown and changed; [`actions`] is all that can be ordered; panels draw the one and give the
//! other. The window never waits: the trainer is a thread behind [`engine::Engine`], anything else that takes time is a job
//! of [`jobs::Jobs`].

use eframe::egui::util::undoer::Undoer;
use eframe::egui::{self, CentralPanel, Context, Ui};
use eframe::egui_wgpu::RenderState;
use egui_tiles::Tree;

use crate::{Error, Result};
use layout::{Pane, Panels};
use state::{Page, State};
use view::View;

pub mod actions;
mod dialogs;
pub mod engine;
mod events;
pub mod history;
pub mod jobs;
mod latent;
pub mod layout;
pub mod mix;
pub mod notices;
mod open;
mod palette;
mod panels;
mod perform;
pub mod playback;
pub mod scores;
mod shell;
pub mod shown;
pub mod state;
mod style;
mod timeline;
pub mod view;
mod view_camera;
mod viewports;
mod welcome;
mod widgets;

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
        };
        app.state.jobs.wake = Some(creation.egui_ctx.clone());
        app
    }

    fn pane(&mut self, ui: &mut Ui, pane: Pane, gpu: Option<&RenderState>) {
        match pane {
            Pane::Original | Pane::Reconstruction | Pane::Error => {
                self.viewports.ui(ui, &mut self.state, pane, gpu);
            }
            _ => {
                if let Some(place) = panels::ui(ui, &mut self.state, &mut self.panels, pane) {
                    self.go_to(place);
                }
            }
        }
    }

    fn workspace(&mut self, ui: &mut Ui, gpu: Option<&RenderState>) {
        shell::top_bar(ui, self);
        timeline::ui(ui, &mut self.state);
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
