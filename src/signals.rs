//! Signals that ask the program to end: which they are, and when they ask again.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Stop signals that come within this time are one wish: terminals, `timeout` and batch systems signal a process and its group.
const ONE_WISH: Duration = Duration::from_secs(3);

/// The signals that ask a program to end and can be answered, less those that whoever started it wants ignored, as `nohup`
/// does with SIGHUP and a shell with the SIGINT of what it runs in the background.
#[cfg(unix)]
pub fn stop_signals() -> impl Iterator<Item = i32> {
    use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGVTALRM, SIGXCPU};
    let everywhere = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGVTALRM, SIGPROF, SIGXCPU, SIGIO];
    #[cfg(target_os = "linux")]
    let own = [libc::SIGPWR, libc::SIGSTKFLT];
    #[cfg(not(target_os = "linux"))]
    let own: [i32; 0] = [];
    everywhere.into_iter().chain(own).filter(|&signal| !is_ignored(signal))
}

#[cfg(not(unix))]
pub fn stop_signals() -> impl Iterator<Item = i32> {
    [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM].into_iter()
}

#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: no action is set; that of `signal` is written to a place that is large enough, or nothing is and it stays zero.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// From now on a file that grows beyond `ulimit -f` is an error to be told, and does not end the program without a word.
pub fn survive_file_limits() {
    #[cfg(unix)]
    {
        // Handled at all, the signal makes the write fail; without the handler it ends the program as ever.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)));
    }
}

/// How soon the program is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Once everything is saved.
    Orderly,
    /// At once.
    Haste,
}

/// What stop signals mean that come one after the other.
#[derive(Debug, Default)]
pub struct StopWishes {
    first: Option<Instant>,
}

impl StopWishes {
    /// What a stop signal that comes now asks for; `None` if that was asked for already.
    pub fn hear(&mut self) -> Option<Urgency> {
        match self.first {
            None => {
                self.first = Some(Instant::now());
                Some(Urgency::Orderly)
            }
            Some(first) => (first.elapsed() > ONE_WISH).then_some(Urgency::Haste),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_at_once_are_one_wish_and_a_later_one_asks_for_haste() {
        let mut wishes = StopWishes::default();
        assert_eq!([wishes.hear(), wishes.hear(), wishes.hear()], [Some(Urgency::Orderly), None, None]);
        wishes.first = Instant::now().checked_sub(2 * ONE_WISH);
        assert_eq!(wishes.hear(), Some(Urgency::Haste));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_ignored_stays_ignored() {
        assert!(stop_signals().any(|signal| signal == libc::SIGVTALRM));
        // SAFETY: the signal comes from timers only, and no test has one.
        unsafe { libc::signal(libc::SIGVTALRM, libc::SIG_IGN) };
        assert!(!stop_signals().any(|signal| signal == libc::SIGVTALRM));
        // SAFETY: as above.
        unsafe { libc::signal(libc::SIGVTALRM, libc::SIG_DFL) };
    }
}
