//! The window of the app: opens it, and opens it anew when its device is lost.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::egui::{self, Context, Ui, ViewportCommand};
use eframe::egui_wgpu::{WgpuConfiguration, WgpuSetup, WgpuSetupCreateNew};
use eframe::wgpu;

use super::display::Display;
use super::notices::Severity;
use super::{App, open, placement, toolkit};
use crate::gpu::{backends, best_for};
use crate::signals::{StopWishes, Urgency, stop_signals};
use crate::{Error, Result};

/// A window that loses its device sooner than this after it was opened would do so again.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// The least size of the window, in points.
const LEAST: [f32; 2] = [800.0, 520.0];

/// Opens the window, with what lies at `path` in it, and returns when it is closed. `warn` is told what the user should know
/// of the window's start.
///
/// # Errors
/// [`Error::Data`] if `path` is nothing that can be opened, [`Error::Device`] if there is no display or no adapter that can
/// draw, if the window fails, or if the device is lost again and again.
pub fn run(path: Option<&Path>, warn: impl Fn(&str)) -> Result<()> {
    path.map(open::recognise).transpose()?;
    let display = Display::find()?;
    if let Some(warning) = &display.warning {
        warn(warning);
    }
    let kept: Rc<RefCell<Option<App>>> = Rc::default();
    let signals = Signals::register();
    let mut broken_off = false;
    loop {
        let (watch, opened) = (Arc::new(Watch::default()), Instant::now());
        let create = |creation: &eframe::CreationContext<'_>| -> std::result::Result<Box<dyn eframe::App>, _> {
            watch.over(creation);
            if let Some(window) = creation.winit_window() {
                placement::fit(window, LEAST.into());
            }
            signals.wake(&creation.egui_ctx);
            let mut app = kept.borrow_mut();
            match app.as_mut() {
                Some(app) => app.enter(creation),
                None => {
                    let mut new = App::new(creation);
                    new.native_dialogs = true;
                    new.start(path, eframe::storage_dir("sep4d").as_deref());
                    *app = Some(new);
                }
            }
            Ok(Box::new(Window { app: kept.clone(), watch: watch.clone(), signals: signals.clone() }))
        };
        // The toolkit panics if a device is lost while it draws, which a lost device's window survives.
        let ended = toolkit::quietly(|| eframe::run_native("sep4d", options(&display), Box::new(create)));
        if ended.is_err() {
            watch.ask(wgpu::PollType::wait_indefinitely());
        }
        match (watch.lost(), ended) {
            // After a panic the event loop first comes to the end of what was broken off, without a window.
            (None, Ok(Ok(()))) if std::mem::take(&mut broken_off) && !watch.has_device() => {}
            (None, Ok(Ok(()))) => return Ok(()),
            (None, Ok(Err(why))) if !watch.has_device() => return Err(toolkit::cannot_open(&why, &display)),
            (None, Err(panic)) if !watch.has_device() => return Err(toolkit::panicked_opening(&panic)),
            (None, Ok(Err(why))) => return Err(broke_off(&kept, &why.to_string())),
            (None, Err(panic)) => return Err(broke_off(&kept, &panic.to_string())),
            (Some(why), ended) => {
                broken_off = ended.is_err();
                let mut app = kept.borrow_mut();
                let Some(app) = app.as_mut() else { return Err(Error::Device(why)) };
                if opened.elapsed() < SHORT_LIFE {
                    app.state.engine.finish();
                    return Err(Error::Device(format!(
                        "{why}, again and again; the run was saved: restart the driver"
                    )));
                }
                let text = format!("{why}. The window was opened anew; training was not touched.");
                app.state.notices.add(Severity::Warning, text);
            }
        }
    }
}

/// Saves what the window trained, and tells why it ended.
fn broke_off(kept: &RefCell<Option<App>>, why: &str) -> Error {
    if let Some(app) = kept.borrow_mut().as_mut() {
        app.state.engine.finish();
    }
    toolkit::broke_off(why)
}

fn options(display: &Display) -> eframe::NativeOptions {
    let mut setup = WgpuSetupCreateNew::without_display_handle();
    setup.instance_descriptor.backends = backends();
    let objection = display.objection();
    setup.native_adapter_selector = Some(Arc::new(move |adapters, surface| {
        let object = |why: Error| objection.clone().filter(|_| !adapters.is_empty()).unwrap_or(why.to_string());
        best_for(adapters, surface).map_err(object)
    }));
    setup.device_descriptor = Arc::new(|adapter| wgpu::DeviceDescriptor {
        label: Some("window"),
        required_limits: adapter.limits(),
        ..Default::default()
    });
    eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("sep4d")
            .with_app_id("sep4d")
            .with_inner_size([1280.0, 800.0])
            .with_min_inner_size(LEAST)
            .with_drag_and_drop(true),
        wgpu_options: WgpuConfiguration { wgpu_setup: WgpuSetup::CreateNew(setup), ..Default::default() },
        ..display.options()
    }
}

/// What the window's device reports outside of any call.
#[derive(Debug, Default)]
struct Watch {
    device: Mutex<Option<wgpu::Device>>,
    lost: Mutex<Option<String>>,
    errors: Mutex<Vec<String>>,
}

impl Watch {
    /// Listens to the device of a window; without this an error would end the program.
    fn over(self: &Arc<Watch>, creation: &eframe::CreationContext<'_>) {
        if let Some(state) = &creation.wgpu_render_state {
            self.listen(&state.device, &creation.egui_ctx);
        }
    }

    fn listen(self: &Arc<Watch>, device: &wgpu::Device, context: &Context) {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner) = Some(device.clone());
        let (watch, wake) = (Arc::downgrade(self), context.clone());
        device.set_device_lost_callback(move |reason, message| {
            let Some(watch) = watch.upgrade() else { return };
            let mut lost = watch.lost.lock().unwrap_or_else(PoisonError::into_inner);
            let message =
                if message.is_empty() { String::new() } else { format!(": {}", message.trim_end_matches('.')) };
            lost.get_or_insert(format!("the window's device was lost ({reason:?}){message}"));
            wake.request_repaint();
        });
        let watch = Arc::downgrade(self);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let Some(watch) = watch.upgrade() else { return };
            watch.errors.lock().unwrap_or_else(PoisonError::into_inner).push(match error {
                wgpu::Error::OutOfMemory { .. } => "the window's device has no memory left; make the window or the \
                                                    model smaller, or end other programs that use the GPU"
                    .into(),
                error => format!("the window's device reported an error: {error}; update its driver"),
            });
        }));
    }

    fn has_device(&self) -> bool {
        self.device.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Asks the device for its progress, which is when it tells of its loss.
    fn ask(&self, how: wgpu::PollType) {
        let device = self.device.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(device) = device {
            let _ = device.poll(how);
        }
    }

    /// Why the device was lost, if it was.
    fn lost(&self) -> Option<String> {
        self.ask(wgpu::PollType::Poll);
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What asks the program to end closes the window as its button does, so that a run is saved; asked again later, it ends at once.
#[derive(Debug, Clone, Default)]
struct Signals {
    closing: Arc<AtomicBool>,
    window: Arc<Mutex<Option<Context>>>,
}

impl Signals {
    fn register() -> Signals {
        let signals = Signals::default();
        #[cfg(unix)]
        {
            // Where they cannot be handled, the signals end the program as they always do.
            if let Ok(mut arriving) = signal_hook::iterator::Signals::new(stop_signals()) {
                let shared = signals.clone();
                let listen = move || {
                    let mut wishes = StopWishes::default();
                    for signal in arriving.forever() {
                        match wishes.hear() {
                            Some(Urgency::Orderly) => shared.close(),
                            // What is being written comes into its place whole, or not at all.
                            Some(Urgency::Haste) => signal_hook::low_level::exit(128 + signal),
                            None => {}
                        }
                    }
                };
                let _ = std::thread::Builder::new().name("signals".into()).spawn(listen);
            }
        }
        signals
    }

    /// Tells which window to wake.
    fn wake(&self, context: &Context) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.clone());
    }

    #[cfg(unix)]
    fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(context) = self.window.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            context.request_repaint();
        }
    }
}

/// What the toolkit runs: the app, which outlives it if its device is lost.
struct Window {
    app: Rc<RefCell<Option<App>>>,
    watch: Arc<Watch>,
    signals: Signals,
}

impl Window {
    fn with(&self, act: impl FnOnce(&mut App)) {
        if self.watch.lost().is_none()
            && let Some(app) = self.app.borrow_mut().as_mut()
        {
            act(app);
        }
    }
}

impl eframe::App for Window {
    fn logic(&mut self, context: &Context, frame: &mut eframe::Frame) {
        if self.watch.lost().is_some() || self.signals.closing.swap(false, Ordering::Relaxed) {
            context.send_viewport_cmd(ViewportCommand::Close);
        }
        let errors = self.watch.take_errors();
        self.with(|app| {
            for error in errors {
                app.state.notices.add(Severity::Error, error);
            }
            app.logic(context, frame);
        });
    }

    fn ui(&mut self, ui: &mut Ui, frame: &mut eframe::Frame) {
        self.with(|app| app.ui(ui, frame));
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        self.with(|app| app.save(storage));
    }

    fn on_exit(&mut self) {
        self.with(|app| app.on_exit());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_the_device_is_noticed_and_errors_are_kept() {
        let gpu = crate::gpu::Context::open(&crate::gpu::DeviceChoice::Best).unwrap();
        let (watch, context) = (Arc::new(Watch::default()), Context::default());
        watch.listen(&gpu.device, &context);
        let size = gpu.device.limits().max_buffer_size + 4;
        let usage = wgpu::BufferUsages::COPY_DST;
        drop(gpu.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false }));
        assert_eq!(watch.take_errors().len(), 1);
        assert_eq!(watch.lost(), None);
        gpu.device.destroy();
        assert!(watch.lost().unwrap().contains("was lost"));
    }
}
