//! Faults of a device, for tests: one of the things that a device is asked for fails, as a driver has it fail.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The device is lost, in earnest.
    Loss,
    /// The device has no memory left for it.
    Memory,
    /// The driver refuses it, as it may a shader.
    Refusal,
}

/// Counts what the devices of a thread are asked for, and has one of it fail.
#[derive(Debug)]
pub(crate) struct Faults {
    fault: Fault,
    at: usize,
    made: AtomicUsize,
    waited: AtomicUsize,
    has_struck: AtomicBool,
}

thread_local! {
    static OF_THREAD: RefCell<Option<Arc<Faults>>> = const { RefCell::new(None) };
}

impl Faults {
    /// Has `fault` strike what is asked for the `at`-th time; 0 is never.
    pub fn new(fault: Fault, at: usize) -> Arc<Faults> {
        let (made, waited, has_struck) = Default::default();
        Arc::new(Faults { fault, at, made, waited, has_struck })
    }

    /// Has them strike the devices that this thread opens from now on, and the further ones that those open.
    pub fn enter(self: Arc<Self>) {
        OF_THREAD.with(|of_thread| of_thread.replace(Some(self)));
    }

    /// Those of this thread.
    pub fn of_thread() -> Option<Arc<Faults>> {
        OF_THREAD.with(|of_thread| of_thread.borrow().clone())
    }

    /// How often anything was asked for that `fault` may strike: adapters to be opened, pipelines, buffers, images, bind groups
    /// to be made, and for a loss also work to be waited for.
    pub fn places(&self, fault: Fault) -> usize {
        let waited = if fault == Fault::Loss { self.waited.load(Ordering::Relaxed) } else { 0 };
        self.made.load(Ordering::Relaxed) + waited
    }

    fn strikes(&self, count: &AtomicUsize) -> bool {
        count.fetch_add(1, Ordering::Relaxed);
        // Several threads may ask at once.
        self.at > 0 && self.places(self.fault) >= self.at && !self.has_struck.swap(true, Ordering::Relaxed)
    }

    /// Why an adapter cannot be opened, if that is what fails.
    pub fn opening(&self) -> Option<String> {
        self.strikes(&self.made).then(|| format!("{:?} as a test", self.fault))
    }

    /// What `device` says about something it is to make, if that is what fails.
    pub fn making(&self, device: &wgpu::Device) -> Option<wgpu::Error> {
        if !self.strikes(&self.made) {
            return None;
        }
        let source = Box::new(std::io::Error::other("a test has it fail"));
        match self.fault {
            Fault::Loss => {
                device.destroy();
                None
            }
            Fault::Memory => Some(wgpu::Error::OutOfMemory { source }),
            Fault::Refusal => Some(wgpu::Error::Internal { source, description: "a test has it fail".into() }),
        }
    }

    /// Loses `device` while work is waited for, if that is what fails.
    pub fn waiting(&self, device: &wgpu::Device) {
        match self.fault {
            Fault::Loss if self.strikes(&self.waited) => device.destroy(),
            Fault::Loss => {}
            Fault::Memory | Fault::Refusal => {
                self.waited.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
