//! The trainer: one thread that owns the session and obeys between steps.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::config::RunConfig;
use super::events::{Command, Event};
use crate::{Error, Result};

mod run;

use run::Prepared;

/// Commands and events under way.
const COMMANDS: usize = 16;
const EVENTS: usize = 64;

/// A run to begin or to go on with.
#[derive(Debug, Clone)]
pub struct Request {
    /// The whole configuration.
    pub config: RunConfig,
    /// The run folder.
    pub folder: PathBuf,
    /// Go on from the last checkpoint in the folder.
    pub resume: bool,
    /// The command line, for the record.
    pub command_line: Vec<String>,
}

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
                Ok(command) => self.pending.push_back(command),
                Err(_) => self.closed = true,
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.pending.push_back(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn stop_wanted(&mut self) -> bool {
        self.listen(false);
        self.closed || self.pending.contains(&Command::Stop)
    }
}

fn work(request: Request, mut port: Port) {
    let end = run::Run::prepare(request, &mut port).and_then(|begun| match begun {
        Prepared::Ready(mut run) => run.train(&mut port),
        Prepared::Stopped(finished) => Ok(finished),
    });
    port.tell(match end {
        Ok(finished) => Event::Finished(finished),
        Err(why) => Event::Failed(why),
    });
}
