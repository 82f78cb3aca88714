//! Time in the views: which frame, and whether it runs.

use serde::{Deserialize, Serialize};

/// Speeds to choose from, times real time.
pub const SPEEDS: [f32; 6] = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0];

/// How long a frame stays when the data does not say, seconds.
pub const DEFAULT_FRAME_SECS: f64 = 0.2;

/// The place in the clip and how it moves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Playback {
    /// The frame in view.
    #[serde(skip)]
    pub frame: usize,
    /// Whether time runs.
    #[serde(skip)]
    pub playing: bool,
    /// Begin again at the end.
    pub looping: bool,
    /// Index into [`SPEEDS`].
    pub speed: usize,
    /// The frame to go to in the clip that is on its way.
    #[serde(skip)]
    awaited: Option<usize>,
    /// Seconds since the frame in view came up, at normal speed.
    #[serde(skip)]
    elapsed_secs: f64,
}

impl Default for Playback {
    fn default() -> Playback {
        Playback { frame: 0, playing: false, looping: true, speed: 3, awaited: None, elapsed_secs: 0.0 }
    }
}

impl Playback {
    /// Times real time.
    pub fn rate(&self) -> f32 {
        SPEEDS[self.speed.min(SPEEDS.len() - 1)]
    }

    /// Slower (below 0) or faster.
    pub fn change_speed(&mut self, by: isize) {
        self.speed = self.speed.saturating_add_signed(by).min(SPEEDS.len() - 1);
    }

    /// Goes to `frame`, at most the last of `frames`.
    pub fn seek(&mut self, frame: usize, frames: usize) {
        self.frame = frame.min(frames.saturating_sub(1));
        self.awaited = None;
        self.elapsed_secs = 0.0;
    }

    /// Goes to `frame` of another clip once that is there; until then time stands still.
    pub fn await_frame(&mut self, frame: usize) {
        self.awaited = Some(frame);
    }

    /// Another clip of `frames` frames is there.
    pub fn arrive(&mut self, frames: usize) {
        self.seek(self.awaited.unwrap_or(self.frame), frames);
    }

    /// Goes `by` frames on or back; past an end it stays there.
    pub fn step(&mut self, by: isize, frames: usize) {
        self.seek(self.frame.saturating_add_signed(by), frames);
    }

    /// Starts or stops; a start at the end begins anew.
    pub fn toggle(&mut self, frames: usize) {
        self.playing = !self.playing && frames > 1;
        if self.playing && self.frame + 1 >= frames {
            self.seek(0, frames);
        }
    }

    /// Lets `passed_secs` pass in a clip whose frames stay `frame_secs` each; returns seconds until the next frame is due.
    /// Past the end the clip begins again, or time stops.
    pub fn advance(&mut self, passed_secs: f64, frame_secs: f64, frames: usize) -> Option<f64> {
        if !self.playing || frames < 2 || self.awaited.is_some() {
            return None;
        }
        let frame_secs = frame_secs.max(1e-3);
        self.elapsed_secs += passed_secs * f64::from(self.rate());
        let steps = (self.elapsed_secs / frame_secs).floor();
        self.elapsed_secs -= steps * frame_secs;
        let target = self.frame + steps as usize;
        if target < frames {
            self.frame = target;
        } else if self.looping {
            self.frame = target % frames;
        } else {
            self.frame = frames - 1;
            self.playing = false;
            return None;
        }
        Some((frame_secs - self.elapsed_secs) / f64::from(self.rate()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn playing() -> Playback {
        let mut playback = Playback::default();
        playback.toggle(4);
        playback
    }

    #[test]
    fn time_moves_frames_at_the_chosen_speed() {
        let mut playback = playing();
        let due = playback.advance(0.15, 0.1, 4).unwrap();
        assert_eq!(playback.frame, 1);
        assert!((due - 0.05).abs() < 1e-9);
        playback.change_speed(1);
        assert_eq!(playback.rate(), 2.0);
        playback.advance(0.1, 0.1, 4);
        assert_eq!(playback.frame, 3);
    }

    #[test]
    fn the_end_loops_or_stops() {
        let mut playback = playing();
        playback.advance(0.45, 0.1, 4);
        assert_eq!((playback.frame, playback.playing), (0, true));
        playback.looping = false;
        playback.advance(0.5, 0.1, 4);
        assert_eq!((playback.frame, playback.playing), (3, false));
        playback.toggle(4);
        assert_eq!((playback.frame, playback.playing), (0, true));
    }

    #[test]
    fn time_stands_still_until_another_clip_is_there() {
        let mut playback = playing();
        playback.await_frame(2);
        assert_eq!(playback.advance(1.0, 0.1, 4), None);
        assert_eq!((playback.frame, playback.playing), (0, true));
        playback.arrive(4);
        assert_eq!(playback.frame, 2);
        assert!(playback.advance(0.1, 0.1, 4).is_some());
    }

    #[test]
    fn steps_stop_at_the_ends() {
        let mut playback = Playback::default();
        playback.step(-1, 4);
        assert_eq!(playback.frame, 0);
        playback.step(10, 4);
        assert_eq!(playback.frame, 3);
        playback.change_speed(-100);
        assert_eq!(playback.rate(), SPEEDS[0]);
    }
}
