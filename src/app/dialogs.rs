//! Choosing files and folders: in the system's dialog, which runs on a thread of its own, or, where the system has none, in a
//! field of the window.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eframe::egui::{self, Context, Key, RichText};

use super::App;
use super::jobs::Outcome;
use super::style;

/// A dialog that is gone sooner than this was never there: nobody can dismiss one as fast.
const TOO_FAST: Duration = Duration::from_millis(400);
/// Folders that the field offers at most.
const OFFERED: usize = 200;

/// What a path is chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// To open a data set.
    Dataset,
    /// To open a run.
    Run,
    /// To open a run beside the open one.
    Rival,
    /// To say where the data of a run are now.
    DataOf {
        /// The run.
        run: PathBuf,
        /// The model file, if it is not the best.
        checkpoint: Option<PathBuf>,
    },
}

impl Purpose {
    fn title(&self) -> String {
        match self {
            Purpose::Dataset => "Choose a data set's folder".into(),
            Purpose::Run => "Choose a run folder".into(),
            Purpose::Rival => "Choose a run folder to compare with".into(),
            Purpose::DataOf { run, .. } => format!("Choose the folder of the data of {}", run.display()),
        }
    }
}

/// The window's own field for a path.
#[derive(Debug)]
pub struct PathField {
    purpose: Purpose,
    text: String,
    /// Folders in `text`'s folder that begin with its last part, as of the last change.
    offered: Vec<PathBuf>,
}

impl PathField {
    /// A field that begins in the working directory.
    pub fn new(purpose: Purpose) -> PathField {
        let mut start = std::env::current_dir().unwrap_or_default().display().to_string();
        start.push(std::path::MAIN_SEPARATOR);
        let offered = folders(&start);
        PathField { purpose, text: start, offered }
    }
}

/// Folders that `text` may become.
fn folders(text: &str) -> Vec<PathBuf> {
    let path = Path::new(text);
    let (parent, begun) = if text.ends_with(std::path::is_separator) {
        (path, String::new())
    } else {
        let begun = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        (path.parent().unwrap_or(path), begun)
    };
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.is_dir() && name(path).starts_with(&begun) && (begun.starts_with('.') || !name(path).starts_with('.'))
        })
        .take(OFFERED)
        .collect();
    found.sort();
    found
}

impl App {
    /// Asks for a path.
    pub(super) fn choose(&mut self, purpose: Purpose) {
        if !self.native_dialogs {
            self.path_field = Some(PathField::new(purpose));
            return;
        }
        let dialog = rfd::AsyncFileDialog::new().set_title(purpose.title()).pick_folder();
        let asked = Instant::now();
        self.state.jobs.start("choosing a folder", move |_| {
            Ok(match pollster::block_on(dialog) {
                Some(folder) => Outcome::Chosen { path: folder.path().to_path_buf(), purpose },
                None if asked.elapsed() < TOO_FAST => Outcome::NoDialog(purpose),
                None => Outcome::Nothing,
            })
        });
    }

    /// Does with a path what it was chosen for.
    pub(super) fn take_chosen(&mut self, path: PathBuf, purpose: Purpose) {
        match purpose {
            Purpose::Dataset | Purpose::Run => self.open(&path),
            Purpose::Rival => self.open_rival(path),
            Purpose::DataOf { run, checkpoint } => self.open_run_with(run, checkpoint, Some(path)),
        }
    }

    /// Draws the window's own field, if one is open.
    pub(super) fn path_field(&mut self, context: &Context) {
        let Some(field) = &mut self.path_field else { return };
        let (mut chosen, mut closed) = (None, false);
        let frame = egui::Frame::popup(&context.global_style()).inner_margin(16.0);
        let modal = egui::Modal::new(egui::Id::unique("path")).frame(frame).show(context, |ui| {
            ui.set_width(520.0);
            ui.heading(field.purpose.title());
            ui.add_space(4.0);
            let edit = egui::TextEdit::singleline(&mut field.text).desired_width(f32::INFINITY);
            let edit = ui.add(edit);
            edit.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Path"));
            if edit.changed() {
                field.offered = folders(&field.text);
            }
            // The Enter key takes the focus away, so this comes before it is asked for.
            if edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter)) {
                chosen = Some(PathBuf::from(field.text.trim()));
            } else if ui.memory(|memory| memory.focused().is_none()) {
                edit.request_focus();
            }
            ui.add_space(4.0);
            let mut entered = None;
            let rows = egui::ScrollArea::vertical().max_height(260.0).min_scrolled_height(260.0).auto_shrink(false);
            rows.show(ui, |ui| {
                ui.with_layout(egui::Layout::top_down_justified(egui::Align::Min), |ui| {
                    for folder in &field.offered {
                        let name =
                            folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                        if ui.add(egui::Button::new(name).frame_when_inactive(false).truncate()).clicked() {
                            entered = Some(folder.clone());
                        }
                    }
                    if field.offered.is_empty() {
                        ui.label(RichText::new("There are no folders here.").color(style::colors(ui.visuals()).quiet));
                    }
                });
            });
            if let Some(folder) = entered {
                field.text = format!("{}{}", folder.display(), std::path::MAIN_SEPARATOR);
                field.offered = folders(&field.text);
            }
            ui.add_space(4.0);
            ui.horizontal(|ui| {
                if ui.button("Choose this folder").clicked() {
                    chosen = Some(PathBuf::from(field.text.trim()));
                }
                closed = ui.button("Cancel").clicked();
            });
        });
        closed |= modal.should_close();
        if (chosen.is_some() || closed)
            && let Some(field) = self.path_field.take()
            && let Some(path) = chosen
        {
            self.take_chosen(path, field.purpose);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_offers_the_folders_that_the_text_may_become() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["runs", "Rust", "data", ".hidden"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("rubble.txt"), "").unwrap();
        let names = |text: &str| -> Vec<String> {
            let found = folders(&format!("{}/{text}", folder.path().display()));
            found.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(""), ["Rust", "data", "runs"]);
        assert_eq!(names("ru"), ["Rust", "runs"]);
        assert_eq!(names(".h"), [".hidden"]);
        assert!(names("nowhere/at/all").is_empty());
    }
}
