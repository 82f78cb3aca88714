//! SIGINT and SIGTERM in the commands that have nothing to save.

/// From now on these signals end the program at once, with `why` for the user and the exit code 128 + signal.
pub fn explain(why: String) {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGINT, SIGTERM};
        // Without the handler the signals still end the program, only without a word.
        if let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) {
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
