//! Signals during a command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sep4d::signals::{StopWishes, Urgency, stop_signals};
use sep4d::{Error, Result};

/// From now on stop signals end the program at once, with `why` for the user and the exit code 128 + signal: for commands that
/// have nothing to save.
pub fn explain(why: String) {
    #[cfg(unix)]
    {
        // Without the handler the signals still end the program, only without a word.
        if let Ok(mut signals) = signal_hook::iterator::Signals::new(stop_signals()) {
            let watch = move || {
                if let Some(signal) = signals.forever().next() {
                    super::output::tell(&format!("error: stopped by signal {signal}; {why}"));
                    signal_hook::low_level::exit(128 + signal);
                }
            };
            let _ = std::thread::Builder::new().name("signals".into()).spawn(watch);
        }
    }
    #[cfg(not(unix))]
    drop(why);
}

/// What a run is asked for from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Save and go on.
    Save,
    /// Save and end, because of this signal.
    Stop(i32),
    /// End at once, because of this signal.
    Hasten(i32),
}

/// The signals that arrive during a run.
pub struct Signals {
    stop: Arc<AtomicUsize>,
    save: Arc<AtomicBool>,
    wishes: StopWishes,
}

impl Signals {
    /// Stop signals ask for a stop, and later ones for haste; SIGUSR1 and SIGUSR2 ask for a checkpoint.
    ///
    /// # Errors
    /// [`Error::Usage`] where signals cannot be handled.
    pub fn register() -> Result<Signals> {
        use signal_hook::flag;
        let signals = Signals { stop: Default::default(), save: Default::default(), wishes: StopWishes::default() };
        let register = || -> std::io::Result<()> {
            for signal in stop_signals() {
                flag::register_usize(signal, signals.stop.clone(), signal as usize)?;
            }
            #[cfg(unix)]
            for signal in [signal_hook::consts::SIGUSR1, signal_hook::consts::SIGUSR2] {
                flag::register(signal, signals.save.clone())?;
            }
            Ok(())
        };
        register().map_err(|why| Error::Usage(format!("signals cannot be handled here: {why}")))?;
        Ok(signals)
    }

    /// What was asked for since the last call, a stop before a save.
    pub fn take(&mut self) -> Option<Wish> {
        let signal = self.stop.swap(0, Ordering::Relaxed);
        if signal == 0 {
            return self.save.swap(false, Ordering::Relaxed).then_some(Wish::Save);
        }
        self.wishes.hear().map(|urgency| match urgency {
            Urgency::Orderly => Wish::Stop(signal as i32),
            Urgency::Haste => Wish::Hasten(signal as i32),
        })
    }
}
