//! Runs that the open one is compared with: their curves, and what their models make of the clip in view.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::engine::{Engine, Phase};
use super::history::History;
use super::notices::{Notices, Severity};
use super::scores::sum;
use super::shown::Reconstructed;
use super::state::{Source, State};
use crate::data::{Dataset, DatasetOptions};
use crate::models::{ALIGN, BY_POSES};
use crate::train::config::RunConfig;
use crate::train::events::Event;
use crate::train::metrics::Confusion;
use crate::train::run_folder::RunFolder;
use crate::train::trainer::Wake;
use crate::{Error, Result};

/// Why a model is not compared any more.
const OTHER_DATA: &str = "other data were opened since";

/// So many at most, beside the open run.
pub const MOST: usize = 3;

/// What run `number` is called for short: A is the open one.
pub fn letter(number: usize) -> char {
    char::from(b'A' + number as u8)
}

/// One of them.
#[derive(Debug)]
pub struct Rival {
    /// Its metrics, and what it is called.
    pub history: History,
    /// Why there is nothing of its model to see, if that is so.
    pub lack: Option<String>,
    engine: Engine,
    /// The last clip that it reconstructed.
    seen: Option<(usize, Reconstructed)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Rivals {
    /// In the order in which they were opened.
    pub list: Vec<Rival>,
    /// The number of the one that differences are shown with.
    pub against: usize,
    /// Tells one content from the next: views redraw when it changes.
    pub version: u64,
}

/// A run that was read, to be compared with.
#[derive(Debug)]
pub struct OpenedRival {
    history: History,
    /// Its model, or why that cannot be compared.
    model: std::result::Result<(RunConfig, PathBuf), String>,
    /// The clips on which it can.
    clips: Option<Arc<Dataset>>,
}

impl OpenedRival {
    /// The same where these data are open now: its model is compared only if they were when it was read.
    pub fn beside(mut self, source: Option<&Source>) -> OpenedRival {
        let now = source.map(|source| &source.held_out);
        if self.model.is_ok() && !now.zip(self.clips.as_ref()).is_some_and(|(now, then)| Arc::ptr_eq(now, then)) {
            self.model = Err(OTHER_DATA.into());
        }
        self
    }
}

/// Reads a run; its model is compared if it sees the clips of `source`.
///
/// # Errors
/// [`Error::Data`] if it is no run, or its metrics cannot be read.
pub fn open(folder: &Path, source: Option<&Source>) -> Result<OpenedRival> {
    let run = RunFolder::open(folder)?;
    let mut history = History::read(&run)?;
    let config = run.config()?;
    history.steps_per_epoch = steps_per_epoch(&config);
    let clips = source.map(|source| source.held_out.clone());
    Ok(OpenedRival { history, model: comparable(&run, config, source), clips })
}

/// Steps after which a run has seen each of its clips once, if its data are at hand.
pub fn steps_per_epoch(config: &RunConfig) -> Option<f64> {
    let data = Dataset::open(&config.data.root, config.data.train_split, config.dataset_options()).ok()?;
    Some((data.len() as f64 / (config.train.batch * config.train.accumulate) as f64).max(1.0))
}

fn comparable(
    run: &RunFolder,
    mut config: RunConfig,
    source: Option<&Source>,
) -> std::result::Result<(RunConfig, PathBuf), String> {
    let Source { root, held_out } = source.ok_or("no data are open")?;
    let (theirs, ours) = (config.dataset_options(), held_out.options());
    if theirs.frames_per_clip != ours.frames_per_clip {
        return Err(format!(
            "it was trained for clips of {} frames, those in view have {}",
            theirs.frames_per_clip, ours.frames_per_clip
        ));
    }
    let cut = |options: &DatasetOptions| (options.crop, options.stride, options.sequences.clone(), options.registered);
    if cut(&theirs) != cut(ours) {
        return Err("it cuts its clips in another way (data.crop, data.stride, data.sequences or model.align)".into());
    }
    if config.model.classes != held_out.classes().len() {
        return Err(format!("it has {} classes, the data in view {}", config.model.classes, held_out.classes().len()));
    }
    if config.model.choice(ALIGN) == BY_POSES && !held_out.has_poses() {
        return Err("it aligns frames by poses, which the data in view lack".into());
    }
    config.data.root.clone_from(root);
    config.data.val_split = held_out.split();
    let checkpoints = run.checkpoints();
    let file = checkpoints.best_path().or_else(|_| checkpoints.latest_path()).map_err(|why| why.to_string())?;
    Ok((config, file))
}

impl Rival {
    /// What it makes of clip `clip`, once that is known.
    pub fn of_clip(&self, clip: usize) -> Option<&Reconstructed> {
        self.seen.as_ref().filter(|(seen, _)| *seen == clip).map(|(_, model)| model)
    }

    /// What it does while there is nothing to see, or why there never will be anything.
    pub fn hint(&self) -> String {
        match (&self.lack, &self.engine.phase) {
            (Some(why), _) => format!("Only the curves of {} are compared: {why}.", self.history.name),
            (None, Phase::Preparing { what, .. }) => format!("{}: {what}…", self.history.name),
            _ => format!("{}: one moment…", self.history.name),
        }
    }
}

impl Rivals {
    /// Takes in a run that was opened, and asks its model for clip `clip`.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is there already or there are too many; [`Error::Device`] if no thread can be started.
    pub fn add(&mut self, opened: OpenedRival, wake: Option<Wake>, clip: usize) -> Result<()> {
        let OpenedRival { history, model, .. } = opened;
        let same = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        if self.list.iter().any(|rival| same(&rival.history.folder) == same(&history.folder)) {
            return Err(Error::Usage(format!("{} is compared with already", history.folder.display())));
        }
        if self.list.len() == MOST {
            return Err(Error::Usage(format!("at most {} runs are compared at once; close one", MOST + 1)));
        }
        let mut rival = Rival { lack: None, engine: Engine::default(), seen: None, history };
        rival.engine.wake = wake;
        match model {
            Ok((config, file)) => {
                rival.engine.show(config, rival.history.folder.clone(), file)?;
                rival.engine.ask(clip);
            }
            Err(why) => rival.lack = Some(why),
        }
        self.list.push(rival);
        self.version += 1;
        Ok(())
    }

    /// Lets go of one.
    pub fn remove(&mut self, number: usize) {
        if number < self.list.len() {
            // Dropped here, it would keep the window waiting.
            self.list.remove(number).engine.leave();
            self.against = if self.against > number { self.against - 1 } else { self.against };
            self.against = self.against.min(self.list.len().saturating_sub(1));
            self.version += 1;
        }
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.list.drain(..).for_each(|mut rival| rival.engine.leave());
        self.against = 0;
        self.version += 1;
    }

    /// Lets go of all models, because other data were opened; curves stay.
    pub fn leave_clips(&mut self) {
        for rival in &mut self.list {
            rival.engine.leave();
            rival.seen = None;
            rival.lack = Some(OTHER_DATA.into());
        }
        self.version += 1;
    }

    /// Asks all models for clip `clip`.
    pub fn ask(&mut self, clip: usize) {
        self.list.iter_mut().for_each(|rival| rival.engine.ask(clip));
    }

    /// Takes in what was told about clip `clip`.
    pub fn take_in(&mut self, clip: usize, notices: &mut Notices) {
        for rival in &mut self.list {
            while let Some(event) = rival.engine.next_event() {
                match event {
                    Event::Showing(_) | Event::Recovered { .. } => rival.engine.ask(clip),
                    Event::Reconstruction(mut told) if told.clip == clip => {
                        let voxels = told.size.iter().product();
                        match Reconstructed::of(&mut told, voxels) {
                            Ok(model) => rival.seen = Some((clip, model)),
                            Err(why) => notices.error(&why),
                        }
                        self.version += 1;
                    }
                    Event::Failed(why) => {
                        rival.lack = Some(why.to_string());
                        notices.error(&why);
                        self.version += 1;
                    }
                    Event::Warning(text) => {
                        notices.add(Severity::Warning, format!("{}: {text}", rival.history.name));
                    }
                    _ => {}
                }
            }
        }
    }
}

impl State {
    /// What run `number` beside the open one makes of the clip in view, once that is known.
    pub fn rival(&self, number: usize) -> Option<&Reconstructed> {
        self.rivals.list.get(number)?.of_clip(self.shown.as_ref()?.clip)
    }

    /// The labels of frame `t` of the open run's model, and of the one that it is compared with.
    pub fn compared_labels(&self, t: usize) -> Option<[&[u8]; 2]> {
        let shown = self.shown.as_ref()?;
        Some([self.model_labels(t)?, shown.frame(&self.rival(self.rivals.against)?.labels, t)])
    }

    /// The names of all runs that are compared, the open one first.
    pub fn compared_names(&self) -> Vec<String> {
        let own = match self.history.name.as_str() {
            "" => "open model".to_owned(),
            name => name.to_owned(),
        };
        std::iter::once(own).chain(self.rivals.list.iter().map(|rival| rival.history.name.clone())).collect()
    }

    /// What each of them takes for what in the clip in view, the open one first; `None` where that is not known.
    pub fn compared_confusions(&self) -> Vec<Option<Confusion>> {
        let own = self.shown.as_ref().and_then(|shown| shown.model.as_ref());
        let all = std::iter::once(own).chain((0..self.rivals.list.len()).map(|number| self.rival(number)));
        all.map(|model| sum(&model?.confusion)).collect()
    }

    /// The frame of the clip in view at which the mIoU of the two compared models differs most.
    pub fn widest_difference(&self) -> Option<usize> {
        let own = self.shown.as_ref()?.model.as_ref()?;
        let other = self.rival(self.rivals.against)?;
        let gaps = own.scores.iter().zip(&other.scores).map(|(a, b)| Some((a.miou? - b.miou?).abs()));
        let gaps: Vec<Option<f64>> = gaps.collect();
        let widest = (0..gaps.len()).filter(|&t| gaps[t].is_some());
        widest.max_by(|&a, &b| gaps[a].partial_cmp(&gaps[b]).unwrap_or(std::cmp::Ordering::Equal).then(b.cmp(&a)))
    }
}

#[cfg(test)]
impl OpenedRival {
    /// A run of which only curves are compared.
    pub fn of_curves(history: History) -> OpenedRival {
        OpenedRival { history, model: Err("nothing is known of it".into()), clips: None }
    }
}

#[cfg(test)]
impl Rivals {
    /// With a rival that makes `model` of clip `clip`.
    pub fn with(name: &str, clip: usize, model: Reconstructed, history: History) -> Rivals {
        let history = History { name: name.into(), folder: name.into(), ..history };
        let rival = Rival { history, lack: None, engine: Engine::default(), seen: Some((clip, model)) };
        Rivals { list: vec![rival], against: 0, version: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::super::panels::sample;
    use super::*;

    fn compared() -> State {
        let mut state = sample::state();
        let mut model = state.shown.as_ref().unwrap().model.clone().unwrap();
        // The other is right in frame 4, and as wrong elsewhere.
        let shown = state.shown.as_ref().unwrap();
        let voxels = shown.grid.voxels();
        let range = 4 * voxels..5 * voxels;
        model.labels[range.clone()].copy_from_slice(&shown.truth[range]);
        model.scores[4].miou = Some(1.0);
        state.rivals = Rivals::with("other", shown.clip, model, History::default());
        state
    }

    #[test]
    fn the_widest_difference_is_where_one_of_them_is_better() {
        let mut state = compared();
        assert_eq!(state.widest_difference(), Some(4));
        assert_eq!(state.compared_names(), ["open model", "other"]);
        assert_eq!(state.compared_confusions().iter().flatten().count(), 2);
        state.shown.as_mut().unwrap().clip += 1;
        assert!(state.rival(0).is_none() && state.widest_difference().is_none());
    }

    #[test]
    fn the_one_that_is_compared_stays_when_another_goes() {
        let mut rivals = compared().rivals;
        for name in ["second", "third"] {
            let model = rivals.list[0].seen.clone().unwrap().1;
            rivals.list.push(Rivals::with(name, 2, model, History::default()).list.remove(0));
        }
        rivals.against = 2;
        rivals.remove(0);
        assert_eq!((rivals.against, rivals.list[rivals.against].history.name.as_str()), (1, "third"));
        rivals.remove(1);
        assert_eq!((rivals.against, rivals.list.len()), (0, 1));
        let folder = rivals.list[0].history.folder.clone();
        let again =
            OpenedRival { history: History { folder, ..History::default() }, model: Err("no".into()), clips: None };
        assert!(rivals.add(again, None, 0).unwrap_err().to_string().contains("already"));
    }
}
