//! What a view draws: a grid of ids, which of them show, and their colours.

use std::borrow::Cow;

use crate::app::layout::Pane;
use crate::app::state::State;
use crate::app::view::Coloring;
use crate::view::error_view::visible_outcomes;
use crate::view::{ClassMask, Palette, Theme, Visible, VoxelOutcome, heat_palette};

/// One frame of one view.
#[derive(Debug)]
pub struct Labels<'a> {
    /// Ids `[X, Y, Z]`: classes, outcomes, or entropies.
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
        match pane {
            Pane::Original => Some(classes_of(Cow::Borrowed(truth))),
            Pane::Reconstruction => {
                let labels = state.model_labels(t)?;
                match (view.coloring, state.model_likely(t)) {
                    (Coloring::Uncertainty, Some(likely)) => {
                        let heat = labels.iter().zip(likely).map(|(&label, likely)| {
                            if view.shows(label) { 1 + (likely.entropy() * 254.0).round() as u8 } else { 0 }
                        });
                        Some(derived(heat.collect()))
                    }
                    _ => Some(classes_of(Cow::Borrowed(labels))),
                }
            }
            _ => {
                let (labels, observed) = (state.model_labels(t)?, shown.frame(&shown.observed, t));
                Some(derived(visible_outcomes(truth, labels, Some(observed), &visible.classes)))
            }
        }
    }
}

/// The colours of `pane`'s ids.
pub fn palette(state: &State, pane: Pane, theme: Theme) -> Palette {
    let uncertain = state.view.coloring == Coloring::Uncertainty && state.model_likely(state.frame()).is_some();
    match (pane, &state.shown) {
        (Pane::Error, _) => VoxelOutcome::palette(theme),
        (Pane::Reconstruction, _) if uncertain => heat_palette(theme),
        (_, Some(shown)) => Palette::from_colors(shown.colors(state.view.safe_colors).iter().copied()),
        _ => Palette::default(),
    }
}
