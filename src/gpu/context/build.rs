//! Building kernels before they are needed, on all cores.
//!
//! Drivers of GPUs compile a pipeline on the thread that makes it. Software Vulkan compiles it at its first launch, in the one
//! thread that a device has for that; but what any device has compiled lies in the driver's cache on disk, from where the others
//! take it in a twentieth of the time. So each further core gets a device that launches kernels over nothing, and the one that
//! will run them comes after. Where the driver keeps nothing on disk, that one compiles everything itself, as it would alone.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::Context;
use super::pipelines::Text;
use crate::Result;
use crate::kernel::BoundKernel;

/// Threads that compile, at most: more would wait for one another's memory and for the one that collects.
const MOST_THREADS: usize = 8;

/// What compiling a kernel costs beside its text, in bytes of text; measured on software Vulkan.
const COST_OF_ANY: usize = 800;

/// Part of the work after which it can be told how long the rest will take: the costliest come first and cost more than their
/// length tells.
const FORESEEABLE: f64 = 0.2;

/// How far [`Context::build`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildProgress {
    /// Kernels that are ready.
    pub done: usize,
    /// All of them; those of one text count once.
    pub all: usize,
    /// What the others will take, once that can be told.
    pub left: Option<Duration>,
}

/// Kernels that wait to be compiled, the costliest first, so that no thread is left with one at the end.
struct Waiting<'a> {
    kernels: Vec<(usize, &'a BoundKernel)>,
    next: AtomicUsize,
}

impl<'a> Waiting<'a> {
    fn new(kernels: &'a [BoundKernel]) -> Result<Self> {
        let texts = kernels.par_iter().map(Text::of).collect::<Result<Vec<_>>>()?;
        let costs: HashMap<Text, (usize, &BoundKernel)> = texts
            .into_iter()
            .zip(kernels)
            .map(|(text, kernel)| {
                let cost = COST_OF_ANY + text.source.len();
                (text, (cost, kernel))
            })
            .collect();
        let mut kernels: Vec<_> = costs.into_values().collect();
        kernels.sort_by_key(|&(cost, kernel)| (Reverse(cost), kernel));
        Ok(Waiting { kernels, next: AtomicUsize::new(0) })
    }

    fn take(&self) -> Option<(usize, &'a BoundKernel)> {
        self.kernels.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
    }

    fn leave_all(&self) {
        self.next.store(self.kernels.len(), Ordering::Relaxed);
    }
}

impl Context {
    /// Builds `kernels` before they are needed, several at once, and asks `proceed` before each; false if it said no.
    ///
    /// # Errors
    /// As for [`Context::pipeline`].
    pub fn build(&self, kernels: &[BoundKernel], proceed: impl FnMut(BuildProgress) -> bool) -> Result<bool> {
        let waiting = Waiting::new(kernels)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(kernels.len());
        let (hand_over, compiled) = mpsc::channel();
        let is_whole = std::thread::scope(|scope| {
            for _ in 1..threads {
                let (waiting, hand_over) = (&waiting, hand_over.clone());
                scope.spawn(move || self.compile_for_others(waiting, &hand_over));
            }
            drop(hand_over);
            let end = self.collect(&waiting, &compiled, threads, proceed);
            waiting.leave_all();
            end
        })?;
        if is_whole {
            self.save_pipeline_cache();
        }
        Ok(is_whole)
    }

    /// Makes every kernel ready on this device: those that another thread has compiled, and between them its own share.
    fn collect<'a>(
        &self,
        waiting: &Waiting<'a>,
        compiled: &mpsc::Receiver<(usize, &'a BoundKernel)>,
        threads: usize,
        mut proceed: impl FnMut(BuildProgress) -> bool,
    ) -> Result<bool> {
        let cost_of_all: usize = waiting.kernels.iter().map(|(cost, _)| cost).sum();
        let (start, mut done, mut ready) = (Instant::now(), 0, 0);
        let mut theirs = VecDeque::new();
        loop {
            let part = ready as f64 / cost_of_all.max(1) as f64;
            let left = (part >= FORESEEABLE).then(|| start.elapsed().mul_f64((1.0 - part) / part));
            if !proceed(BuildProgress { done, all: waiting.kernels.len(), left }) {
                return Ok(false);
            }
            theirs.extend(compiled.try_iter());
            // The driver writes its cache behind our back, so the newest are left alone for a while.
            let settled = if theirs.len() > 2 * threads { theirs.pop_front() } else { None };
            let next =
                settled.or_else(|| waiting.take()).or_else(|| theirs.pop_front()).or_else(|| compiled.recv().ok());
            let Some((cost, (kernel, operands))) = next else { return Ok(true) };
            let pipeline = self.pipeline(kernel, *operands)?;
            if self.limits().is_software {
                self.launch_over_nothing(&pipeline, kernel, *operands)?;
            }
            (done, ready) = (done + 1, ready + cost);
        }
    }

    /// Compiles kernels until none is left. One that fails here fails again where it is needed, and is reported there.
    fn compile_for_others<'a>(&self, waiting: &Waiting<'a>, hand_over: &mpsc::Sender<(usize, &'a BoundKernel)>) {
        let twin = if self.limits().is_software { self.twin().ok() } else { None };
        if self.limits().is_software && twin.is_none() {
            return;
        }
        while let Some((cost, bound)) = waiting.take() {
            let (kernel, operands) = bound;
            // What comes before the driver need not be done by the thread that collects.
            let _ = self.pipeline(kernel, *operands);
            if let Some(twin) = &twin {
                let _ = twin
                    .pipeline(kernel, *operands)
                    .and_then(|pipeline| twin.launch_over_nothing(&pipeline, kernel, *operands));
            }
            if hand_over.send((cost, bound)).is_err() {
                return;
            }
        }
    }

    /// Another device of the same adapter.
    fn twin(&self) -> Result<Arc<Context>> {
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            faults.clone().enter();
        }
        Context::of(&self.source, self.adapter.clone())
    }
}
