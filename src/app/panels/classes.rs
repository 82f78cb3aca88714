//! The legend: which classes there are, how many voxels, how well they are reconstructed; what is drawn, and in which colours.

use eframe::egui::{self, Align2, Color32, FontId, Rect, RichText, Sense, Ui, pos2, vec2};

use super::common::{
    FIGURE, SMALL, bare_percent, class_color, class_name, focus_ring, heading, ink_on, note, scope_switch, swatch,
    text_within,
};
use super::heat::Heat;
use crate::app::actions::Action;
use crate::app::scores::Scope;
use crate::app::shown::Shown;
use crate::app::state::State;
use crate::app::style;
use crate::app::view::{Coloring, View};
use crate::app::widgets::{self, tip};
use crate::figures::thousands;
use crate::train::metrics::Confusion;
use crate::view::VoxelOutcome;

const ROW: f32 = 21.0;
const SWATCH: f32 = 17.0;
/// Room for `100.0` and for what stands left of it.
const IOU_WIDTH: f32 = 41.0;

/// Draws the panel.
pub fn ui(ui: &mut Ui, state: &mut State, scope: &mut Scope) {
    let State { shown: Some(shown), .. } = &*state else {
        widgets::empty(ui, "The classes of an open data set stand here.");
        return;
    };
    let mut view = state.view.clone();
    ui.spacing_mut().item_spacing.y = 3.0;
    let counted = scope_switch(ui, state, scope);
    legend(ui, shown, &mut view, state.frame(), counted.as_ref());
    ui.add_space(3.0);
    ui.horizontal(|ui| {
        if widgets::named_button(ui, "All", "Show all classes", true, Some(Action::AllClasses)).clicked() {
            view.hidden.clear();
            view.solo = None;
        }
        let safe = ui.checkbox(&mut view.safe_colors, RichText::new("Colour-blind safe").small());
        safe.on_hover_text(tip(ui, Action::SafeColors));
    });
    if let Some(model) = &shown.model {
        ui.add_space(5.0);
        coloring(ui, &mut view);
        ui.add_space(5.0);
        heading(ui, "Errors in the frame");
        if let Some(counts) = model.counts.get(state.frame()) {
            for outcome in VoxelOutcome::JUDGED {
                let [r, g, b] = outcome.color(style::scene_theme(ui.visuals()));
                let share = bare_percent(counts.share(outcome)) + " %";
                let figures = [thousands(counts.get(outcome)), share];
                error_row(ui, outcome.name(), Color32::from_rgb(r, g, b), figures);
            }
        }
    }
    ui.add_space(5.0);
    crop(ui, shown, &mut view);
    state.view = view;
}

/// A row a class, and below them the occupied voxels together.
fn legend(ui: &mut Ui, shown: &Shown, view: &mut View, t: usize, counted: Option<&(Scope, Confusion)>) {
    let quiet = style::colors(ui.visuals()).quiet;
    let strong = ui.visuals().strong_text_color();
    let (head, _) = ui.allocate_exact_size(vec2(ui.available_width(), 14.0), Sense::hover());
    ui.painter().text(head.right_top(), Align2::RIGHT_TOP, "IoU %", SMALL, quiet);
    ui.painter().text(head.right_top() - vec2(IOU_WIDTH, 0.0), Align2::RIGHT_TOP, "voxels", SMALL, quiet);
    ui.spacing_mut().item_spacing.y = 0.0;
    let counts = shown.class_counts(t);
    for class in 1..shown.classes.len() {
        let iou = counted.map(|(_, confusion)| confusion.class_iou(class));
        class_row(ui, shown, view, class, counts.get(class).copied().unwrap_or(0), iou);
    }
    let occupied = counts.iter().skip(1).sum();
    for (name, count, iou) in [
        ("Occupied", Some(occupied), counted.map(|(_, confusion)| confusion.iou())),
        ("Mean (mIoU)", None, counted.map(|(_, confusion)| confusion.miou())),
    ] {
        let (row, _) = ui.allocate_exact_size(vec2(ui.available_width(), ROW - 3.0), Sense::hover());
        let count = count.map(thousands);
        figures(ui, row, count.as_deref(), iou.map(bare_percent).as_deref(), strong);
        let at = pos2(row.left() + SWATCH + 6.0, row.center().y);
        ui.painter().text(at, Align2::LEFT_CENTER, name, FontId::proportional(12.0), strong);
    }
    ui.spacing_mut().item_spacing.y = 3.0;
}

/// The right-aligned columns of a row.
fn figures(ui: &Ui, row: Rect, count: Option<&str>, iou: Option<&str>, color: Color32) {
    let right = row.right_center();
    if let Some(count) = count {
        ui.painter().text(right - vec2(IOU_WIDTH, 0.0), Align2::RIGHT_CENTER, count, FIGURE, color);
    }
    if let Some(iou) = iou {
        ui.painter().text(right, Align2::RIGHT_CENTER, iou, FIGURE, color);
    }
}

/// The square shows and hides the class, the rest of the row shows it alone.
fn class_row(ui: &mut Ui, shown: &Shown, view: &mut View, class: usize, count: u64, iou: Option<Option<f64>>) {
    let name = class_name(shown, class);
    let id = class as u8;
    let (row, _) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), Sense::hover());
    let square = Rect::from_center_size(pos2(row.left() + SWATCH / 2.0, row.center().y), vec2(SWATCH, SWATCH));
    let rest = Rect::from_min_max(pos2(square.right() + 3.0, row.top()), row.max);
    let (toggles, solos) = (Action::ToggleClass(id), Action::SoloClass(id));
    let has_key = crate::app::actions::ENTRIES.iter().any(|entry| entry.action == toggles);
    let key = |action: Action| {
        let keys = if has_key { action.entry().keys } else { &[] };
        keys.first().map(|key| format!(" ({})", ui.ctx().format_shortcut(key))).unwrap_or_default()
    };

    let shows = view.shows(id);
    let toggle = ui.interact(square, ui.scope_id().with(("show", class)), Sense::click());
    toggle.widget_info(|| egui::WidgetInfo::selected(egui::Role::CheckBox, true, shows, format!("Show {name}")));
    let toggle = toggle.on_hover_text(format!("Show or hide {name}{}", key(toggles)));
    if toggle.clicked() {
        view.toggle_class(id);
    }
    let solo = ui.interact(rest, ui.scope_id().with(("solo", class)), Sense::click());
    let is_solo = view.solo == Some(id);
    solo.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, true, is_solo, format!("Only {name}")));
    let solo = solo.on_hover_text(if is_solo {
        format!("Show all classes again{}", key(solos))
    } else {
        format!("Show only {name}{}", key(solos))
    });
    if solo.clicked() {
        view.toggle_solo(id);
    }

    let painter = ui.painter();
    if is_solo || solo.hovered() {
        let fill = if is_solo { ui.visuals().selection.bg_fill } else { ui.visuals().widgets.hovered.weak_bg_fill };
        painter.rect_filled(rest, 3.0, fill);
    }
    let color = class_color(shown, view.safe_colors, class);
    swatch(ui, painter, square, color.filter(|_| shows));
    let ink = if shows { ui.visuals().text_color() } else { style::colors(ui.visuals()).quiet };
    if has_key {
        let digit = (class % 10).to_string();
        let ink = color.filter(|_| shows).map_or(ink, ink_on);
        painter.text(square.center(), Align2::CENTER_CENTER, digit, FIGURE, ink);
    }
    figures(ui, row.translate(vec2(-1.0, 0.0)), Some(&thousands(count)), iou.map(bare_percent).as_deref(), ink);
    let room = row.right() - IOU_WIDTH - 42.0 - rest.left();
    let at = pos2(rest.left() + 3.0, row.center().y);
    text_within(painter, at, Align2::LEFT_CENTER, name, FontId::proportional(12.5), ink, room);
    focus_ring(ui, &toggle);
    focus_ring(ui, &solo);
}

fn error_row(ui: &mut Ui, name: &str, color: Color32, [count, share]: [String; 2]) {
    let (row, _) = ui.allocate_exact_size(vec2(ui.available_width(), ROW - 4.0), Sense::hover());
    let square = Rect::from_center_size(pos2(row.left() + SWATCH / 2.0, row.center().y), vec2(11.0, 11.0));
    swatch(ui, ui.painter(), square, Some(color));
    let ink = ui.visuals().text_color();
    let at = pos2(row.left() + SWATCH + 6.0, row.center().y);
    ui.painter().text(at, Align2::LEFT_CENTER, name, FontId::proportional(12.5), ink);
    ui.painter().text(row.right_center() - vec2(52.0, 0.0), Align2::RIGHT_CENTER, count, FIGURE, ink);
    ui.painter().text(row.right_center(), Align2::RIGHT_CENTER, share, FIGURE, ink);
}

/// What the reconstruction's colours mean, and their scale where they are no classes.
fn coloring(ui: &mut Ui, view: &mut View) {
    heading(ui, "Reconstruction's colours");
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        ui.selectable_value(&mut view.coloring, Coloring::Class, "Class");
        let errors = ui.selectable_value(&mut view.coloring, Coloring::Errors, "Errors");
        errors.on_hover_text(tip(ui, Action::Errors));
        let uncertain = ui.selectable_value(&mut view.coloring, Coloring::Uncertainty, "Uncertainty");
        uncertain.on_hover_text(format!("Entropy of the model's probabilities: {}", tip(ui, Action::Uncertainty)));
    });
    if view.coloring == Coloring::Uncertainty {
        let heat = Heat { low: 0.0, high: 1.0, diverges: false };
        heat.bar(ui, |entropy| format!("{entropy:.1}"));
        note(ui, "Entropy: 0 certain, 1 all alike");
    }
}

/// Ranges along the axes outside of which nothing is drawn.
fn crop(ui: &mut Ui, shown: &Shown, view: &mut View) {
    ui.horizontal(|ui| {
        heading(ui, "Crop");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let cropped = view.crop != View::default().crop;
            let button = egui::Button::new(RichText::new("Whole grid").small()).small();
            let response = ui.add_enabled(cropped, button).on_hover_text(tip(ui, Action::ResetCrop));
            if response.on_disabled_hover_text("The whole grid is drawn").clicked() {
                view.crop = View::default().crop;
            }
        });
    });
    ui.spacing_mut().slider_width = ui.available_width();
    ui.spacing_mut().interact_size.y = 15.0;
    for (axis, name) in ["x", "y", "z"].into_iter().enumerate() {
        let size = shown.grid.size[axis];
        let drawn = view.crop_voxels(axis, size);
        let metres = |voxel: usize| shown.grid.min_bound_m[axis] + voxel as f64 * shown.grid.voxel_size_m[axis];
        let (line, _) = ui.allocate_exact_size(vec2(ui.available_width(), 13.0), Sense::hover());
        let text = format!("{:.1} to {:.1} m", metres(drawn.start), metres(drawn.end));
        let ink = ui.visuals().text_color();
        ui.painter().text(line.left_center(), Align2::LEFT_CENTER, name, FontId::proportional(12.5), ink);
        ui.painter().text(line.right_center(), Align2::RIGHT_CENTER, text, FIGURE, ink);

        let (mut low, mut high) = (drawn.start, drawn.end);
        let slider = egui::RangeSlider::new(&mut low, &mut high, 0..=size).min_separation(1).show_value(false);
        let response = ui.add(slider);
        for (end, name) in [("low", format!("Crop {name} from")), ("high", format!("Crop {name} to"))] {
            ui.ctx().accesskit_node_builder(response.id.with(end), |node| node.set_label(name));
        }
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Slider, true, format!("Crop {name}")));
        let response =
            response.on_hover_text(format!("Voxels {} to {} of {size} along {name}", drawn.start, drawn.end - 1));
        if response.changed() {
            view.crop[axis] = [low, high].map(|voxel| voxel as f32 / size as f32);
        }
    }
}
