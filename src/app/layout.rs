//! The dockable panels: which there are, how they are arranged at first, and how tabs look.

use eframe::egui::{self, Ui, WidgetText};
use egui_tiles::{Container, Linear, LinearDir, Tile, TileId, Tiles, Tree, UiResponse};
use serde::{Deserialize, Serialize};

use super::App;
use super::actions::Action;
use super::state::State;
use super::style;

/// A panel.
#[expect(missing_docs, reason = "the titles say what each is")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pane {
    Classes,
    Original,
    Reconstruction,
    Error,
    /// What another run makes of the frame, by its number.
    Rival(u8),
    Difference,
    Settings,
    Voxel,
    Confusion,
    Latents,
    Mix,
    Losses,
    Accuracy,
    Frames,
    PerClass,
    LearningRate,
    Compare,
}

impl Pane {
    /// All of them.
    pub const ALL: [Pane; 19] = [
        Pane::Classes,
        Pane::Original,
        Pane::Reconstruction,
        Pane::Rival(0),
        Pane::Rival(1),
        Pane::Rival(2),
        Pane::Error,
        Pane::Difference,
        Pane::Settings,
        Pane::Voxel,
        Pane::Confusion,
        Pane::Latents,
        Pane::Mix,
        Pane::Losses,
        Pane::Accuracy,
        Pane::Frames,
        Pane::PerClass,
        Pane::LearningRate,
        Pane::Compare,
    ];

    /// What its tab says.
    pub fn title(self) -> &'static str {
        match self {
            Pane::Classes => "Classes",
            Pane::Original => "Original",
            Pane::Reconstruction => "Reconstruction",
            Pane::Error => "Error",
            Pane::Rival(0) => "Model B",
            Pane::Rival(1) => "Model C",
            Pane::Rival(_) => "Model D",
            Pane::Difference => "Difference",
            Pane::Settings => "Settings",
            Pane::Voxel => "Voxel",
            Pane::Confusion => "Confusion",
            Pane::Latents => "Latents",
            Pane::Mix => "Mix",
            Pane::Losses => "Loss",
            Pane::Accuracy => "mIoU",
            Pane::Frames => "Frames",
            Pane::PerClass => "Per class",
            Pane::LearningRate => "Learning rate",
            Pane::Compare => "Compare",
        }
    }

    /// Whether there is something for this view to draw.
    pub fn has_content(self, state: &State) -> bool {
        match self {
            Pane::Original => state.shown.is_some(),
            Pane::Rival(number) => state.rival(number.into()).is_some(),
            Pane::Difference => state.compared_labels(0).is_some(),
            _ => state.shown.as_ref().is_some_and(|shown| shown.model.is_some()),
        }
    }

    /// Whether it can have something to show.
    pub fn is_of_use(self, state: &State) -> bool {
        match self {
            Pane::Rival(number) => usize::from(number) < state.rivals.list.len(),
            Pane::Difference => !state.rivals.list.is_empty(),
            _ => true,
        }
    }

    /// Whether it is one of the linked 3D views.
    pub fn is_view(self) -> bool {
        matches!(self, Pane::Original | Pane::Reconstruction | Pane::Error | Pane::Rival(_) | Pane::Difference)
    }
}

/// The arrangement that a new user sees.
pub fn default_tree() -> Tree<Pane> {
    let mut tiles = Tiles::default();
    let mut tabs = |panes: &[Pane]| {
        let children = panes.iter().map(|&pane| tiles.insert_pane(pane)).collect();
        tiles.insert_tab_tile(children)
    };
    let classes = tabs(&[Pane::Classes]);
    let views: [&[Pane]; 3] = [&[Pane::Original], &[Pane::Reconstruction], &[Pane::Error, Pane::Difference]];
    let views = views.map(&mut tabs);
    let rivals = [0, 1, 2].map(|number| tabs(&[Pane::Rival(number)]));
    let plots = tabs(&[Pane::Losses, Pane::Accuracy, Pane::PerClass, Pane::Frames, Pane::LearningRate, Pane::Compare]);
    let inspector = tabs(&[Pane::Settings, Pane::Voxel, Pane::Confusion, Pane::Latents, Pane::Mix]);
    let views = tiles.insert_horizontal_tile(views.to_vec());
    let rivals = tiles.insert_horizontal_tile(rivals.to_vec());
    let middle = shared(&mut tiles, LinearDir::Vertical, &[(views, 0.7), (rivals, 0.7), (plots, 0.3)]);
    let root = shared(&mut tiles, LinearDir::Horizontal, &[(classes, 0.15), (middle, 0.63), (inspector, 0.22)]);
    Tree::new(egui::Id::unique("panels"), root, tiles)
}

/// Takes away what can have nothing to show; it keeps its place.
pub fn close_useless(tree: &mut Tree<Pane>, state: &State) {
    Pane::ALL.into_iter().filter(|pane| !pane.is_of_use(state)).for_each(|pane| close(tree, pane));
}

fn shared(tiles: &mut Tiles<Pane>, dir: LinearDir, parts: &[(TileId, f32)]) -> TileId {
    let mut linear = Linear::new(dir, parts.iter().map(|part| part.0).collect());
    for &(child, share) in parts {
        linear.shares.set_share(child, share);
    }
    tiles.insert_container(Container::Linear(linear))
}

/// Brings `pane` to the front, and back if it was closed.
pub fn bring_up(tree: &mut Tree<Pane>, pane: Pane) {
    uncover(tree, pane);
    tree.make_active(|_, tile| matches!(tile, Tile::Pane(other) if *other == pane));
}

/// Brings `pane` back if it was closed.
pub fn uncover(tree: &mut Tree<Pane>, pane: Pane) {
    match tree.tiles.find_pane(&pane) {
        Some(id) => tree.tiles.set_visible(id, true),
        None => {
            let id = tree.tiles.insert_pane(pane);
            if let Some(root) = tree.root {
                tree.move_tile_to_container(id, root, usize::MAX, false);
            }
        }
    }
}

/// Takes `pane` away; it keeps its place for when it is brought up again.
pub fn close(tree: &mut Tree<Pane>, pane: Pane) {
    let Some(id) = tree.tiles.find_pane(&pane) else { return };
    tree.tiles.set_visible(id, false);
}

/// Gives the part of the window that holds `pane` more room (above 1) or less.
pub fn resize(tree: &mut Tree<Pane>, pane: Pane, factor: f32) {
    let mut child = tree.tiles.find_pane(&pane);
    while let Some(id) = child {
        let Some(parent) = tree.tiles.parent_of(id) else { return };
        if let Some(Tile::Container(Container::Linear(linear))) = tree.tiles.get_mut(parent)
            && linear.children.len() > 1
        {
            let share = (linear.shares[id] * factor).clamp(0.02, 50.0);
            linear.shares.set_share(id, share);
            return;
        }
        child = Some(parent);
    }
}

/// Draws the panels of an app whose tree was taken out of it.
pub struct Panels<'a> {
    /// The app.
    pub app: &'a mut App,
}

impl egui_tiles::Behavior<Pane> for Panels<'_> {
    fn pane_ui(&mut self, ui: &mut Ui, _: TileId, pane: &mut Pane) -> UiResponse {
        let rect = ui.max_rect();
        if ui.input(|input| {
            input.pointer.any_pressed() && input.pointer.interact_pos().is_some_and(|at| rect.contains(at))
        }) {
            self.app.used_pane = *pane;
        }
        if pane.is_view() {
            self.app.pane(ui, *pane);
        } else {
            let frame = egui::Frame::new().inner_margin(8.0);
            frame.show(ui, |ui| {
                ui.expand_to_include_rect(rect.shrink(8.0));
                self.app.pane(ui, *pane);
            });
        }
        UiResponse::None
    }

    fn tab_title_for_pane(&mut self, pane: &Pane) -> WidgetText {
        match pane {
            Pane::Rival(number) => {
                let rival = self.app.state.rivals.list.get(usize::from(*number));
                rival.map_or_else(|| pane.title().into(), |rival| rival.history.name.as_str().into())
            }
            pane => pane.title().into(),
        }
    }

    fn on_tab_button(&mut self, tiles: &mut Tiles<Pane>, id: TileId, tab: egui::Response) -> egui::Response {
        // No cross: there is room for the names of all tabs, but not for more.
        let mut closes = tab.clicked_by(egui::PointerButton::Middle);
        tab.context_menu(|ui| {
            let entry = Action::ClosePanel.entry();
            let key = entry.keys.first().map(|key| ui.ctx().format_shortcut(key)).unwrap_or_default();
            closes |= ui.add(egui::Button::new(entry.name).shortcut_text(key)).clicked();
        });
        if closes {
            tiles.set_visible(id, false);
        }
        tab
    }

    fn tab_title_spacing(&self, _: &egui::Visuals) -> f32 {
        6.0
    }

    fn tab_bar_height(&self, _: &egui::Style) -> f32 {
        26.0
    }

    fn gap_width(&self, _: &egui::Style) -> f32 {
        2.0
    }

    fn simplification_options(&self) -> egui_tiles::SimplificationOptions {
        egui_tiles::SimplificationOptions { all_panes_must_have_tabs: true, ..Default::default() }
    }

    fn tab_bar_color(&self, visuals: &egui::Visuals) -> egui::Color32 {
        style::colors(visuals).bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_every_panel_once() {
        let tree = default_tree();
        for pane in Pane::ALL {
            assert_eq!(
                tree.tiles.tiles().filter(|tile| matches!(tile, Tile::Pane(other) if *other == pane)).count(),
                1
            );
        }
    }

    #[test]
    fn a_closed_panel_comes_back() {
        let mut tree = default_tree();
        let id = tree.tiles.find_pane(&Pane::Latents).unwrap();
        close(&mut tree, Pane::Latents);
        assert!(!tree.tiles.is_visible(id));
        bring_up(&mut tree, Pane::Latents);
        assert!(tree.tiles.is_visible(id));
        tree.tiles.remove(id);
        bring_up(&mut tree, Pane::Latents);
        assert!(tree.tiles.find_pane(&Pane::Latents).is_some());
    }

    #[test]
    fn panels_grow_and_shrink() {
        let mut tree = default_tree();
        let share = |tree: &Tree<Pane>| -> f32 {
            let pane = tree.tiles.find_pane(&Pane::Classes).unwrap();
            let tabs = tree.tiles.parent_of(pane).unwrap();
            let Some(Tile::Container(Container::Linear(linear))) = tree.tiles.get(tree.tiles.parent_of(tabs).unwrap())
            else {
                panic!("the classes stand in a row")
            };
            linear.shares[tabs]
        };
        let before = share(&tree);
        resize(&mut tree, Pane::Classes, 2.0);
        assert!((share(&tree) - 2.0 * before).abs() < 1e-6);
    }
}
