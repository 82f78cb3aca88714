//! The trainer: one thread that owns the session and obeys between steps.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::config::RunConfig;
use super::events::{Command, Event, Preparing};
use crate::gpu::{BuildProgress, Context};
use crate::kernel::BoundKernel;
use crate::{Error, Result};

mod prepare;
mod run;
mod serve;
mod show;

use prepare::Prepared;

/// Commands and events under way.
const COMMANDS: usize = 16;
const EVENTS: usize = 64;

/// Of a thread in the background; beside busy threads of normal priority it gets a few percent of a core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 15;

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

/// Where a run is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this folder.
    At(PathBuf),
    /// In the first free folder `<parent>/<name>-001`, `-002`..., taken once the run can begin.
    Next {
        /// The folder above.
        parent: PathBuf,
        /// What the folder's name begins with.
        name: String,
    },
}

impl Place {
    /// Where a new run of `config` is kept: in its `output.dir`, or where that is empty in the next free folder below `runs`.
    pub fn of(config: &RunConfig, runs: &Path) -> Place {
        match &config.output.dir {
            dir if dir.as_os_str().is_empty() => {
                let name = format!("{}-t{}", config.train.preset.name(), config.data.frames);
                Place::Next { parent: runs.to_path_buf(), name }
            }
            dir => Place::At(dir.clone()),
        }
    }

    /// The folder, if it is known already.
    pub fn known(&self) -> Option<&Path> {
        match self {
            Place::At(path) => Some(path),
            Place::Next { .. } => None,
        }
    }
}

/// A run to begin, to go on with, or to look at.
#[derive(Debug, Clone)]
pub struct Request {
    /// The whole configuration. To show a model, only its `data.root`, `data.val_split` and `train.device` count, and where
    /// `data.root` is empty that of the model; the rest comes with the model.
    pub config: RunConfig,
    /// The run folder; that of a run to go on with, or to look at, is known.
    pub place: Place,
    /// To train or to show.
    pub task: Task,
    /// Give way to the other threads of this machine, such as those that draw a window (on Linux; nothing elsewhere).
    pub background: bool,
    /// The command line, for the record.
    pub command_line: Vec<String>,
    /// Called on the trainer's thread whenever there is an event to take, for listeners that sleep.
    pub wake: Option<Wake>,
}

/// What wakes a listener. It is called often, and must not block.
#[derive(Clone)]
pub struct Wake(pub Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
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
            let wake = request.wake.clone();
            let port = Port { commands, pending: VecDeque::new(), events, wake, closed: false };
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
    wake: Option<Wake>,
    closed: bool,
}

impl Port {
    fn tell(&mut self, event: Event) {
        self.closed |= self.events.send(event).is_err();
        self.wake();
    }

    /// Tells what the next one of its kind will replace: left out if the consumer does not keep up.
    fn mention(&mut self, event: Event) {
        self.closed |= matches!(self.events.try_send(event), Err(TrySendError::Disconnected(_)));
        self.wake();
    }

    fn wake(&self) {
        if let Some(Wake(wake)) = &self.wake {
            wake();
        }
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
        context.build(kernels, |BuildProgress { done, all, left }| {
            let event = Event::Preparing(Preparing { what: what.clone(), done, total: all, left });
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

#[cfg(test)]
mod tests;
