//! Where the window writes what it makes: below the current folder, or, where that cannot be written, below the user's own.

use std::path::{Path, PathBuf};

use crate::data::synth::{self, SynthOptions};
use crate::files::{is_incomplete, make_folder};

/// The folder `name`, which exists then, unless nothing can be written at all.
pub fn folder(name: &str) -> PathBuf {
    let here = PathBuf::from(name);
    match std::env::home_dir() {
        Some(home) if make_folder(&here).is_err() => home.join("sep4d").join(name),
        _ => here,
    }
}

/// Where a generated town goes in `parent`: to the same town if it is there already, else where no other is.
pub fn town(parent: &Path, options: &SynthOptions) -> PathBuf {
    let numbered = |n: usize| parent.join(if n == 1 { "town".to_owned() } else { format!("town-{n}") });
    let mut towns = (1..).map(numbered);
    let fits = |path: &PathBuf| !path.exists() || is_incomplete(path) || synth::is_written(path, options);
    towns.find(fits).unwrap_or_else(|| numbered(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synth::Level;

    #[test]
    fn a_town_is_found_again_and_no_other_is_written_over() {
        let parent = tempfile::tempdir().unwrap();
        let grid = synth::grid([8, 8, 4], [1.6, 1.6, 0.75]).unwrap();
        let first =
            SynthOptions { grid, frames: 2, towns: [1, 0, 0], levels: vec![Level::Light], ..Default::default() };
        let place = town(parent.path(), &first);
        assert_eq!(place, parent.path().join("town"));
        synth::write(&place, &first, |_| {}).unwrap();
        assert_eq!(town(parent.path(), &first), place);
        let other = SynthOptions { frames: 3, ..first };
        assert_eq!(town(parent.path(), &other), parent.path().join("town-2"));
        std::fs::write(place.join("INCOMPLETE.txt"), "").unwrap();
        assert_eq!(town(parent.path(), &other), place, "what was given up is no loss");
    }
}
