//! What the panels do, driven by the names that screen readers say.

use std::sync::Arc;

use eframe::egui::{Key, Role, Theme, vec2};

use egui_kittest::kittest::{AccessKitNode, NodeT, Queryable};
use egui_kittest::{Harness, SnapshotOptions};

use super::{Memory, sample, ui};
use crate::app::history;
use crate::app::layout::Pane;
use crate::app::rivals::Rivals;
use crate::app::scores::{Place, Scope, worst};
use crate::app::state::{Source, State};
use crate::app::style;
use crate::data::synth::{self, Level, SynthOptions};
use crate::data::{Dataset, DatasetOptions, Split};

/// One panel with what it shows.
pub struct Bench {
    pub state: State,
    pub memory: Memory,
    pane: Pane,
    asked: Option<Place>,
}

/// The panel `pane` of this size, without a window.
pub fn bench(pane: Pane, state: State, size: [f32; 2], theme: Theme) -> Harness<'static, Bench> {
    let bench = Bench { state, memory: Memory::default(), pane, asked: None };
    let draw = |panel: &mut eframe::egui::Ui, bench: &mut Bench| {
        eframe::egui::CentralPanel::no_frame().show(panel, |panel| {
            let frame = eframe::egui::Frame::new().fill(panel.visuals().panel_fill).inner_margin(8.0);
            frame.show(panel, |panel| {
                bench.asked = ui(panel, &mut bench.state, &mut bench.memory, bench.pane).or(bench.asked);
            });
        });
    };
    let builder = Harness::builder()
        .with_size(vec2(size[0] + 16.0, size[1] + 16.0))
        .with_theme(theme)
        .with_context_setup(style::install);
    builder.wgpu().build_ui_state(draw, bench)
}

/// What every panel looks like; `UPDATE_SNAPSHOTS=1 cargo test` takes new pictures, to be looked at before they are kept.
#[test]
fn every_panel_looks_as_it_did() {
    let sizes = [
        (Pane::Classes, [190.0, 620.0]),
        (Pane::Voxel, [264.0, 560.0]),
        (Pane::Confusion, [264.0, 560.0]),
        (Pane::Latents, [264.0, 640.0]),
        (Pane::Mix, [264.0, 320.0]),
        (Pane::Settings, [264.0, 640.0]),
        (Pane::Losses, [780.0, 190.0]),
        (Pane::Accuracy, [780.0, 190.0]),
        (Pane::LearningRate, [780.0, 190.0]),
        (Pane::Frames, [780.0, 190.0]),
        (Pane::PerClass, [780.0, 190.0]),
        (Pane::Compare, [780.0, 400.0]),
    ];
    assert_eq!(sizes.len(), Pane::ALL.iter().filter(|pane| !pane.is_view()).count());
    let town = tempfile::tempdir().unwrap();
    let grid = synth::grid([8, 8, 4], [1.6, 1.6, 0.75]).unwrap();
    let options = SynthOptions { grid, frames: 8, towns: [0, 1, 0], levels: vec![Level::Light], ..Default::default() };
    synth::write(town.path(), &options, |_| {}).unwrap();
    let clips = Arc::new(Dataset::open(town.path(), Split::Val, DatasetOptions::default()).unwrap());
    // One window for all of them: each window takes a software driver seconds to open.
    let mut state = sample::state();
    state.selected = Some([16, 16, 0]);
    let validated = state.history.clone();
    let source = Source { root: town.path().to_path_buf(), held_out: clips };
    let mut harness = bench(Pane::Classes, state, sizes[0].1, Theme::Dark);
    for (pane, [width, height]) in sizes {
        let bench = harness.state_mut();
        bench.pane = pane;
        let is_course = matches!(pane, Pane::Losses | Pane::Accuracy | Pane::LearningRate);
        bench.state.history = if is_course { history::tests::course() } else { validated.clone() };
        bench.state.source = (pane == Pane::Mix).then(|| source.clone());
        if pane == Pane::Compare {
            // One that is right in the first half of the clip.
            let shown = bench.state.shown.as_ref().unwrap();
            let mut model = shown.model.clone().unwrap();
            let half = shown.truth.len() / 2;
            model.labels[..half].copy_from_slice(&shown.truth[..half]);
            bench.state.rivals = Rivals::with("rival-t4-001", shown.clip, model, validated.clone());
        }
        harness.set_size(vec2(width + 16.0, height + 16.0));
        for theme in [Theme::Dark, Theme::Light] {
            harness.ctx.set_theme(theme);
            harness.run_ok();
            if pane == Pane::Settings {
                // Which adapter this machine has is no matter of looks, nor whether its name has come yet.
                let row = harness.get_by_label("Adapter").rect();
                harness.mask(row.with_max_x(width + 8.0));
            }
            let name = format!("{pane:?}-{theme:?}").to_lowercase();
            harness.snapshot_options(name, &SnapshotOptions::new().max_failed_pixels(150));
        }
    }
}

#[test]
fn the_square_toggles_a_class_and_its_row_shows_it_alone() {
    let mut harness = bench(Pane::Classes, sample::state(), [190.0, 680.0], Theme::Dark);
    harness.get_by_label("Show Road").click();
    harness.run_ok();
    assert_eq!(harness.state().state.view.hidden, [6]);
    harness.get_by_label("Show Road").click();
    harness.run_ok();
    assert!(harness.state().state.view.hidden.is_empty());
    harness.get_by_label("Only Road").click();
    harness.run_ok();
    assert_eq!(harness.state().state.view.solo, Some(6));
    harness.get_by_label("Show all classes").click();
    harness.run_ok();
    assert_eq!(harness.state().state.view.solo, None);
}

#[test]
fn the_keyboard_moves_the_ends_of_the_crop() {
    let mut harness = bench(Pane::Classes, sample::state(), [190.0, 680.0], Theme::Dark);
    harness.get_by_label("Crop y from").focus();
    harness.run_ok();
    harness.key_press(Key::ArrowRight);
    harness.key_press(Key::ArrowRight);
    harness.run_ok();
    let view = &harness.state().state.view;
    assert_eq!((view.crop_voxels(1, 32), view.crop[0]), (2..32, [0.0, 1.0]));
    harness.get_by_label("Crop z to").set_value_accesskit(3.0);
    harness.run_ok();
    assert_eq!(harness.state().state.view.crop_voxels(2, 8), 0..3);
    harness.get_by_label("Whole grid").click();
    harness.run_ok();
    assert_eq!(harness.state().state.view.crop, [[0.0, 1.0]; 3]);
}

#[test]
fn the_scope_switch_changes_whose_scores_are_told() {
    let mut harness = bench(Pane::PerClass, sample::state(), [800.0, 200.0], Theme::Dark);
    let iou = |harness: &Harness<'_, Bench>, scope: Scope| {
        let confusion = scope.confusion(&harness.state().state).unwrap();
        format!("Road: IoU {}", crate::figures::percent(confusion.class_iou(6)))
    };
    harness.get_by_label(&iou(&harness, Scope::Clip));
    harness.get_by_label("Scores of the last validation").click();
    harness.run_ok();
    harness.get_by_label(&iou(&harness, Scope::Validation));
    // Without a validation the clip stands in.
    harness.state_mut().state.validation = None;
    harness.run_ok();
    harness.get_by_label(&iou(&harness, Scope::Clip));
}

#[test]
fn a_class_leads_to_its_worst_frame() {
    let mut harness = bench(Pane::PerClass, sample::state(), [800.0, 200.0], Theme::Dark);
    let lack = |confusion: &crate::train::metrics::Confusion| confusion.class_iou(8).map(|iou| 1.0 - iou);
    let expected = worst(&harness.state().state, Scope::Clip, lack);
    harness.get_by_label_contains("Sidewalk: IoU").click();
    harness.run_ok();
    assert!(expected.is_some() && harness.state().asked == expected);
    assert_eq!(harness.state().state.view.solo, Some(8));
}

/// A button whose name begins so.
fn button(begin: &'static str) -> impl Fn(&AccessKitNode<'_>) -> bool {
    move |node| node.role() == Role::Button && node.label().is_some_and(|name| name.starts_with(begin))
}

#[test]
fn a_confusion_leads_to_where_it_happened_most() {
    for scope in [Scope::Clip, Scope::Validation] {
        let mut harness = bench(Pane::Confusion, sample::state(), [280.0, 640.0], Theme::Dark);
        harness.state_mut().memory.scope = scope;
        harness.run_ok();
        let count = |confusion: &crate::train::metrics::Confusion| Some(confusion.count(8, 6) as f64);
        let expected = worst(&harness.state().state, scope, count);
        harness.get_by(button("Sidewalk taken for Road: ")).click();
        harness.run_ok();
        assert!(expected.is_some() && harness.state().asked == expected, "{scope:?}");
        assert_eq!(harness.state().state.view.solo, Some(8));
    }
}

#[test]
fn arrow_keys_go_from_cell_to_cell_of_the_confusion() {
    let mut harness = bench(Pane::Confusion, sample::state(), [280.0, 640.0], Theme::Dark);
    harness.get_by(button("Road taken for Ground")).focus();
    harness.run_ok();
    harness.key_press(Key::ArrowRight);
    harness.run_ok();
    assert!(harness.get_by(button("Road taken for Sidewalk")).is_focused());
    // What has the focus is read below the matrix.
    let line = |node: &AccessKitNode<'_>| {
        node.role() == Role::Label && node.value().is_some_and(|text| text.starts_with("Road taken for Sidewalk: "))
    };
    harness.get_by(line);
}

#[test]
fn a_frame_and_a_validated_clip_lead_there() {
    let mut harness = bench(Pane::Frames, sample::state(), [800.0, 200.0], Theme::Dark);
    harness.get_by_label_contains("Frame 5: mIoU").click();
    harness.run_ok();
    assert_eq!(harness.state().asked, Some(Place { clip: 2, frame: 4 }));
    harness.state_mut().asked = None;
    harness.get_by_label_contains("Clip 6, worst in frame").click();
    harness.run_ok();
    let clip = harness.state().state.validation.as_ref().unwrap().clips[2].clone();
    let place = harness.state().asked.unwrap();
    assert_eq!((clip.clip, place.clip), (6, 6));
    let worst = clip.per_frame.iter().filter_map(|scores| scores.miou).fold(1.0, f64::min);
    assert_eq!(clip.per_frame[place.frame].miou, Some(worst));
}

#[test]
fn a_voxel_is_told_with_its_course() {
    let mut state = sample::state();
    let shown = state.shown.as_ref().unwrap();
    let at = shown.frame(&shown.truth, 2).iter().position(|class| *class == 6).unwrap();
    state.selected = Some([at / (32 * 8), at / 8 % 32, at % 8]);
    let mut harness = bench(Pane::Voxel, state, [280.0, 640.0], Theme::Dark);
    harness.get_by_label("Original: Road");
    harness.get_by_label_contains("Frame 4: ").click();
    harness.run_ok();
    assert_eq!(harness.state().state.playback.frame, 3);
    harness.state_mut().state.selected = None;
    harness.run_ok();
    harness.get_by_label_contains("V selects the voxel");
}

#[test]
fn latents_tell_the_value_under_the_pointer_and_at_the_keys() {
    let mut harness = bench(Pane::Latents, sample::state(), [280.0, 640.0], Theme::Dark);
    let latent = &harness.state().state.shown.as_ref().unwrap().model.as_ref().unwrap().latents[3];
    let mean: f32 = latent.mu[..6].iter().map(|mu| mu.abs()).sum::<f32>() / 6.0;
    let corner = harness.get_by_label("Latent tx").rect().left_bottom();
    harness.hover_at(corner + vec2(2.0, -2.0));
    harness.run_ok();
    let text = format!("tx: mean |μ| = {mean:.3} at frame 1, x -12.0 m");
    assert_eq!(harness.get_by_label("Latent tx").value().as_ref(), Some(&text));
    harness.remove_cursor();
    harness.get_by_label("Latent tx").focus();
    harness.run_ok();
    harness.key_press(Key::ArrowRight);
    harness.run_ok();
    assert!(harness.get_by_label("Latent tx").value().unwrap().contains("at frame 2, x -12.0 m"));
    harness.key_press(Key::Enter);
    harness.run_ok();
    assert_eq!(harness.state().state.playback.frame, 1);
    harness.get_by_label("KL").click();
    harness.run_ok();
    assert!(harness.get_by_label("Latent tx").value().unwrap().contains("mean |KL|"));
}

#[test]
fn every_panel_says_what_is_missing() {
    for pane in [Pane::Classes, Pane::Voxel, Pane::Confusion, Pane::Latents, Pane::Mix, Pane::Frames, Pane::PerClass] {
        let mut harness = bench(pane, State::default(), [280.0, 300.0], Theme::Light);
        harness.run_ok();
        let labels = harness.root().children_recursive().filter(|node| node.accesskit_node().value().is_some());
        assert!(labels.count() > 0, "{pane:?} is blank");
        let mut state = sample::state();
        state.shown.as_mut().unwrap().model = None;
        state.validation = None;
        state.history = Default::default();
        bench(pane, state, [280.0, 640.0], Theme::Light).run_ok();
    }
}
