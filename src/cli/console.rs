//! Lines for people, above a progress bar where there is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::{say, tell};

/// Prints lines; on a terminal they scroll above a bar.
pub struct Console {
    bar: Option<ProgressBar>,
}

impl Console {
    /// A console with a bar of `total` steps if stderr is a terminal; `unit` is what is counted.
    pub fn new(total: u64, unit: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}, {{eta}} left  {{msg}}");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar
        });
        Console { bar }
    }

    /// Whether there is a bar.
    pub fn has_bar(&self) -> bool {
        self.bar.is_some()
    }

    /// Prints a line to stdout.
    pub fn line(&self, text: &str) {
        let print = || {
            // A run does not end because its output is read no more.
            let _ = say!("{text}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Prints a warning to stderr.
    pub fn warn(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(&format!("warning: {text}"))),
            None => tell(&format!("warning: {text}")),
        }
    }

    /// Begins at `position` of `total`, without counting what was done before as speed.
    pub fn begin(&self, position: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(position);
            bar.reset_eta();
        }
    }

    /// Moves the bar.
    pub fn advance(&self, position: u64, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
            bar.set_message(message);
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
