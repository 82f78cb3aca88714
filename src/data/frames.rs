//! Frames that were read and may be wanted again: clips overlap, and small data sets fit whole.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::Frame;
use crate::Result;

/// Bytes of frames that a loader keeps.
const MOST_BYTES: usize = 256 << 20;

/// The latest frames, by sequence and place in it; as many as fit.
#[derive(Debug, Default)]
pub(super) struct FrameCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    frames: HashMap<(usize, usize), Arc<Frame>>,
    /// The oldest first.
    order: VecDeque<(usize, usize)>,
    bytes: usize,
}

impl FrameCache {
    /// The frame `at`, from here or as `read` reads it.
    ///
    /// # Errors
    /// What `read` fails with; nothing is kept then.
    pub fn get(&self, at: (usize, usize), read: impl FnOnce() -> Result<Frame>) -> Result<Frame> {
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept().frames.get(&at).cloned();
        if let Some(frame) = found {
            return Ok((*frame).clone());
        }
        let frame = read()?;
        let mut kept = kept();
        if kept.frames.insert(at, Arc::new(frame.clone())).is_none() {
            kept.order.push_back(at);
            kept.bytes += bytes(&frame);
        }
        while kept.bytes > MOST_BYTES {
            let Some(oldest) = kept.order.pop_front() else { break };
            kept.bytes -= kept.frames.remove(&oldest).map_or(0, |frame| bytes(&frame));
        }
        Ok(frame)
    }
}

fn bytes(frame: &Frame) -> usize {
    frame.labels.len() + frame.observed.len()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_frame_is_read_once_while_it_fits() {
        let (cache, reads) = (FrameCache::default(), Cell::new(0));
        let get = |i: usize, size: usize| {
            let read = || {
                reads.set(reads.get() + 1);
                Ok(Frame { labels: vec![i as u8; size], observed: Vec::new() })
            };
            assert_eq!(cache.get((0, i), read).unwrap().labels[0], i as u8);
        };
        [1, 2, 1, 2, 1].iter().for_each(|i| get(*i, 10));
        assert_eq!(reads.get(), 2);
        get(3, MOST_BYTES - 10);
        // The oldest one had to go.
        [2, 3, 1].iter().for_each(|i| get(*i, 10));
        assert_eq!(reads.get(), 4);
        assert!(cache.get((1, 0), || Err(crate::Error::Data("no".into()))).is_err());
    }
}
