//! Small pieces that several panels use.

use eframe::egui::{self, Align, Context, EventFilter, Key, Layout, Response, RichText, Ui};

use super::actions::Action;
use super::icons::Icon;
use super::state::State;
use super::style;

/// Width and height of buttons that show an icon, points.
pub const ICON_SIDE: f32 = 26.0;

/// A button for `action` that shows `icon`; screen readers and its tip call it by the action's name.
pub fn action_button(ui: &mut Ui, state: &State, icon: Icon, action: Action) -> bool {
    let tip = tip(ui, action);
    icon_button(ui, icon, action.entry().name, &tip, action.is_enabled(state), false).clicked()
}

/// A button that shows `icon`, is called `name`, and looks pressed if it is `on`.
pub fn icon_button(ui: &mut Ui, icon: Icon, name: &str, tip: &str, enabled: bool, on: bool) -> Response {
    let button = egui::Button::new("").min_size(egui::Vec2::splat(ICON_SIDE)).selected(on);
    let response = ui.add_enabled(enabled, button);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, enabled, name));
    let color = if on { ui.visuals().selection.stroke.color } else { ui.style().interact(&response).fg_stroke.color };
    icon.paint(ui.painter(), response.rect, 12.0, if enabled { color } else { color.gamma_multiply(0.35) });
    response.on_hover_text(tip).on_disabled_hover_text(tip)
}

/// A button that shows `text` and is called `name`; its tip shows the key of `action`.
pub fn named_button(ui: &mut Ui, text: &str, name: &str, enabled: bool, action: Option<Action>) -> Response {
    let response = ui.add_enabled(enabled, egui::Button::new(text));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, enabled, name));
    let tip = action.map_or_else(|| name.to_owned(), |action| tip(ui, action));
    response.on_hover_text(&tip).on_disabled_hover_text(tip)
}

/// "Play or pause (Space)".
pub fn tip(ui: &Ui, action: Action) -> String {
    let entry = action.entry();
    match entry.keys.first() {
        Some(key) => format!("{} ({})", entry.name, ui.ctx().format_shortcut(key)),
        None => entry.name.to_owned(),
    }
}

/// A row with its name on the left and a figure in a tabular font on the right.
pub fn figure(ui: &mut Ui, name: &str, value: impl Into<String>) -> Response {
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).color(style::colors(ui.visuals()).quiet));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.label(RichText::new(value.into()).monospace());
        });
    })
    .response
}

/// Text in the middle of an otherwise empty panel: what will be here, and how to get it.
pub fn empty(ui: &mut Ui, text: &str) {
    let text = RichText::new(text).color(style::colors(ui.visuals()).quiet);
    let height = ui.available_height().min(ui.clip_rect().height());
    ui.vertical_centered(|ui| {
        ui.add_space((height / 2.0 - ui.spacing().interact_size.y).max(0.0));
        ui.label(text);
    });
}

/// Keys that press and move the widget with the focus, or take the focus to the next one.
pub const USED_KEYS: [Key; 5] = [Key::ArrowLeft, Key::ArrowRight, Key::ArrowUp, Key::ArrowDown, Key::Space];

/// Whether a widget has the focus and uses [`USED_KEYS`].
pub fn uses_keys(context: &Context) -> bool {
    let focused = context.memory(|memory| memory.focused());
    focused.is_some_and(|id| context.data(|data| data.get_temp::<()>(leaves_keys_id(id))).is_none())
}

/// Leaves [`USED_KEYS`] to the orders while `response` has the focus: a view has no use for them.
pub fn leave_keys(response: &Response) {
    let (context, id) = (&response.ctx, response.id);
    if response.has_focus() {
        let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
        context.memory_mut(|memory| memory.set_focus_lock_filter(id, filter));
        context.data_mut(|data| data.insert_temp(leaves_keys_id(id), ()));
    }
}

fn leaves_keys_id(id: egui::Id) -> egui::Id {
    id.with("leaves keys")
}
