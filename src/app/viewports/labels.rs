//! What a view draws: a grid of ids, which of them show, and their colours.

use std::borrow::Cow;

use crate::app::layout::Pane;
use crate::app::shown::{Reconstructed, Shown};
use crate::app::state::State;
use crate::app::view::{Coloring, View};
use crate::train::events::Likely;
use crate::view::difference::{Verdict, verdicts};
use crate::view::error_view::visible_outcomes;
use crate::view::{ClassMask, Palette, Theme, Visible, VoxelOutcome, heat_palette};

/// One frame of one view.
#[derive(Debug)]
pub struct Labels<'a> {
    /// Ids `[X, Y, Z]`: classes, outcomes, verdicts, or entropies.
    pub ids: Cow<'a, [u8]>,
    /// Which of them are drawn and can be picked.
    pub visible: Visible,
}

impl Labels<'_> {
    /// What `pane` draws of the frame in view; `None` if there is nothing to draw.
    pub fn of(state: &State, pane: Pane) -> Option<Labels<'_>> {
        let shown = state.shown.as_ref()?;
        let t = state.frame();
        let view = &state.view;
        let size = shown.grid.size;
        let visible = view.visible(size);
        let truth = shown.frame(&shown.truth, t);
        let classes_of = |ids| Labels { ids, visible: visible.clone() };
        // Ids that are no classes hide with the classes they belong to.
        let derived = |ids: Vec<u8>| Labels {
            ids: Cow::Owned(ids),
            visible: Visible { classes: ClassMask::all(), ..visible.clone() },
        };
        let observed = shown.frame(&shown.observed, t);
        let errors = |labels| derived(visible_outcomes(truth, labels, Some(observed), &visible.classes));
        let model = |labels, likely| match (view.coloring, likely) {
            (Coloring::Uncertainty, Some(likely)) => derived(heat(view, labels, likely)),
            (Coloring::Errors, _) => errors(labels),
            _ => classes_of(Cow::Borrowed(labels)),
        };
        match pane {
            Pane::Original => Some(classes_of(Cow::Borrowed(truth))),
            Pane::Reconstruction => Some(model(state.model_labels(t)?, state.model_likely(t))),
            Pane::Rival(number) => {
                let rival = state.rival(number.into())?;
                Some(model(shown.frame(&rival.labels, t), rival_likely(shown, rival, t)))
            }
            Pane::Difference => Some(derived(verdicts(truth, state.compared_labels(t)?, observed, &visible.classes))),
            _ => Some(errors(state.model_labels(t)?)),
        }
    }
}

/// Entropies from 1 to 255 of the voxels whose class is drawn.
fn heat(view: &View, labels: &[u8], likely: &[Likely]) -> Vec<u8> {
    let heat = |(&label, likely): (&u8, &Likely)| {
        if view.shows(label) { 1 + (likely.entropy() * 254.0).round() as u8 } else { 0 }
    };
    labels.iter().zip(likely).map(heat).collect()
}

fn rival_likely<'a>(shown: &Shown, rival: &'a Reconstructed, t: usize) -> Option<&'a [Likely]> {
    Some(shown.frame(&rival.likely, t)).filter(|likely| !likely.is_empty())
}

/// The colours of `pane`'s ids.
pub fn palette(state: &State, pane: Pane, theme: Theme) -> Palette {
    let t = state.frame();
    let likely = match pane {
        Pane::Reconstruction => state.model_likely(t),
        Pane::Rival(number) => state
            .shown
            .as_ref()
            .zip(state.rival(number.into()))
            .and_then(|(shown, rival)| rival_likely(shown, rival, t)),
        _ => None,
    };
    match (pane, state.view.coloring, &state.shown) {
        (Pane::Error, ..) | (Pane::Reconstruction | Pane::Rival(_), Coloring::Errors, _) => {
            VoxelOutcome::palette(theme)
        }
        (Pane::Difference, ..) => Verdict::palette(theme),
        (_, Coloring::Uncertainty, _) if likely.is_some() => heat_palette(theme),
        (_, _, Some(shown)) => Palette::from_colors(shown.colors(state.view.safe_colors).iter().copied()),
        _ => Palette::default(),
    }
}
