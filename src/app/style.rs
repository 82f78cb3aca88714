//! Colours, type and spacing of the window: few colours besides the classes', one accent.

use eframe::egui::{self, Color32, CornerRadius, FontFamily, FontId, Frame, Margin, Stroke, TextStyle, Theme, Visuals};

/// Colours that egui's visuals have no name for.
#[derive(Debug, Clone, Copy)]
pub struct Colors {
    /// The one accent: what is active, what is selected.
    pub accent: Color32,
    /// The accent behind white text.
    pub accent_fill: Color32,
    /// Behind bars and tabs.
    pub bar: Color32,
    /// Lines between parts.
    pub line: Color32,
    /// Text that is read second.
    pub quiet: Color32,
    /// Something went wrong.
    pub error: Color32,
    /// Something is odd.
    pub warning: Color32,
    /// Something went well.
    pub good: Color32,
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

const DARK: Colors = Colors {
    accent: rgb(0x4c9dff),
    accent_fill: rgb(0x1f6fd6),
    bar: rgb(0x15171b),
    line: rgb(0x2c3038),
    quiet: rgb(0x969dab),
    error: rgb(0xff6b62),
    warning: rgb(0xf0b849),
    good: rgb(0x53c07c),
};

const LIGHT: Colors = Colors {
    accent: rgb(0x1668d6),
    accent_fill: rgb(0x1668d6),
    bar: rgb(0xe9ebef),
    line: rgb(0xd0d4db),
    quiet: rgb(0x5b6472),
    error: rgb(0xc22f26),
    warning: rgb(0x966400),
    good: rgb(0x1f7a45),
};

/// Of the bars above and below the panels; like these, they lie on the window's ground.
pub const BAR: Frame = Frame { inner_margin: Margin::symmetric(8, 2), ..Frame::NONE };

/// The colours that go with `visuals`.
pub fn colors(visuals: &Visuals) -> Colors {
    if visuals.dark_mode { DARK } else { LIGHT }
}

/// How many curves have a colour of their own.
pub const CURVES: usize = 4;

/// Colours of curves that readers with any colour vision tell apart (after Okabe and Ito), readable on both themes.
pub fn curves(visuals: &Visuals) -> [Color32; CURVES] {
    if visuals.dark_mode {
        [0x56b4e9, 0xe69f00, 0x2fc391, 0xd98ab4].map(rgb)
    } else {
        [0x0072b2, 0xb35a00, 0x007a57, 0xa3457c].map(rgb)
    }
}

/// The pictures' theme that goes with `visuals`.
pub fn scene_theme(visuals: &Visuals) -> crate::view::Theme {
    if visuals.dark_mode { crate::view::Theme::Dark } else { crate::view::Theme::Light }
}

/// Sets both themes of `context`.
pub fn install(context: &egui::Context) {
    context.set_visuals_of(Theme::Dark, visuals(Visuals::dark(), DARK, rgb(0x1b1e24), rgb(0xdfe3ea)));
    context.set_visuals_of(Theme::Light, visuals(Visuals::light(), LIGHT, rgb(0xf7f8fa), rgb(0x1d222b)));
    context.all_styles_mut(|style| {
        style.spacing.item_spacing = egui::vec2(8.0, 6.0);
        style.spacing.button_padding = egui::vec2(8.0, 3.0);
        style.spacing.interact_size.y = 22.0;
        style.spacing.slider_rail_height = 4.0;
        style.spacing.scroll = egui::style::ScrollStyle::thin();
        style.text_styles = [
            (TextStyle::Small, FontId::new(11.0, FontFamily::Proportional)),
            (TextStyle::Body, FontId::new(13.0, FontFamily::Proportional)),
            (TextStyle::Button, FontId::new(13.0, FontFamily::Proportional)),
            (TextStyle::Heading, FontId::new(18.0, FontFamily::Proportional)),
            (TextStyle::Monospace, FontId::new(12.0, FontFamily::Monospace)),
        ]
        .into();
    });
}

fn visuals(base: Visuals, colors: Colors, panel: Color32, text: Color32) -> Visuals {
    let mut visuals = base;
    visuals.panel_fill = panel;
    visuals.window_fill = panel;
    visuals.extreme_bg_color = colors.bar;
    visuals.faint_bg_color = colors.bar;
    visuals.hyperlink_color = colors.accent;
    visuals.error_fg_color = colors.error;
    visuals.warn_fg_color = colors.warning;
    visuals.selection.bg_fill = colors.accent.gamma_multiply(if visuals.dark_mode { 0.45 } else { 0.3 });
    visuals.selection.stroke = Stroke::new(1.0, if visuals.dark_mode { Color32::WHITE } else { rgb(0x0b2f66) });
    visuals.window_stroke = Stroke::new(1.0, colors.line);
    let radius = CornerRadius::same(4);
    visuals.window_corner_radius = CornerRadius::same(8);
    visuals.menu_corner_radius = CornerRadius::same(6);
    let widgets = &mut visuals.widgets;
    for widget in [
        &mut widgets.noninteractive,
        &mut widgets.inactive,
        &mut widgets.hovered,
        &mut widgets.active,
        &mut widgets.open,
    ] {
        widget.corner_radius = radius;
        widget.fg_stroke.color = text;
    }
    widgets.noninteractive.bg_stroke = Stroke::new(1.0, colors.line);
    visuals
}
