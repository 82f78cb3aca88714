//! What lies between encoder and decoder, as pictures.

use eframe::egui::{
    self, Align2, Color32, ColorImage, EventFilter, Key, Rect, RichText, Sense, StrokeKind, TextureHandle,
    TextureOptions, Ui, pos2, vec2,
};

use super::common::{FIGURE, SMALL, note};
use super::heat::Heat;
use crate::app::latent::{Axis, Channels, Flat, Quantity, farthest_motion, flat, total_kl};
use crate::app::shown::Shown;
use crate::app::state::State;
use crate::app::style;
use crate::app::widgets;
use crate::train::inference::Latent;

/// What the panel remembers.
#[derive(Default)]
pub struct Settings {
    quantity: Quantity,
    channels: Channels,
    /// Made anew when it is `None`, as in a new window.
    pub pictures: Option<Pictures>,
    /// The latent and its cell `[A1, A2]` that was last pointed at or reached with the keys.
    read: Option<(usize, [usize; 2])>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("quantity", &self.quantity).field("channels", &self.channels).finish()
    }
}

/// The latents' textures and what they were made of.
pub struct Pictures {
    made_of: MadeOf,
    heat: Heat,
    latents: Vec<Picture>,
}

/// What pictures depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct MadeOf {
    version: u64,
    quantity: Quantity,
    channels: Channels,
    is_dark: bool,
    /// The frame in view, of codes.
    t: Option<usize>,
}

struct Picture {
    name: &'static str,
    flat: Flat,
    is_code: bool,
    kl: Option<f64>,
    texture: TextureHandle,
}

impl Picture {
    /// Which of the two axes runs across; the other runs up.
    fn across(&self) -> usize {
        usize::from(is_from_above(&self.flat))
    }
}

/// Seen from above, forward is up; everything else stands on its first axis.
fn is_from_above(flat: &Flat) -> bool {
    flat.axes.map(|axis| axis.name) == ['x', 'y']
}

/// Draws the panel.
pub fn ui(ui: &mut Ui, state: &mut State, settings: &mut Settings) {
    let Some((shown, model)) = state.shown.as_ref().and_then(|shown| Some((shown, shown.model.as_ref()?))) else {
        widgets::empty(ui, "Train a model or open a run\nto see its latents.");
        return;
    };
    if model.latents.is_empty() {
        widgets::empty(ui, "This reconstruction came without its latents.");
        return;
    }
    ui.spacing_mut().item_spacing.y = 4.0;
    choices(ui, settings, &model.latents);
    let Settings { quantity, channels, pictures, read } = settings;
    let made_of = MadeOf {
        version: shown.version,
        quantity: *quantity,
        channels: *channels,
        is_dark: ui.visuals().dark_mode,
        t: (*quantity == Quantity::Code).then(|| state.frame()),
    };
    if pictures.as_ref().is_none_or(|pictures| pictures.made_of != made_of) {
        *pictures = Some(draw(ui, shown, &model.latents, made_of));
    }
    let Some(pictures) = pictures else { return };
    if *quantity != Quantity::Code {
        pictures.heat.bar(ui, number);
    }
    let what = described(*quantity, *channels);
    let seek = grid(ui, state, shown, pictures, read, &what);
    match read.as_ref().and_then(|(latent, cell)| sentence(pictures.latents.get(*latent)?, *cell, &what)) {
        Some(text) => drop(ui.label(RichText::new(text).font(SMALL))),
        None => drop(note(ui, "Point at a cell to read it, or Tab to a picture and use the arrow keys.")),
    }
    if let Some((metres, degrees)) = farthest_motion(shown) {
        note(ui, format!("Aligned: frames lie up to {metres:.1} m and {degrees:.1}° from the middle one."));
    }
    if let Some(frame) = seek {
        let frames = shown.frames;
        state.playback.seek(frame, frames);
    }
}

/// Three digits that say something, whatever the size.
fn number(value: f32) -> String {
    if value == 0.0 || (0.01..1000.0).contains(&value.abs()) { format!("{value:.2}") } else { format!("{value:.1e}") }
}

fn described(quantity: Quantity, channels: Channels) -> String {
    let symbol = quantity.symbol();
    match channels {
        _ if quantity == Quantity::Code => symbol.to_owned(),
        Channels::Mean => format!("mean |{symbol}|"),
        Channels::Max => format!("max |{symbol}|"),
        Channels::One(channel) => format!("{symbol} of channel {}", channel + 1),
    }
}

fn sentence(picture: &Picture, cell: [usize; 2], what: &str) -> Option<String> {
    let Flat { axes: [first, second], over, values } = &picture.flat;
    let value = values.get(cell[0] * second.len + cell[1]).filter(|_| cell[1] < second.len)?;
    let over = if over.is_empty() { String::new() } else { format!(", {over}") };
    let value = if picture.is_code { format!("{what} {value}") } else { format!("{what} = {value:.3}") };
    Some(format!("{}: {value} at {}, {}{over}", picture.name, first.place(cell[0]), second.place(cell[1])))
}

fn choices(ui: &mut Ui, settings: &mut Settings, latents: &[Latent]) {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        let has = |quantity| latents.iter().any(|latent| Quantity::of_kind(latent.spec.kind).contains(&quantity));
        let there = Quantity::ALL.into_iter().filter(|&quantity| has(quantity));
        if !has(settings.quantity) {
            settings.quantity = there.clone().next().unwrap_or_default();
        }
        for quantity in there {
            let name = match quantity {
                Quantity::Mean => "Mean μ",
                Quantity::Sigma => "σ",
                Quantity::Kl => "KL",
                Quantity::Code => "Codes",
            };
            let tip = match quantity {
                Quantity::Mean => "The mean of each latent: what the decoder gets when it reconstructs",
                Quantity::Sigma => "The standard deviation of each latent: 1 carries no information",
                Quantity::Kl => {
                    "KL divergence of each latent from the standard normal distribution, nats: what it tells"
                }
                Quantity::Code => {
                    "The code of each cell in the frame in view, a colour for each; like colours mean nothing"
                }
            };
            ui.selectable_value(&mut settings.quantity, quantity, name).on_hover_text(tip);
        }
        if settings.quantity == Quantity::Code {
            return;
        }
        ui.add_space(4.0);
        let width = ui.available_width().min(132.0);
        let shown = latents.iter().filter(|latent| !Quantity::of_kind(latent.spec.kind).is_empty());
        let count = shown.filter_map(|latent| latent.shape.last().copied()).max().unwrap_or(1);
        let name = |channels| match channels {
            Channels::One(channel) => format!("Channel {}", channel + 1),
            all => described(settings.quantity, all),
        };
        let mut channels = settings.channels;
        let chooser =
            egui::ComboBox::from_id_salt("channels").width(width).selected_text(name(channels)).show_ui(ui, |ui| {
                let all = [Channels::Mean, Channels::Max].into_iter().chain((0..count).map(Channels::One));
                for choice in all {
                    ui.selectable_value(&mut channels, choice, name(choice));
                }
            });
        let value = name(channels);
        chooser.response.widget_info(|| {
            let mut info = egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Channels");
            info.current_text_value = Some(value.clone());
            info
        });
        settings.channels = channels;
    });
}

fn draw(ui: &Ui, shown: &Shown, latents: &[Latent], made_of: MadeOf) -> Pictures {
    let MadeOf { quantity, channels, .. } = made_of;
    let has = |latent: &&Latent| Quantity::of_kind(latent.spec.kind).contains(&quantity);
    let parts: Vec<(&Latent, Flat)> = latents
        .iter()
        .filter(has)
        .filter_map(|latent| Some((latent, flat(latent, quantity, channels, shown, made_of.t.unwrap_or_default())?)))
        .collect();
    let is_code = quantity == Quantity::Code;
    let diverges = quantity == Quantity::Mean && matches!(channels, Channels::One(_));
    let heat = Heat::over(parts.iter().flat_map(|(_, flat)| flat.values.iter().copied()), diverges);
    let latents = parts
        .into_iter()
        .map(|(latent, flat)| {
            let is_turned = is_from_above(&flat);
            let [first, second] = flat.axes.map(|axis| axis.len);
            let (width, height) = if is_turned { (second, first) } else { (first, second) };
            let pixels = (0..width * height).map(|i| {
                let (across, up) = (i % width, height - 1 - i / width);
                let at = if is_turned { up * second + across } else { across * second + up };
                if is_code { code_color(flat.values[at]) } else { heat.color(ui.visuals(), flat.values[at]) }
            });
            let image = ColorImage::new([width, height], pixels.collect());
            let name = latent.spec.name;
            let texture = ui.ctx().load_texture(format!("latent {name}"), image, TextureOptions::NEAREST);
            Picture { name, flat, is_code, kl: total_kl(latent), texture }
        })
        .collect();
    Pictures { made_of, heat, latents }
}

/// A colour for the number of a code. Neighbours are as far apart as others: turns of the golden angle, in three shades.
fn code_color(code: f32) -> Color32 {
    let (hue, shade) = ((code * 0.618_034).fract(), code.rem_euclid(3.0) / 2.0);
    egui::ecolor::Hsva::new(hue, 0.85 - 0.4 * shade, 0.65 + 0.3 * shade, 1.0).into()
}

/// All of them; returns the frame that was clicked.
fn grid(
    ui: &mut Ui,
    state: &State,
    shown: &Shown,
    pictures: &Pictures,
    read: &mut Option<(usize, [usize; 2])>,
    what: &str,
) -> Option<usize> {
    // In as many rows as columns, or one more of what there is less room for. Of six, those over space stand beside, or above,
    // those over time.
    let count = pictures.latents.len().max(1);
    let (short, long) = (count.isqrt(), count.div_ceil(count.isqrt()));
    let is_wide = ui.available_width() > 1.1 * ui.available_height();
    let (columns, rows) = if is_wide { (long, short) } else { (short, long) };
    let spacing = vec2(10.0, 6.0);
    let notes = if farthest_motion(shown).is_some() { 66.0 } else { 34.0 };
    let room = vec2(ui.available_width(), (ui.available_height() - notes).max(rows as f32 * 84.0));
    let size = vec2(
        (room.x - spacing.x * (columns - 1) as f32) / columns as f32,
        ((room.y - spacing.y * (rows - 1) as f32) / rows as f32).min(460.0),
    );
    let whole = vec2(room.x, size.y * rows as f32 + spacing.y * (rows - 1) as f32);
    let (rect, _) = ui.allocate_exact_size(whole, Sense::hover());
    let mut seek = None;
    for (i, picture) in pictures.latents.iter().enumerate() {
        let (column, row) = if is_wide { (i % long, i / long) } else { (i / long, i % long) };
        let min = rect.min + vec2((size.x + spacing.x) * column as f32, (size.y + spacing.y) * row as f32);
        let card = Rect::from_min_size(min, size);
        seek = seek.or(latent(ui, card, (i, picture), state, shown, read, what));
    }
    seek
}

/// One latent with its name, axes and marks.
fn latent(
    ui: &mut Ui,
    card: Rect,
    (i, picture): (usize, &Picture),
    state: &State,
    shown: &Shown,
    read: &mut Option<(usize, [usize; 2])>,
    what: &str,
) -> Option<usize> {
    let colors = style::colors(ui.visuals());
    let across = picture.across();
    let (right, up) = (picture.flat.axes[across], picture.flat.axes[1 - across]);
    let mut image = Rect::from_min_max(card.min + vec2(13.0, 17.0), card.max - vec2(0.0, 14.0));
    if is_from_above(&picture.flat) {
        let aspect = (right.step * right.len as f64 / (up.step * up.len as f64)) as f32;
        let width = image.width().min(image.height() * aspect);
        image = Rect::from_min_size(image.min, vec2(width, (width / aspect).min(image.height())));
    }
    let painter = ui.painter().clone();
    let strong = ui.visuals().strong_text_color();
    painter.text(
        pos2(image.left(), card.top()),
        Align2::LEFT_TOP,
        picture.name,
        egui::FontId::proportional(12.5),
        strong,
    );
    if let Some(kl) = picture.kl {
        let kl = format!("KL {} nat", crate::figures::thousands(kl.max(0.0).round() as u64));
        painter.text(card.right_top() + vec2(0.0, 2.0), Align2::RIGHT_TOP, kl, FIGURE, colors.quiet);
    }
    let whole = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
    painter.image(picture.texture.id(), image, whole, Color32::WHITE);

    let unit = |axis: Axis| if axis.name == 't' { "t (frame)".to_owned() } else { format!("{} (m)", axis.name) };
    let below = image.bottom() + 2.0;
    let font = egui::FontId::monospace(9.5);
    painter.text(pos2(image.left(), below), Align2::LEFT_TOP, right.end(false), font.clone(), colors.quiet);
    painter.text(pos2(image.right(), below), Align2::RIGHT_TOP, right.end(true), font, colors.quiet);
    let small = egui::FontId::proportional(10.0);
    painter.text(pos2(image.center().x, below), Align2::CENTER_TOP, unit(right), small.clone(), colors.quiet);
    painter.text(pos2(card.left(), image.center().y), Align2::LEFT_CENTER, up.name, small, colors.quiet);

    let size = vec2(image.width() / right.len as f32, image.height() / up.len as f32);
    let corner = |cell: [usize; 2]| {
        pos2(image.left() + size.x * cell[across] as f32, image.bottom() - size.y * (cell[1 - across] + 1) as f32)
    };
    let response = ui.interact(image, ui.scope_id().with(("latent", i)), Sense::click());
    let pointed = response.hover_pos().map(|at| {
        let right_cell = (((at.x - image.left()) / size.x) as usize).min(right.len - 1);
        let up_cell = (((image.bottom() - at.y) / size.y).max(0.0) as usize).min(up.len - 1);
        if across == 0 { [right_cell, up_cell] } else { [up_cell, right_cell] }
    });
    let moved = response.has_focus().then(|| arrows(ui, response.id, *read, i, picture));
    if let Some(cell) = pointed.or(moved) {
        *read = Some((i, cell));
    }
    let cell = read.filter(|(latent, _)| *latent == i).map(|(_, cell)| cell);
    let text = cell.and_then(|cell| sentence(picture, cell, what));
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(egui::Role::Image, true, format!("Latent {}", picture.name));
        info.current_text_value = text.clone();
        info
    });
    marks(&painter, state, shown, picture, image, &corner, size);
    if let Some(cell) = cell {
        let place = Rect::from_min_size(corner(cell), size);
        painter.rect_stroke(place.expand(0.5), 0.0, (1.0, strong), StrokeKind::Outside);
    }
    let frame = if response.has_focus() { (1.5, colors.accent) } else { (1.0, colors.line) };
    painter.rect_stroke(image, 0.0, frame, StrokeKind::Outside);
    let clicked = response.clicked();
    if let Some(text) = text.filter(|_| pointed.is_some()) {
        response.on_hover_text_at_pointer(text);
    }
    // A click on a latent over time goes to that time.
    let time = picture.flat.axes[0];
    cell.filter(|_| clicked && time.name == 't').map(|cell| time.first_frame(cell[0]))
}

/// The cell to read in a picture that has the keyboard's focus.
fn arrows(ui: &Ui, id: egui::Id, read: Option<(usize, [usize; 2])>, i: usize, picture: &Picture) -> [usize; 2] {
    let filter = EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(id, filter));
    let lens = picture.flat.axes.map(|axis| axis.len);
    let mut cell = read.filter(|(latent, _)| *latent == i).map_or(lens.map(|len| len / 2), |(_, cell)| cell);
    let across = picture.across();
    let keys = [(Key::ArrowRight, across, 1), (Key::ArrowLeft, across, -1)]
        .into_iter()
        .chain([(Key::ArrowUp, 1 - across, 1), (Key::ArrowDown, 1 - across, -1)]);
    for (key, axis, by) in keys {
        let presses = ui.input(|input| input.num_presses(key)) as isize;
        cell[axis] = cell[axis].saturating_add_signed(by * presses).min(lens[axis] - 1);
    }
    cell
}

/// The frame in view on axes of time, and the selected voxel's place.
fn marks(
    painter: &egui::Painter,
    state: &State,
    shown: &Shown,
    picture: &Picture,
    image: Rect,
    corner: &impl Fn([usize; 2]) -> egui::Pos2,
    size: egui::Vec2,
) {
    let voxel = state.hovered.or(state.selected);
    let middle = |cell: [usize; 2]| corner(cell) + size / 2.0;
    let across = picture.across();
    for (place, axis) in picture.flat.axes.iter().enumerate() {
        let cell = match (axis.name, voxel) {
            ('t', _) => axis.cell(shown, [0; 3], state.frame()),
            (_, Some(voxel)) => axis.cell(shown, voxel, state.frame()),
            _ => None,
        };
        let Some(cell) = cell else { continue };
        let at = middle([cell; 2]);
        let halo = egui::Stroke::new(3.0, Color32::from_black_alpha(150));
        for stroke in [halo, egui::Stroke::new(1.25, Color32::WHITE)] {
            if place == across {
                painter.vline(at.x, image.y_range(), stroke);
            } else {
                painter.hline(image.x_range(), at.y, stroke);
            }
        }
    }
}
