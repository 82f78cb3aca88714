//! The order in which clips are visited: shuffled anew every epoch, and resumable at any place.

use crate::rng::Rng;

/// Keeps the sampler's random numbers apart from those of every other user of the same seed.
const STREAM: u64 = 0x5A << 32;

/// A place in the endless sequence of clips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cursor {
    /// How many times all clips have been visited.
    pub epoch: u64,
    /// How many clips of this epoch have been visited.
    pub position: usize,
}

/// Visits the clips `0..len` in a new random order every epoch; the order depends on the seed and the epoch only.
#[derive(Debug, Clone)]
pub struct Sampler {
    seed: u64,
    cursor: Cursor,
    order: Vec<u32>,
}

impl Sampler {
    /// A sampler of `len` clips (at least 1, at most 2^32) that goes on at `cursor`.
    pub fn new(len: usize, seed: u64, cursor: Cursor) -> Self {
        let len = len.clamp(1, u32::MAX as usize);
        let cursor = if cursor.position < len { cursor } else { Cursor { epoch: cursor.epoch + 1, position: 0 } };
        Sampler { seed, cursor, order: order(len, seed, cursor.epoch) }
    }

    /// The place before the next clip.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next clip's index.
    pub fn next_index(&mut self) -> usize {
        let index = self.order[self.cursor.position] as usize;
        self.cursor.position += 1;
        if self.cursor.position == self.order.len() {
            self.cursor = Cursor { epoch: self.cursor.epoch + 1, position: 0 };
            self.order = order(self.order.len(), self.seed, self.cursor.epoch);
        }
        index
    }
}

fn order(len: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    Rng::new(seed, STREAM | (epoch & 0xFFFF_FFFF)).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_every_clip_once_and_differs_from_the_next() {
        let mut sampler = Sampler::new(50, 1, Cursor::default());
        let first: Vec<usize> = (0..50).map(|_| sampler.next_index()).collect();
        assert_eq!(sampler.cursor(), Cursor { epoch: 1, position: 0 });
        let second: Vec<usize> = (0..50).map(|_| sampler.next_index()).collect();
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..50).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_restored_sampler_goes_on_where_it_was() {
        let mut sampler = Sampler::new(7, 9, Cursor::default());
        for _ in 0..17 {
            sampler.next_index();
        }
        let mut restored = Sampler::new(7, 9, sampler.cursor());
        for _ in 0..30 {
            assert_eq!(sampler.next_index(), restored.next_index());
        }
    }
}
