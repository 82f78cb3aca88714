//! What several test programs need.

use std::path::{Path, PathBuf};

use sep4d::data::synth::{self, Level, SynthOptions};

/// A small town in `parent`: 16x16x4 voxels, 6 frames each to train, validate and test on.
pub fn town(parent: &Path) -> PathBuf {
    let grid = synth::grid([16, 16, 4], [1.6, 1.6, 0.75]).expect("the grid is even");
    let options = SynthOptions { grid, seed: 3, frames: 6, towns: [1, 1, 1], levels: vec![Level::Light] };
    let out = parent.join("town");
    synth::write(&out, &options, |_| {}).expect("the town can be written");
    out
}

/// Lets the program heed the signals that whoever started the tests ignores, as `nohup` and shells do with what they run in the
/// background; the program would ignore them too.
#[cfg(unix)]
#[allow(dead_code)]
pub fn heeding_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let heed = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            // SAFETY: only sets what a signal does, which is allowed between fork and exec.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: `heed` calls nothing but `signal`, which is async-signal-safe.
    unsafe { command.pre_exec(heed) }
}
