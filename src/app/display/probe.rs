//! Tries the display servers that the environment names, and the libraries that the toolkit loads for them.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use winit::platform::wayland::EventLoopBuilderExtWayland;
use winit::platform::x11::EventLoopBuilderExtX11;
use x11rb::connection::{Connection, RequestConnection};
use x11rb::errors::ConnectError;
use x11rb::reexports::x11rb_protocol::parse_display::parse_display;
use x11rb::rust_connection::RustConnection;

use super::{Display, INSTEAD};
use crate::files::cause;
use crate::{Error, Result};

/// A server that takes longer to answer than this does not work.
const PATIENCE: Duration = Duration::from_secs(10);

/// The display with the highest port there is; displays count from port 6000 on.
const LAST_DISPLAY: u16 = u16::MAX - 6000;

/// What the toolkit loads, and the Debian packages that have it.
const WAYLAND_LIBRARIES: [(&str, &str); 2] =
    [("libwayland-client.so.0", "libwayland-client0"), ("libxkbcommon.so.0", "libxkbcommon0")];
const X11_LIBRARIES: [(&str, &str); 7] = [
    ("libX11.so.6", "libx11-6"),
    ("libX11-xcb.so.1", "libx11-xcb1"),
    ("libXcursor.so.1", "libxcursor1"),
    ("libXi.so.6", "libxi6"),
    ("libxcb.so.1", "libxcb1"),
    ("libxkbcommon.so.0", "libxkbcommon0"),
    ("libxkbcommon-x11.so.0", "libxkbcommon-x11-0"),
];

/// Extensions of an X server without which the toolkit panics.
const X11_EXTENSIONS: [&str; 3] = ["RANDR", "XInputExtension", "XKEYBOARD"];

/// The kinds of display servers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Server {
    /// A Wayland compositor.
    Wayland,
    /// An X server.
    #[default]
    X11,
}

impl Server {
    /// Has the toolkit use this one, whatever the environment names.
    pub fn chosen(self) -> eframe::EventLoopBuilderHook {
        Box::new(move |builder| {
            match self {
                Server::Wayland => builder.with_wayland(),
                Server::X11 => builder.with_x11(),
            };
        })
    }
}

/// An X server that works.
struct XServer {
    connection: Option<RustConnection>,
    /// Bits of a pixel.
    depth: u8,
}

/// The first of the servers named by `variable` that works.
///
/// # Errors
/// [`Error::Device`] if there is none.
pub fn find(variable: impl Fn(&str) -> Option<OsString>) -> Result<Display> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let wayland = ["WAYLAND_DISPLAY", "WAYLAND_SOCKET"].into_iter().any(|name| set(name).is_some());
    first(wayland.then(|| wayland_works(&variable)), || set("DISPLAY").map(|name| x11_works(&name)))
}

/// The one that works, of those that are named.
fn first(
    wayland: Option<Result<(), String>>,
    x11: impl FnOnce() -> Option<Result<XServer, String>>,
) -> Result<Display> {
    let why_not = match wayland {
        Some(Ok(())) => return Ok(Display { server: Server::Wayland, ..Display::default() }),
        Some(Err(why)) => Some(why),
        None => None,
    };
    let why = match (why_not, x11()) {
        (why_not, Some(Ok(XServer { connection, depth }))) => {
            let warning = why_not.map(|why| format!("{why}; the window opens on X11 instead"));
            return Ok(Display { warning, depth: Some(depth), server: Server::X11, _tried: connection });
        }
        (None, None) => {
            return Err(Error::Device(format!(
                "there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set; {INSTEAD}"
            )));
        }
        (Some(wayland), Some(Err(x11))) => format!("{wayland}, and {x11}"),
        (Some(why), None) | (None, Some(Err(why))) => why,
    };
    Err(Error::Device(format!("the window cannot be opened: {why}; {INSTEAD}")))
}

/// Whether the compositor that the environment names can be used; else why not.
fn wayland_works(variable: &impl Fn(&str) -> Option<OsString>) -> Result<(), String> {
    if let Some(descriptor) = variable("WAYLAND_SOCKET") {
        let descriptor = descriptor.to_string_lossy();
        let target = std::fs::read_link(format!("/proc/self/fd/{descriptor}"));
        if !target.is_ok_and(|target| target.to_string_lossy().starts_with("socket:")) {
            return Err(format!("WAYLAND_SOCKET={descriptor} is no open socket"));
        }
    } else if let Some(name) = variable("WAYLAND_DISPLAY") {
        let path = wayland_socket(&name, variable("XDG_RUNTIME_DIR"))?;
        let shown = path.display().to_string();
        let answer = within(PATIENCE, move || ask_wayland(&path));
        let why = match answer {
            Some(Ok(())) => None,
            Some(Err(why)) => Some(cause(&why)),
            None => Some("it keeps silent".into()),
        };
        if let Some(why) = why {
            return Err(format!("no Wayland server answers at {shown} ({why})"));
        }
    }
    all_load(&WAYLAND_LIBRARIES)
}

/// Where the compositor `name` listens.
fn wayland_socket(name: &OsStr, runtime: Option<OsString>) -> Result<PathBuf, String> {
    let path = runtime.map(PathBuf::from).unwrap_or_default().join(name);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(format!(
        "WAYLAND_DISPLAY={} needs XDG_RUNTIME_DIR, which names no folder (usually /run/user/UID)",
        name.display()
    ))
}

/// Asks for a sign of life: `wl_display.sync`.
fn ask_wayland(path: &Path) -> std::io::Result<()> {
    const DISPLAY: u32 = 1;
    const SYNC: u32 = 0;
    const BYTES: u32 = 12;
    const CALLBACK: u32 = 2;
    let mut server = UnixStream::connect(path)?;
    server.write_all(&[DISPLAY, BYTES << 16 | SYNC, CALLBACK].map(u32::to_ne_bytes).concat())?;
    server.read_exact(&mut [0; 8])
}

/// The X server `name`, if it can be used; else why not.
fn x11_works(name: &OsStr) -> Result<XServer, String> {
    all_load(&X11_LIBRARIES)?;
    let shown = name.display();
    let is_display = |name: &&str| parse_display(Some(name)).is_ok_and(|parsed| parsed.display <= LAST_DISPLAY);
    let Some(display) = name.to_str().filter(is_display).map(str::to_owned) else {
        return Err(format!("DISPLAY={shown} names no X server (such as :0)"));
    };
    let answer = within(PATIENCE, move || x11rb::connect(Some(&display)));
    let (server, screen) = answer
        .unwrap_or_else(|| Err(std::io::Error::other("it keeps silent").into()))
        .map_err(|why| refusal(&why, name))?;
    let missing: Vec<&str> = X11_EXTENSIONS
        .into_iter()
        .filter(|extension| !matches!(server.extension_information(extension), Ok(Some(_))))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "the X server at DISPLAY={shown} lacks {}, which the window needs; start it with that, or a newer one",
            missing.join(" and ")
        ));
    }
    let depth = server.setup().roots[screen].root_depth;
    Ok(XServer { connection: Some(server), depth })
}

/// What an X server's refusal comes down to.
fn refusal(why: &ConnectError, name: &OsStr) -> String {
    let name = name.display();
    let reason = match why {
        ConnectError::SetupFailed(setup) => &setup.reason,
        ConnectError::SetupAuthenticate(setup) => &setup.reason,
        ConnectError::InvalidScreen => return format!("the X server at DISPLAY={name} has no such screen"),
        ConnectError::IoError(why) => return format!("no X server answers at DISPLAY={name} ({})", cause(why)),
        why => return format!("the X server at DISPLAY={name} cannot be understood ({why})"),
    };
    let reason = String::from_utf8_lossy(reason);
    let reason = reason.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    let refused = format!("the X server at DISPLAY={name} refuses the connection ({reason})");
    if reason.to_lowercase().contains("authori") {
        return format!(
            "{refused}: XAUTHORITY must name the key file of the server's owner, or the owner must run \
             `xhost +si:localuser:NAME`"
        );
    }
    refused
}

/// Whether all of the libraries can be loaded; else which cannot, and their packages.
fn all_load(libraries: &[(&str, &str)]) -> Result<(), String> {
    let (mut names, mut packages) = (Vec::new(), Vec::new());
    for (name, package) in libraries {
        match culprit(name) {
            Some(culprit) if culprit == *name => names.push(culprit),
            // One of the libraries that have their own turn.
            Some(culprit) if libraries.iter().any(|(other, _)| *other == culprit) => continue,
            Some(culprit) => names.push(format!("{name} (which needs {culprit})")),
            None => continue,
        }
        packages.push(*package);
    }
    if names.is_empty() {
        return Ok(());
    }
    Err(format!("{} cannot be loaded (Debian, Ubuntu: apt-get install {})", names.join(", "), packages.join(" ")))
}

/// Because of which library `name` cannot be loaded: itself, or one that it needs; `None` if it can.
fn culprit(name: &str) -> Option<String> {
    let load = |name: &str| {
        // SAFETY: these are the libraries that the toolkit loads next; what they do when they are loaded they do anyway.
        unsafe { libloading::Library::new(name) }
    };
    let why = load(name).err()?.to_string();
    // As the toolkit does: other systems than Linux may have it without its version.
    if name.rsplit_once('.').is_some_and(|(plain, _)| load(plain).is_ok()) {
        return None;
    }
    // The loader's message begins with the file.
    let file = why.split(':').next().and_then(|file| Path::new(file).file_name()?.to_str());
    Some(file.filter(|file| file.starts_with("lib") && !file.contains(' ')).unwrap_or(name).to_owned())
}

/// What `ask` returns, unless it takes longer than `limit`.
fn within<R: Send + 'static>(limit: Duration, ask: impl FnOnce() -> R + Send + 'static) -> Option<R> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().spawn(move || sender.send(ask())).ok()?;
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x_server(depth: u8) -> Result<XServer, String> {
        Ok(XServer { connection: None, depth })
    }

    fn refused(wayland: Option<Result<(), String>>, x11: Option<Result<XServer, String>>) -> String {
        let why = first(wayland, || x11).unwrap_err();
        assert_eq!(why.exit_code(), 4);
        why.to_string()
    }

    #[test]
    fn the_first_that_works_is_taken() {
        let display = first(Some(Ok(())), || unreachable!()).unwrap();
        assert_eq!((display.server, display.warning), (Server::Wayland, None));
        let display = first(None, || Some(x_server(24))).unwrap();
        assert_eq!((display.server, display.warning, display.depth), (Server::X11, None, Some(24)));
        let display = first(Some(Err("it sleeps".into())), || Some(x_server(24))).unwrap();
        assert_eq!(display.server, Server::X11);
        assert_eq!(display.warning.unwrap(), "it sleeps; the window opens on X11 instead");
    }

    #[test]
    fn where_none_works_each_says_why() {
        let (wayland, x11) = (|| Some(Err("A".to_owned())), || Some(Err("B".to_owned())));
        assert!(refused(None, None).starts_with("there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set"));
        assert_eq!(refused(wayland(), None), format!("the window cannot be opened: A; {INSTEAD}"));
        assert_eq!(refused(None, x11()), format!("the window cannot be opened: B; {INSTEAD}"));
        assert_eq!(refused(wayland(), x11()), format!("the window cannot be opened: A, and B; {INSTEAD}"));
    }

    #[test]
    fn a_compositor_is_found_as_its_clients_find_it() {
        let socket = |name: &str, folder: Option<&str>| wayland_socket(OsStr::new(name), folder.map(OsString::from));
        assert_eq!(socket("wayland-0", Some("/run/user/7")).unwrap(), Path::new("/run/user/7/wayland-0"));
        assert_eq!(socket("/tmp/socket", None).unwrap(), Path::new("/tmp/socket"));
        for folder in [None, Some(""), Some("here")] {
            assert!(socket("wayland-0", folder).unwrap_err().contains("needs XDG_RUNTIME_DIR"));
        }
    }

    #[test]
    fn who_keeps_silent_is_not_waited_for() {
        assert_eq!(within(PATIENCE, || 3), Some(3));
        let (sender, receiver) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(10), move || receiver.recv()), None);
        drop(sender);
    }

    #[test]
    fn libraries_are_named_with_their_packages() {
        assert_eq!(all_load(&[]), Ok(()));
        let why = all_load(&[("libno-such.so.1", "libno-such1"), ("libneither.so.2", "libneither2")]).unwrap_err();
        assert_eq!(
            why,
            "libno-such.so.1, libneither.so.2 cannot be loaded (Debian, Ubuntu: apt-get install libno-such1 libneither2)"
        );
    }
}
