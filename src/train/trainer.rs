//! The trainer: one thread that owns the session and obeys between steps.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::config::RunConfig;
use super::events::{Command, Event, Preparing};
use crate::gpu::{BoundKernel, Context};
use crate::{Error, Result};

mod prepare;
mod run;
mod serve;
mod show;

use prepare::Prepared;

/// Commands and events under way.
const COMMANDS: usize = 16;
const EVENTS: usize = 64;

/// Of a thread in the background; beside a busy thread of normal priority it gets about a tenth of a core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// What a trainer is started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Train.
    Train {
        /// Go on from the last checkpoint in the folder.
        resume: bool,
    },
    /// Show a model on the validation split without training or writing anything, until [`Command::Stop`].
    Show {
        /// The model file.
        checkpoint: PathBuf,
    },
}

/// A run to begin, to go on with, or to look at.
#[derive(Debug, Clone)]
pub struct Request {
    /// The whole configuration. To show a model, only its `data.root`, `data.val_split` and `train.device` count, and where
    /// `data.root` is empty that of the model; the rest comes with the model.
    pub config: RunConfig,
    /// The run folder.
    pub folder: PathBuf,
    /// To train or to show.
    pub task: Task,
    /// Give way to the other threads of this machine, such as those that draw a window (on Linux; nothing elsewhere).
    pub background: bool,
    /// The command line, for the record.
    pub command_line: Vec<String>,
}

/// So many losses of the device without any progress in between end a run.
const MOST_LOSSES: u32 = 3;

/// A running trainer. Dropping it stops the run, which saves first.
#[derive(Debug)]
pub struct Trainer {
    commands: Option<SyncSender<Command>>,
    events: Option<Receiver<Event>>,
    thread: Option<JoinHandle<()>>,
}

impl Trainer {
    /// Starts the trainer's thread; what goes wrong there arrives as [`Event::Failed`].
    ///
    /// # Errors
    /// [`Error::Device`] if the thread cannot be started.
    pub fn start(request: Request) -> Result<Trainer> {
        let (command_sender, commands) = sync_channel(COMMANDS);
        let (events, event_receiver) = sync_channel(EVENTS);
        let thread = move || {
            let port = Port { commands, pending: VecDeque::new(), events, closed: false };
            work(request, port);
        };
        let thread = std::thread::Builder::new()
            .name("trainer".into())
            .spawn(thread)
            .map_err(|why| Error::Device(format!("the trainer's thread cannot be started: {why}")))?;
        Ok(Trainer { commands: Some(command_sender), events: Some(event_receiver), thread: Some(thread) })
    }

    /// Gives an order; false if the trainer has ended, or too many orders wait already.
    pub fn send(&self, command: Command) -> bool {
        self.commands.as_ref().is_some_and(|commands| commands.try_send(command).is_ok())
    }

    /// The next event, if there is one within `timeout`.
    ///
    /// # Errors
    /// [`Error::Device`] if the thread has ended without [`Event::Finished`] or [`Event::Failed`].
    pub fn next_event(&self, timeout: Duration) -> Result<Option<Event>> {
        match self.events.as_ref().map(|events| events.recv_timeout(timeout)) {
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(RecvTimeoutError::Timeout)) => Ok(None),
            Some(Err(RecvTimeoutError::Disconnected)) | None => {
                Err(Error::Device("the trainer ended unexpectedly; go on from its last checkpoint (--resume)".into()))
            }
        }
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        drop(self.commands.take());
        drop(self.events.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported on its own.
            let _ = thread.join();
        }
    }
}

/// The trainer's end of both channels.
struct Port {
    commands: Receiver<Command>,
    pending: VecDeque<Command>,
    events: SyncSender<Event>,
    closed: bool,
}

impl Port {
    fn tell(&mut self, event: Event) {
        self.closed |= self.events.send(event).is_err();
    }

    /// Tells what the next one of its kind will replace: left out if the consumer does not keep up.
    fn mention(&mut self, event: Event) {
        self.closed |= matches!(self.events.try_send(event), Err(TrySendError::Disconnected(_)));
    }

    /// Takes in what was ordered; waits for an order if `wait`.
    fn listen(&mut self, wait: bool) {
        if wait && self.pending.is_empty() {
            match self.commands.recv() {
                Ok(command) => self.queue(command),
                Err(_) => self.closed = true,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.queue(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Builds `kernels`, telling how far it is, until all are there or a stop is wanted; false for the latter.
    fn build(&mut self, context: &Context, kernels: &[BoundKernel]) -> Result<bool> {
        let what = format!("building the kernels for {}", context.adapter.name);
        context.build(kernels, |done| {
            let event = Event::Preparing(Preparing { what: what.clone(), done, total: kernels.len() });
            if done == 0 {
                self.tell(event)
            } else {
                self.mention(event)
            }
            !self.stop_wanted()
        })
    }

    fn queue(&mut self, command: Command) {
        self.pending.retain(|waiting| !command.replaces(waiting));
        self.pending.push_back(command);
    }

    fn stop_wanted(&mut self) -> bool {
        self.listen(false);
        self.closed || self.pending.contains(&Command::Stop)
    }
}

fn work(request: Request, mut port: Port) {
    if request.background {
        give_way();
    }
    let end = match request.task.clone() {
        Task::Train { resume } => prepare::prepare(request, resume, &mut port).and_then(|begun| match begun {
            Prepared::Ready(mut run, session) => run.train(*session, &mut port),
            Prepared::Stopped(finished) => Ok(finished),
        }),
        Task::Show { checkpoint } => show::show(&request, &checkpoint, &mut port),
    };
    port.tell(match end {
        Ok(finished) => Event::Finished(finished),
        Err(why) => Event::Failed(why),
    });
}

/// Lowers the priority of this thread, and with it of those that it starts, a software adapter's among them.
fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // No process named means this thread; where it is not allowed, the thread keeps its priority.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    }
}

// Here is what only the crate itself can provoke: orders that wait together, and a device that is lost.
#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::data::synth::{self, Level, SynthOptions};
    use crate::train::checkpoint::Checkpoint;
    use crate::train::config::Preset;
    use crate::train::events::DecodeRequest;
    use crate::train::run_folder::RunFolder;

    fn config(parent: &Path) -> RunConfig {
        let grid = synth::grid([16, 16, 4], [1.6, 1.6, 0.75]).unwrap();
        let options = SynthOptions { grid, seed: 3, frames: 6, towns: [1, 1, 0], levels: vec![Level::Light] };
        let town = parent.join("town");
        synth::write(&town, &options, |_| {}).unwrap();
        let mut config = RunConfig::preset(Preset::Tiny, None);
        config.data.root = town;
        config.data.augment = true;
        config.data.validation_clips = 2;
        config.train.steps = 8;
        config.train.validate_every = 8;
        config.train.checkpoint_every = 0;
        config.train.log_every = 4;
        config.train.keep_last = 5;
        config
    }

    fn start(config: &RunConfig, folder: &Path, task: Task) -> Trainer {
        let (config, folder) = (config.clone(), folder.to_path_buf());
        Trainer::start(Request { config, folder, task, background: false, command_line: vec![] }).unwrap()
    }

    /// The next event that `wanted` takes.
    fn wait<R>(trainer: &Trainer, mut wanted: impl FnMut(&Event) -> Option<R>) -> R {
        for _ in 0..600 {
            let event = trainer.next_event(Duration::from_secs(1)).unwrap();
            if let Some(result) = event.as_ref().and_then(&mut wanted) {
                return result;
            }
            assert!(!matches!(event, Some(Event::Failed(_) | Event::Finished(_))), "{event:?}");
        }
        panic!("nothing came");
    }

    fn paused(event: &Event) -> Option<()> {
        matches!(event, Event::Paused(true)).then_some(())
    }

    fn recovered(event: &Event) -> Option<(u32, String)> {
        if let Event::Recovered { step, why } = event { Some((*step, why.clone())) } else { None }
    }

    fn step(trainer: &Trainer) {
        assert!(trainer.send(Command::Step));
        wait(trainer, paused);
    }

    fn checkpoint(folder: &Path, step: u32) -> Checkpoint {
        Checkpoint::load(&folder.join(format!("checkpoints/step-{step:08}.safetensors"))).unwrap()
    }

    /// Losses and scores without the times that they took.
    fn curve(folder: &Path) -> Vec<String> {
        let history = RunFolder::open(folder).unwrap().history().unwrap();
        let steps = history.steps.iter().map(|m| format!("{} {} {}", m.step, m.loss, m.gradient_norm));
        steps
            .chain(history.validations.iter().map(|m| format!("{} {:?} {:?}", m.step, m.is_best, m.confusion)))
            .collect()
    }

    #[test]
    fn a_run_survives_the_loss_of_its_device_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
        let finished = |event: &Event| matches!(event, Event::Finished(_)).then_some(());
        wait(&start(&config, &whole, Task::Train { resume: false }), finished);

        let trainer = start(&config, &broken, Task::Train { resume: false });
        trainer.send(Command::Pause);
        wait(&trainer, paused);
        for _ in 0..6 {
            step(&trainer);
        }
        // The next step finds out. The host knows the state after step 4, or a later one on a machine that is slow enough to
        // report every step.
        trainer.send(Command::LoseDevice);
        trainer.send(Command::Step);
        let mut saved = None;
        let (step, why) = wait(&trainer, |event| {
            if let Event::Checkpoint { step, .. } = event {
                saved = Some(*step);
            }
            recovered(event)
        });
        assert!((4..=6).contains(&step) && saved == Some(step), "{step} {saved:?}");
        assert!(why.contains("lost"), "{why}");
        wait(&trainer, paused);
        trainer.send(Command::Resume);
        wait(&trainer, finished);
        assert_eq!(checkpoint(&broken, 8), checkpoint(&whole, 8));
        assert_eq!(curve(&broken), curve(&whole));
    }

    #[test]
    fn a_device_that_is_lost_again_and_again_ends_the_run_which_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let folder = dir.path().join("run");
        let trainer = start(&config, &folder, Task::Train { resume: false });
        trainer.send(Command::Pause);
        wait(&trainer, paused);
        step(&trainer);
        for _ in 1..MOST_LOSSES {
            trainer.send(Command::LoseDevice);
            trainer.send(Command::Step);
            assert_eq!(wait(&trainer, recovered).0, 1);
            wait(&trainer, paused);
        }
        trainer.send(Command::LoseDevice);
        trainer.send(Command::Step);
        let why = wait(&trainer, |event| if let Event::Failed(why) = event { Some(why.clone()) } else { None });
        assert_eq!(why.exit_code(), 4, "{why}");
        assert_eq!(checkpoint(&folder, 1).state.steps, 1);
    }

    #[test]
    fn a_model_is_shown_again_after_its_device_was_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.train.steps = 1;
        let folder = dir.path().join("run");
        let trainer = start(&config, &folder, Task::Train { resume: false });
        let checkpoint =
            wait(&trainer, |event| if let Event::Finished(end) = event { end.checkpoint.clone() } else { None });
        let trainer = start(&config, &folder, Task::Show { checkpoint });
        let labels =
            |event: &Event| if let Event::Reconstruction(clip) = event { Some(clip.labels.clone()) } else { None };
        trainer.send(Command::Reconstruct { clip: 0 });
        let before = wait(&trainer, labels);
        trainer.send(Command::LoseDevice);
        trainer.send(Command::Reconstruct { clip: 0 });
        assert_eq!(wait(&trainer, recovered).0, 1);
        trainer.send(Command::Reconstruct { clip: 0 });
        assert_eq!(wait(&trainer, labels), before);
    }

    #[test]
    fn of_orders_that_wait_only_the_last_of_its_kind_is_carried_out() {
        let (_commands, receiver) = sync_channel(1);
        let (events, _receiver) = sync_channel(1);
        let mut port = Port { commands: receiver, pending: VecDeque::new(), events, closed: false };
        let decode = |id| Command::Decode(Arc::new(DecodeRequest { id, planes: vec![] }));
        let (zero, one) = (Command::Reconstruct { clip: 0 }, Command::Reconstruct { clip: 1 });
        for command in
            [decode(1), zero.clone(), decode(2), one.clone(), zero.clone(), Command::Step, Command::Step, decode(3)]
        {
            port.queue(command);
        }
        assert_eq!(Vec::from(port.pending), [one, zero, Command::Step, Command::Step, decode(3)]);
    }
}
