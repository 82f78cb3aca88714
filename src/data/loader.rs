//! A background thread that reads and assembles batches ahead of the trainer.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::batch::{Batch, Symmetry};
use super::frames::FrameCache;
use super::sampler::{Cursor, Sampler};
use super::{Clip, Dataset};
use crate::rng::Rng;
use crate::{Error, Result};

/// Keeps the augmentation's random numbers apart from those of every other user of the same seed.
const STREAM: u64 = 0xA5 << 56;

/// How batches are drawn.
#[derive(Debug, Clone, Copy)]
pub struct LoaderOptions {
    /// B, the number of clips of a batch.
    pub batch: usize,
    /// The seed of the shuffling and the augmentation.
    pub seed: u64,
    /// Whether clips are flipped and turned at random.
    pub augment: bool,
    /// Where to begin: the cursor of the last batch delivered before a stop, or the default.
    pub cursor: Cursor,
    /// How many batches to prepare ahead.
    pub prefetch: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions { batch: 1, seed: 0, augment: false, cursor: Cursor::default(), prefetch: 2 }
    }
}

/// A batch, and where to go on after it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The batch.
    pub batch: Batch,
    /// The cursor that makes a new loader deliver what would have come next.
    pub cursor: Cursor,
}

/// Delivers batches for ever, in an order that depends on the seed and the cursor only.
#[derive(Debug)]
pub struct Loader {
    receiver: Option<Receiver<Result<Delivery>>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Usage`] if the batch is empty; [`Error::Data`] if the thread cannot be started.
    pub fn new(dataset: Arc<Dataset>, options: LoaderOptions) -> Result<Loader> {
        if options.batch == 0 {
            return Err(Error::Usage("a batch needs at least one clip; set train.batch to 1 or more".into()));
        }
        let (sender, receiver) = sync_channel(options.prefetch.max(1));
        let mut sampler = Sampler::new(dataset.len(), options.seed, options.cursor);
        let kept = FrameCache::default();
        let work = move || {
            loop {
                let delivery = next_batch(&dataset, &kept, &mut sampler, &options);
                let failed = delivery.is_err();
                if sender.send(delivery).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("batches".into())
            .spawn(work)
            .map_err(|e| Error::Data(format!("the thread that reads batches cannot be started: {e}")))?;
        Ok(Loader { receiver: Some(receiver), thread: Some(thread) })
    }

    /// Waits for the next batch.
    ///
    /// # Errors
    /// [`Error::Data`] if a file of the batch cannot be read; no batch comes after that.
    pub fn next_batch(&mut self) -> Result<Delivery> {
        let ended = || Error::Data("no more batches come after a failed one; start a new loader".into());
        self.receiver.as_ref().ok_or_else(ended)?.recv().map_err(|_| ended())?
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channel ends the thread at its next delivery.
        drop(self.receiver.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn next_batch(
    dataset: &Dataset,
    kept: &FrameCache,
    sampler: &mut Sampler,
    options: &LoaderOptions,
) -> Result<Delivery> {
    let grid = dataset.grid();
    let clips = (0..options.batch)
        .map(|_| {
            let at = sampler.cursor();
            let clip = dataset.clip_through(sampler.next_index(), Some(kept))?;
            if !options.augment {
                return Ok(clip);
            }
            let stream = STREAM | (at.epoch & 0xFF_FFFF) << 32 | (at.position as u64 & 0xFFFF_FFFF);
            let mut rng = Rng::new(options.seed, stream);
            Ok(Symmetry::random(&mut rng, &grid).apply(&clip, &grid))
        })
        .collect::<Result<Vec<Clip>>>()?;
    Ok(Delivery { batch: dataset.batch(&clips)?, cursor: sampler.cursor() })
}
