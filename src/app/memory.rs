//! What the window remembers from one start to the next. Each part is stored on its own, so that one that is broken, or of
//! another version, is forgotten alone. The theme is among what the toolkit remembers.

use std::path::{Path, PathBuf};

use eframe::{Storage, get_value, set_value};
use egui_tiles::{Tile, Tree};
use serde::{Deserialize, Serialize};

use super::App;
use super::layout::Pane;
use crate::train::config::RunConfig;

/// How many of the data sets and runs that were opened are remembered.
const RECENT: usize = 8;

const LAYOUT: &str = "layout";
const VIEW: &str = "view";
const PLAYBACK: &str = "playback";
const RECENTS: &str = "recent";
const SETTINGS: &str = "settings";

/// What was opened lately, the last first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recent {
    /// Folders of data sets and runs.
    pub paths: Vec<PathBuf>,
    /// What is open, to be opened again at the next start.
    pub open: Option<PathBuf>,
}

impl Recent {
    /// Remembers that `path` was opened.
    pub fn opened(&mut self, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        self.paths.retain(|other| *other != path);
        self.paths.insert(0, path.clone());
        self.paths.truncate(RECENT);
        self.open = Some(path);
    }

    /// Forgets a path that cannot be opened any more.
    pub fn forget(&mut self, path: &Path) {
        self.paths.retain(|other| other != path);
    }
}

impl App {
    /// Takes up what was stored.
    pub(super) fn restore(&mut self, storage: &dyn Storage) {
        if let Some(tree) = get_value::<Tree<Pane>>(storage, LAYOUT).filter(is_whole) {
            self.tree = tree;
        }
        let state = &mut self.state;
        state.view = get_value(storage, VIEW).unwrap_or_default();
        state.playback = get_value(storage, PLAYBACK).unwrap_or_default();
        state.recent = get_value(storage, RECENTS).unwrap_or_default();
        if let Some(text) = storage.get_string(SETTINGS)
            && let Ok(settings) = RunConfig::from_toml(&text, "the stored settings")
        {
            state.draft = settings;
        }
    }

    /// Stores what is to be remembered.
    pub(super) fn store(&self, storage: &mut dyn Storage) {
        set_value(storage, LAYOUT, &self.tree);
        set_value(storage, VIEW, &self.state.view);
        set_value(storage, PLAYBACK, &self.state.playback);
        set_value(storage, RECENTS, &self.state.recent);
        storage.set_string(SETTINGS, self.state.draft.to_toml());
    }
}

/// A tree without a root or without a view would leave the user with nothing to look at.
fn is_whole(tree: &Tree<Pane>) -> bool {
    tree.root.is_some_and(|root| tree.tiles.get(root).is_some())
        && tree.tiles.tiles().any(|tile| matches!(tile, Tile::Pane(pane) if pane.is_view()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_opened_comes_first_and_once() {
        let mut recent = Recent::default();
        for i in 0..12 {
            recent.opened(Path::new(&format!("/data/{i}")));
        }
        recent.opened(Path::new("/data/7"));
        assert_eq!(recent.paths.len(), RECENT);
        assert_eq!(
            (recent.paths[0].as_path(), recent.paths[1].as_path()),
            (Path::new("/data/7"), Path::new("/data/11"))
        );
        assert_eq!(recent.paths.iter().filter(|path| path.ends_with("7")).count(), 1);
        recent.forget(Path::new("/data/7"));
        assert_eq!(recent.paths[0], Path::new("/data/11"));
    }

    #[test]
    fn a_layout_without_views_is_not_taken_up() {
        assert!(is_whole(&super::super::layout::default_tree()));
        assert!(!is_whole(&Tree::empty(eframe::egui::Id::unique("none"))));
    }
}
