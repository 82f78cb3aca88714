//! The window of the app: opens it, and opens it anew when its device is lost.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use eframe::egui::{self, Context, Ui, ViewportCommand};
use eframe::egui_wgpu::{WgpuConfiguration, WgpuError, WgpuSetup, WgpuSetupCreateNew};
use eframe::wgpu;

use super::notices::Severity;
use super::{App, open};
use crate::gpu::best_for;
use crate::{Error, Result};

/// A window that loses its device sooner than this after it was opened would do so again.
const SHORT_LIFE: Duration = Duration::from_secs(10);

/// What to do where no window can be opened.
const INSTEAD: &str = "start sep4d in a desktop session, or train without a window: `sep4d --train`";

/// Opens the window, with what lies at `path` in it, and returns when it is closed.
///
/// # Errors
/// [`Error::Data`] if `path` is nothing that can be opened, [`Error::Device`] if there is no display or no adapter that can
/// draw, or if the device is lost again and again.
pub fn run(path: Option<&Path>) -> Result<()> {
    let mut path = path.map(|path| open::recognise(path).map(|_| path)).transpose()?;
    check_display()?;
    let kept: Rc<RefCell<Option<App>>> = Rc::default();
    loop {
        let (watch, opened) = (Arc::new(Watch::default()), Instant::now());
        let path = path.take();
        let create = |creation: &eframe::CreationContext<'_>| -> std::result::Result<Box<dyn eframe::App>, _> {
            watch.over(creation);
            let mut app = kept.borrow_mut();
            match app.as_mut() {
                Some(app) => app.enter(creation),
                None => *app = Some(App::new(creation)),
            }
            if let (Some(app), Some(path)) = (app.as_mut(), path) {
                app.open(path);
            }
            Ok(Box::new(Window { app: kept.clone(), watch: watch.clone() }))
        };
        // The toolkit panics if a device is lost while it draws, which a lost device's window survives.
        let ended = catch_unwind(AssertUnwindSafe(|| eframe::run_native("sep4d", options(), Box::new(create))));
        match (watch.lost(), ended) {
            (None, Ok(Ok(()))) => return Ok(()),
            (None, Ok(Err(why))) => return Err(cannot_open(&why)),
            (None, Err(panic)) => resume_unwind(panic),
            (Some(why), _) => {
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

/// A window without a display fails deep in the toolkit; here it is one sentence.
fn check_display() -> Result<()> {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let unix = cfg!(all(unix, not(target_vendor = "apple")));
    if unix && !["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"].into_iter().any(has) {
        return Err(Error::Device(format!(
            "there is no display: neither DISPLAY nor WAYLAND_DISPLAY is set; {INSTEAD}"
        )));
    }
    Ok(())
}

fn cannot_open(why: &eframe::Error) -> Error {
    match why {
        eframe::Error::Wgpu(WgpuError::CustomNativeAdapterSelectionError(why)) => Error::Device(why.clone()),
        _ => Error::Device(format!("the window cannot be opened: {why}; {INSTEAD}")),
    }
}

fn options() -> eframe::NativeOptions {
    let mut setup = WgpuSetupCreateNew::without_display_handle();
    setup.instance_descriptor.backends = wgpu::Backends::PRIMARY;
    setup.native_adapter_selector =
        Some(Arc::new(|adapters, surface| best_for(adapters, surface).map_err(|why| why.to_string())));
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
            .with_min_inner_size([800.0, 520.0])
            .with_drag_and_drop(true),
        wgpu_options: WgpuConfiguration { wgpu_setup: WgpuSetup::CreateNew(setup), ..Default::default() },
        ..Default::default()
    }
}

/// What the window's device reports outside of any call.
#[derive(Debug, Default)]
struct Watch {
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
        let (watch, wake) = (self.clone(), context.clone());
        device.set_device_lost_callback(move |reason, message| {
            let mut lost = watch.lost.lock().unwrap_or_else(PoisonError::into_inner);
            lost.get_or_insert(format!("the window's device was lost ({reason:?}): {}", message.trim_end_matches('.')));
            wake.request_repaint();
        });
        let watch = self.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            watch.errors.lock().unwrap_or_else(PoisonError::into_inner).push(match error {
                wgpu::Error::OutOfMemory { .. } => "the window's device has no memory left; make the window or the \
                                                    model smaller, or end other programs that use the GPU"
                    .into(),
                error => format!("the window's device reported an error: {error}; update its driver"),
            });
        }));
    }

    /// Why the device was lost, if it was.
    fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the toolkit runs: the app, which outlives it if its device is lost.
struct Window {
    app: Rc<RefCell<Option<App>>>,
    watch: Arc<Watch>,
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
        if self.watch.lost().is_some() {
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
        let _ = gpu.device.poll(wgpu::PollType::wait_indefinitely());
        assert!(watch.lost().unwrap().contains("was lost"));
    }

    #[test]
    fn what_keeps_the_window_from_opening_is_told_in_a_sentence() {
        let why = WgpuError::CustomNativeAdapterSelectionError("no adapter was found".into());
        assert_eq!(cannot_open(&eframe::Error::Wgpu(why)).to_string(), "no adapter was found");
        let none = best_for(&[], None).unwrap_err();
        assert!(none.to_string().contains("mesa-vulkan-drivers") && none.exit_code() == 4);
    }
}
