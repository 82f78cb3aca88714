//! The start of the window where something is missing: it opens in another way, or one sentence says what is missing.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt, MapState, Window};
use x11rb::rust_connection::RustConnection;

/// An X server without a screen to look at, and a name for DISPLAY.
struct Xvfb {
    process: Child,
    display: String,
}

impl Xvfb {
    fn start(options: &[&str]) -> Xvfb {
        let mut process = Command::new("Xvfb")
            .args(["-displayfd", "1", "-nolisten", "tcp"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb is needed: apt-get install xvfb");
        let mut number = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut number).unwrap();
        assert!(!number.trim().is_empty(), "Xvfb {options:?} does not start");
        Xvfb { process, display: format!(":{}", number.trim()) }
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program in an environment of its own, without any display.
fn sep4d(home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
    for name in [
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "WAYLAND_SOCKET",
        "XAUTHORITY",
        "VK_DRIVER_FILES",
        "VK_ICD_FILENAMES",
        "WGPU_BACKEND",
    ] {
        command.env_remove(name);
    }
    command.env("HOME", home.path()).env("XDG_DATA_HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).current_dir(home.path());
    command
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Expects the window not to open: exit code 4 and one sentence with all `words` in it.
fn is_refused(command: &mut Command, words: &[&str]) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.lines().count() == 1 && said.starts_with("error: "), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    for word in ["panicked", "/src/", ".rs:", "{}"] {
        assert!(!said.contains(word), "{word:?} is in: {said}");
    }
}

/// A window that is open, and what its program says.
struct Opened {
    process: Child,
    stderr: ChildStderr,
    server: RustConnection,
    window: Window,
}

impl Opened {
    /// Starts the program and waits for its window.
    fn on(xvfb: &Xvfb, command: &mut Command) -> Opened {
        let mut process = command.env("DISPLAY", &xvfb.display).spawn().unwrap();
        let mut stderr = process.stderr.take().unwrap();
        let (server, screen) = x11rb::connect(Some(&xvfb.display)).unwrap();
        let root = server.setup().roots[screen].root;
        let mut window = None;
        until("the window opens", || {
            window = shown(&server, root);
            window.is_some() || process.try_wait().unwrap().is_some()
        });
        let Some(window) = window else {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            panic!("no window opens: {said}");
        };
        Opened { process, stderr, server, window }
    }

    fn size(&self) -> (u16, u16) {
        let geometry = self.server.get_geometry(self.window).unwrap().reply().unwrap();
        (geometry.width, geometry.height)
    }

    /// Closes the window as its button does; what the program said.
    fn close(mut self) -> String {
        let killed = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        assert!(self.process.wait().unwrap().success(), "{said}");
        said
    }
}

/// Waits; a slow machine gets several minutes.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("in vain: {what}");
}

/// The window with the program's title, once it is seen.
fn shown(server: &RustConnection, root: Window) -> Option<Window> {
    let windows = server.query_tree(root).unwrap().reply().unwrap().children;
    windows.into_iter().find(|window| {
        let title = server.get_property(false, *window, AtomEnum::WM_NAME, AtomEnum::ANY, 0, 64);
        let is_ours = title.unwrap().reply().is_ok_and(|title| title.value == b"sep4d");
        let attributes = server.get_window_attributes(*window).unwrap().reply();
        is_ours && attributes.is_ok_and(|attributes| attributes.map_state == MapState::VIEWABLE)
    })
}

/// Has a library not be loadable: an empty file is found first.
fn break_library(command: &mut Command, folder: &TempDir, name: &str) {
    fs::write(folder.path().join(name), "").unwrap();
    command.env("LD_LIBRARY_PATH", folder.path());
}

#[test]
fn displays_that_are_not_there() {
    let home = home();
    is_refused(&mut sep4d(&home), &["neither DISPLAY nor WAYLAND_DISPLAY is set", "sep4d train"]);
    is_refused(sep4d(&home).env("DISPLAY", ""), &["neither DISPLAY nor WAYLAND_DISPLAY is set"]);
    is_refused(sep4d(&home).env("DISPLAY", "localhost:5999"), &["no X server answers at DISPLAY=localhost:5999"]);
    is_refused(sep4d(&home).env("DISPLAY", "localhost:59999"), &["DISPLAY=localhost:59999 names no X server"]);
    is_refused(sep4d(&home).env("DISPLAY", "nonsense"), &["DISPLAY=nonsense names no X server"]);
    is_refused(sep4d(&home).env("WAYLAND_DISPLAY", "wayland-9"), &["no Wayland server answers at", "wayland-9"]);
    let mut both = sep4d(&home);
    both.env("WAYLAND_DISPLAY", "/nowhere").env("DISPLAY", "localhost:5999");
    is_refused(&mut both, &["no Wayland server answers at /nowhere", "no X server answers at DISPLAY=localhost:5999"]);
    let mut without_folder = sep4d(&home);
    without_folder.env("WAYLAND_DISPLAY", "wayland-0").env_remove("XDG_RUNTIME_DIR");
    is_refused(&mut without_folder, &["WAYLAND_DISPLAY=wayland-0 needs XDG_RUNTIME_DIR"]);
    is_refused(sep4d(&home).env("WAYLAND_SOCKET", "x"), &["WAYLAND_SOCKET=x is no open socket"]);
}

#[test]
fn servers_that_refuse() {
    let home = home();
    // An X server of somebody else.
    let server = TcpListener::bind("localhost:0").unwrap();
    let display = format!("localhost:{}", server.local_addr().unwrap().port() - 6000);
    std::thread::spawn(move || {
        for client in server.incoming() {
            let mut client = client.unwrap();
            let mut request = [0; 12];
            client.read_exact(&mut request).unwrap();
            let reason = b"Authorization required, but no authorization protocol specified\n";
            client.write_all(&[0, reason.len() as u8, 11, 0, 0, 0, reason.len().div_ceil(4) as u8, 0]).unwrap();
            client.write_all(reason).unwrap();
            let _ = client.read_to_end(&mut Vec::new());
        }
    });
    is_refused(sep4d(&home).env("DISPLAY", &display), &["refuses the connection", "XAUTHORITY", "xhost"]);
    // A compositor that hangs up.
    let server = UnixListener::bind(home.path().join("wayland-1")).unwrap();
    std::thread::spawn(move || server.incoming().for_each(drop));
    is_refused(sep4d(&home).env("WAYLAND_DISPLAY", "wayland-1"), &["no Wayland server answers at", "wayland-1"]);
}

#[test]
fn libraries_that_are_missing() {
    for (library, package) in [
        ("libX11.so.6", "libx11-6"),
        ("libX11-xcb.so.1", "libx11-xcb1"),
        ("libXcursor.so.1", "libxcursor1"),
        ("libXi.so.6", "libxi6"),
        ("libxkbcommon.so.0", "libxkbcommon0"),
        ("libxkbcommon-x11.so.0", "libxkbcommon-x11-0"),
    ] {
        let (home, libraries) = (home(), home());
        let mut command = sep4d(&home);
        break_library(&mut command, &libraries, library);
        // Without its version a development package may have it.
        break_library(&mut command, &libraries, library.rsplit_once('.').unwrap().0);
        is_refused(command.env("DISPLAY", ":0"), &[library, &format!("apt-get install {package}")]);
    }
}

#[test]
fn a_display_without_an_adapter_for_it() {
    let home = home();
    let xvfb = Xvfb::start(&["-screen", "0", "1280x800x24"]);
    let on = |name: &str, value: &str| {
        let mut command = sep4d(&home);
        command.env("DISPLAY", &xvfb.display).env(name, value);
        command
    };
    is_refused(&mut on("VK_DRIVER_FILES", "/nowhere"), &["VK_DRIVER_FILES=/nowhere"]);
    is_refused(&mut on("WGPU_BACKEND", "gl"), &["WGPU_BACKEND=gl", "unset it, or set it to vulkan"]);
    let shallow = Xvfb::start(&["-screen", "0", "1280x800x16"]);
    is_refused(sep4d(&home).env("DISPLAY", &shallow.display), &["16 bits a pixel", "1280x800x24"]);
    let bare = Xvfb::start(&["-screen", "0", "1280x800x24", "-extension", "RANDR"]);
    is_refused(sep4d(&home).env("DISPLAY", &bare.display), &["lacks RANDR"]);
}

#[test]
fn without_wayland_it_opens_on_x11() {
    let home = home();
    let xvfb = Xvfb::start(&["-screen", "0", "1280x800x24"]);
    let said = Opened::on(&xvfb, sep4d(&home).env("WAYLAND_DISPLAY", "wayland-9")).close();
    assert!(said.starts_with("warning: no Wayland server answers at") && said.contains("opens on X11"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn what_was_left_too_small_or_out_of_sight_is_seen_again() {
    let home = home();
    let remember = |place: &str, size: &str| {
        let geometry = format!("outer_position_pixels:Some({place}),scale_factor:1.0,inner_size_points:({size})");
        let window = format!("(normal_geometry:({geometry}),fullscreen:false,maximized:false)");
        fs::create_dir_all(home.path().join("sep4d")).unwrap();
        fs::write(home.path().join("sep4d/app.ron"), format!("{{\"window\":\"{window}\"}}")).unwrap();
    };
    let xvfb = Xvfb::start(&["-screen", "0", "1280x800x24"]);
    for (place, size, expected) in
        [("(x:10.0,y:10.0)", "x:427.0,y:267.0", (800, 520)), ("(x:5000.0,y:10.0)", "x:900.0,y:600.0", (900, 600))]
    {
        remember(place, size);
        let opened = Opened::on(&xvfb, &mut sep4d(&home));
        until("the window has its size", || opened.size() == expected);
        let root = opened.server.setup().roots[0].root;
        let at = opened.server.translate_coordinates(opened.window, root, 0, 0).unwrap().reply().unwrap();
        assert!(at.dst_x < 1280 && at.dst_y < 800, "{} {}", at.dst_x, at.dst_y);
        assert_eq!(opened.close(), "");
    }
    assert!(Path::new(&home.path().join("sep4d/app.ron")).is_file());
}
