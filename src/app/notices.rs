//! Messages to the user: what went well passes, what went wrong stays until it is read.

use std::time::{Duration, Instant};

use crate::Error;

/// How long good news stay.
const SHORT: Duration = Duration::from_secs(5);

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Odd, but work goes on.
    Warning,
    /// Something was not done.
    Error,
}

/// One message.
#[derive(Debug, Clone)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// What happened, where, and what to do.
    pub text: String,
    since: Instant,
}

/// The messages in view, oldest first.
#[derive(Debug, Default)]
pub struct Notices {
    list: Vec<Notice>,
}

impl Notices {
    /// Adds one, unless it is in view already.
    pub fn add(&mut self, severity: Severity, text: impl Into<String>) {
        let text = text.into();
        self.list.retain(|notice| notice.text != text);
        self.list.push(Notice { severity, text, since: Instant::now() });
    }

    /// Something that went well.
    pub fn info(&mut self, text: impl Into<String>) {
        self.add(Severity::Info, text);
    }

    /// Something that failed.
    pub fn error(&mut self, why: &Error) {
        self.add(Severity::Error, why.to_string());
    }

    /// Drops what has been there long enough; returns when the next one is due.
    pub fn expire(&mut self) -> Option<Duration> {
        self.list.retain(|notice| notice.severity != Severity::Info || notice.since.elapsed() < SHORT);
        let passing = self.list.iter().filter(|notice| notice.severity == Severity::Info);
        passing.map(|notice| SHORT.saturating_sub(notice.since.elapsed())).min()
    }

    /// All in view.
    pub fn list(&self) -> &[Notice] {
        &self.list
    }

    /// Takes one away.
    pub fn dismiss(&mut self, index: usize) {
        if index < self.list.len() {
            self.list.remove(index);
        }
    }

    /// Takes all away.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_and_are_told_once() {
        let mut notices = Notices::default();
        notices.error(&Error::Data("no such folder".into()));
        notices.error(&Error::Data("no such folder".into()));
        notices.info("saved");
        assert_eq!(notices.list().len(), 2);
        assert!(notices.expire().is_some());
        notices.dismiss(1);
        assert_eq!(notices.expire(), None);
        assert_eq!(notices.list()[0].severity, Severity::Error);
    }
}
