//! What the panels do, driven by the names that screen readers say.

use eframe::egui::{Theme, vec2};
use egui_kittest::Harness;

use super::{Memory, sample, ui};
use crate::app::layout::Pane;
use crate::app::scores::Place;
use crate::app::state::State;
use crate::app::style;

struct Bench {
    state: State,
    memory: Memory,
    pane: Pane,
    asked: Option<Place>,
}

fn bench(pane: Pane, state: State, size: [f32; 2], theme: Theme) -> Harness<'static, Bench> {
    let bench = Bench { state, memory: Memory::default(), pane, asked: None };
    let draw = |panel: &mut eframe::egui::Ui, bench: &mut Bench| {
        eframe::egui::CentralPanel::no_frame().show(panel, |panel| {
            let fill = panel.visuals().panel_fill;
            panel.painter().rect_filled(panel.max_rect(), 0.0, fill);
            bench.asked = ui(panel, &mut bench.state, &mut bench.memory, bench.pane).or(bench.asked);
        });
    };
    let builder = Harness::builder()
        .with_size(vec2(size[0] + 16.0, size[1] + 16.0))
        .with_theme(theme)
        .with_context_setup(style::install);
    builder.wgpu().build_ui_state(draw, bench)
}

#[test]
#[ignore = "draws pictures for the eye"]
fn pictures() {
    let out = std::env::var("PICTURES").unwrap();
    let only = std::env::var("ONLY").unwrap_or_default();
    let sizes: [(Pane, &str, [f32; 2]); 12] = [
        (Pane::Classes, "classes", [190.0, 680.0]),
        (Pane::Classes, "classes-wide", [380.0, 1200.0]),
        (Pane::Voxel, "voxel", [280.0, 640.0]),
        (Pane::Confusion, "confusion", [280.0, 640.0]),
        (Pane::Confusion, "confusion-wide", [560.0, 1200.0]),
        (Pane::Planes, "planes", [280.0, 640.0]),
        (Pane::Planes, "planes-wide", [800.0, 420.0]),
        (Pane::Latents, "latents", [280.0, 640.0]),
        (Pane::Frames, "frames", [800.0, 200.0]),
        (Pane::PerClass, "per-class", [800.0, 200.0]),
        (Pane::Frames, "frames-narrow", [280.0, 640.0]),
        (Pane::PerClass, "per-class-narrow", [280.0, 640.0]),
    ];
    for theme in [Theme::Dark, Theme::Light] {
        let mut sheet = image::RgbaImage::new(1, 1);
        for (pane, name, size) in sizes.into_iter().filter(|(_, name, _)| only.split(',').any(|o| name.contains(o))) {
            let mut state = sample::of_size([64, 64, 8], 16);
            let truth = &state.shown.as_ref().unwrap().truth;
            let at = truth[32 * 64 * 8..].iter().position(|class| *class == 6).unwrap() + 32 * 64 * 8;
            state.selected = Some([at / (64 * 8), at / 8 % 64, at % 8]);
            if pane == Pane::Latents {
                // The panel wants a data set to choose B from.
                let folder = std::env::temp_dir().join("sep4d-panels-town");
                let options = crate::data::synth::SynthOptions {
                    grid: crate::data::synth::grid([16, 16, 8], [0.8, 0.8, 0.375]).unwrap(),
                    frames: 8,
                    ..Default::default()
                };
                crate::data::synth::write(&folder, &options, |_| {}).ok();
                let set = crate::data::Dataset::open(&folder, crate::data::Split::Val, Default::default()).unwrap();
                state.source = Some(crate::app::state::Source { root: folder, held_out: set.into() });
            }
            let mut harness = bench(pane, state, size, theme);
            if theme == Theme::Light && pane == Pane::Classes {
                harness.state_mut().state.view.coloring = crate::app::view::Coloring::Uncertainty;
                harness.state_mut().state.view.toggle_class(3);
                harness.state_mut().state.view.safe_colors = true;
            }
            harness.run();
            let picture = harness.render().unwrap();
            let mut wider =
                image::RgbaImage::new(sheet.width() + picture.width(), sheet.height().max(picture.height()));
            image::imageops::replace(&mut wider, &sheet, 0, 0);
            image::imageops::replace(&mut wider, &picture, sheet.width().into(), 0);
            sheet = wider;
        }
        sheet.save(format!("{out}/{only}-{theme:?}.png")).unwrap();
    }
}
