//! What the toolkit says when it fails, as sentences for people.

use std::any::Any;
use std::panic::{AssertUnwindSafe, Location, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use eframe::egui_wgpu::WgpuError;

use super::display::{Display, INSTEAD};
use crate::Error;
use crate::figures::one_line;
use crate::gpu::{DeviceChoice, adapters, choose};

/// A panic that was caught.
#[derive(Debug)]
pub struct Panicked {
    message: String,
    /// File and line, if they are known.
    place: Option<String>,
}

/// Runs `run`. What it panics with on this thread is returned instead of being printed; other threads print as always.
///
/// # Errors
/// The panic.
pub fn quietly<R>(run: impl FnOnce() -> R) -> Result<R, Panicked> {
    let place: Arc<Mutex<Option<String>>> = Arc::default();
    let (seen, thread) = (place.clone(), std::thread::current().id());
    let before = Arc::new(std::panic::take_hook());
    let others = before.clone();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        if std::thread::current().id() == thread {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = panic.location().map(short);
        } else {
            others(panic);
        }
    }));
    let ended = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(Box::new(move |panic| before(panic)));
    ended.map_err(|payload| Panicked {
        message: message(payload.as_ref()),
        place: place.lock().unwrap_or_else(PoisonError::into_inner).take(),
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    plain(text.unwrap_or("a panic without a message"))
}

/// A place in the sources, without the folders of the machine that built the program.
fn short(place: &Location<'_>) -> String {
    let file = place.file().rsplit("/src/").next().unwrap_or_default();
    format!("{file}:{}", place.line())
}

/// One line, without a full stop, and without the place in the toolkit's sources that some of its messages begin with.
fn plain(text: &str) -> String {
    let mut text = one_line(text);
    while let Some(start) = text.find("os error at ") {
        let end = text[start..].find(": ").map_or(text.len(), |end| start + end + 2);
        text.replace_range(start..end, "");
    }
    text.trim_end_matches('.').to_owned()
}

/// Why no window could be opened on `display`.
pub fn cannot_open(why: &eframe::Error, display: &Display) -> Error {
    let eframe::Error::Wgpu(why) = why else { return unopened(&plain(&why.to_string())) };
    if let WgpuError::CustomNativeAdapterSelectionError(why) = why {
        return Error::Device(why.clone());
    }
    // Without any adapter there is nothing to draw with, whatever the toolkit calls that.
    match (choose(&adapters(), &DeviceChoice::Best), display.objection()) {
        (Err(none), _) => none,
        (Ok(_), Some(objection)) => Error::Device(objection),
        (Ok(_), None) => unopened(&plain(&why.to_string())),
    }
}

/// Why no window could be opened, if the toolkit panicked meanwhile.
pub fn panicked_opening(panic: &Panicked) -> Error {
    unopened(&panic.message)
}

fn unopened(why: &str) -> Error {
    Error::Device(format!("the window cannot be opened: {why}; {INSTEAD}"))
}

/// Why a window that was open has ended: its display, if that is gone, or the toolkit's own `why`.
pub fn broke_off(why: &str) -> Error {
    let why = match Display::find() {
        Ok(_) => format!("the window broke off: {}", plain(why)),
        Err(_) => "the display is gone: its server ended, or the connection broke".into(),
    };
    Error::Device(format!("{why}; what was trained is saved, start sep4d again"))
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_in_one_line_and_the_next_is_printed_again() {
        let panic = quietly(|| panic!("Library libfoo.so\n could not be loaded.")).unwrap_err();
        assert_eq!(panic.message, "Library libfoo.so could not be loaded");
        let (text, why) = (panic.to_string(), panicked_opening(&panic));
        assert!(text.contains("toolkit.rs:") && !text.contains("/src/"), "{text}");
        let message = why.to_string();
        assert!(message.contains(&panic.message) && !message.contains(".rs") && why.exit_code() == 4, "{message}");
        assert_eq!(quietly(|| 3).unwrap(), 3);
        let other = quietly(|| std::thread::spawn(|| 4).join().unwrap());
        assert_eq!(other.unwrap(), 4);
    }

    #[test]
    fn places_in_the_toolkit_s_sources_are_left_out() {
        let text =
            "winit EventLoopError: os error at /root/.cargo/registry/src/winit-0.30.13/src/mod.rs:765: no server.\n";
        assert_eq!(plain(text), "winit EventLoopError: no server");
        assert_eq!(plain("two os error at a.rs:1: os error at b.rs:2: causes"), "two causes");
        assert_eq!(plain("os error at nowhere"), "");
    }

    #[test]
    fn what_keeps_the_window_from_opening_is_told_in_a_sentence() {
        let told =
            |why: WgpuError, depth| cannot_open(&eframe::Error::Wgpu(why), &Display::of_depth(depth)).to_string();
        let none = || WgpuError::CustomNativeAdapterSelectionError("no adapter was found".into());
        assert_eq!(told(none(), 24), "no adapter was found");
        assert!(told(WgpuError::NoSurfaceFormatsAvailable, 16).contains("16 bits a pixel"));
        let message = told(WgpuError::NoSurfaceFormatsAvailable, 24);
        assert!(
            message.contains("cannot be opened: There was no valid format") && message.ends_with(INSTEAD),
            "{message}"
        );
        let none = crate::gpu::best_for(&[], None).unwrap_err();
        assert_eq!(none.exit_code(), 4);
    }
}
