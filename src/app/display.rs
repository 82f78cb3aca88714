//! Where the window can open. The toolkit takes the first display server that the environment names, and panics, or speaks
//! of its own sources, if that does not work; so libraries and servers are tried before it does.

#[cfg(all(unix, not(target_vendor = "apple")))]
mod probe;

use crate::Result;

/// What to do where no window can be opened.
pub const INSTEAD: &str = "start sep4d in a desktop session, or train without a window: `sep4d train`";

/// A display on which the window can open.
#[derive(Debug, Default)]
pub struct Display {
    /// Why it is not the first that the environment names.
    pub warning: Option<String>,
    /// Bits of a pixel, where that is known.
    depth: Option<u8>,
    #[cfg(all(unix, not(target_vendor = "apple")))]
    server: probe::Server,
    /// Held while the toolkit connects: an X server may start anew when its only client leaves.
    #[cfg(all(unix, not(target_vendor = "apple")))]
    _tried: Option<x11rb::rust_connection::RustConnection>,
}

impl Display {
    /// The first display that works.
    ///
    /// # Errors
    /// [`crate::Error::Device`] if there is none: what is missing, and how to get it.
    pub fn find() -> Result<Display> {
        #[cfg(all(unix, not(target_vendor = "apple")))]
        return probe::find(|name| std::env::var_os(name));
        #[cfg(not(all(unix, not(target_vendor = "apple"))))]
        Ok(Display::default())
    }

    /// A display with so many bits a pixel.
    #[cfg(test)]
    pub fn of_depth(depth: u8) -> Display {
        Display { depth: Some(depth), ..Display::default() }
    }

    /// Options of a window that opens there.
    pub fn options(&self) -> eframe::NativeOptions {
        eframe::NativeOptions {
            #[cfg(all(unix, not(target_vendor = "apple")))]
            event_loop_builder: Some(self.server.chosen()),
            ..Default::default()
        }
    }

    /// Why no adapter can draw there, if that is the display's fault.
    pub fn objection(&self) -> Option<String> {
        let depth = self.depth.filter(|depth| ![24, 32].contains(depth))?;
        Some(format!(
            "the display has {depth} bits a pixel, and no adapter can draw to it; start it with 24 (Xvfb: -screen 0 \
             1280x800x24, VNC: -depth 24)"
        ))
    }
}
