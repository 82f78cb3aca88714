//! The chosen variants of kernels, kept on disk from one start to the next.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::hash::Fingerprint;
use crate::kernel::{Tuning, shader_files};

/// Set to 0, no variants are measured and kept choices are left out.
const SWITCH: &str = "SEP4D_AUTOTUNE";

/// A file of choices. They hold for one driver and one program: what they were measured with is written beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Choices {
    program: String,
    driver: String,
    chosen: Tuning,
}

/// Where the choices for one adapter are kept.
#[derive(Debug, Clone)]
pub(super) struct TuningFile {
    /// `None` if there is no folder for it; choices then hold for one run.
    path: Option<PathBuf>,
    driver: String,
}

impl TuningFile {
    /// The file in `folder` for the adapter; `None` if the switch is off.
    pub fn new(folder: Option<&Path>, info: &wgpu::AdapterInfo) -> Option<TuningFile> {
        if std::env::var_os(SWITCH).is_some_and(|value| value == "0") {
            return None;
        }
        let name = format!("tuning_{}_{}_{}.json", info.backend, info.vendor, info.device);
        let driver = format!("{} {} {}", info.name, info.driver, info.driver_info);
        Some(TuningFile { path: folder.map(|folder| folder.join(name)), driver })
    }

    /// What was kept with the same driver and program.
    pub fn read(&self) -> Tuning {
        let kept = || serde_json::from_slice::<Choices>(&std::fs::read(self.path.as_ref()?).ok()?).ok();
        match kept() {
            Some(Choices { program: of, driver, chosen }) if of == program() && driver == self.driver => chosen,
            _ => Tuning::new(),
        }
    }

    /// Keeps `chosen` beside what was kept before. A file that cannot be written only makes the next start slower, so failures
    /// are ignored.
    pub fn write(&self, chosen: &Tuning) {
        let Some(path) = &self.path else { return };
        let mut all = self.read();
        all.extend(chosen.clone());
        let choices = Choices { program: program(), driver: self.driver.clone(), chosen: all };
        let folder = path.parent().map(std::fs::create_dir_all);
        if let (Some(Ok(())), Ok(text)) = (folder, serde_json::to_vec_pretty(&choices)) {
            let _ = crate::files::write_atomically(path, &text);
        }
    }
}

/// This program's version and kernels.
fn program() -> String {
    let shaders = shader_files();
    let all = shaders.iter().fold(Fingerprint::default(), |all, (path, text)| all.and(path).and(text));
    format!("{} {all}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_hold_for_the_driver_they_were_measured_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = TuningFile { path: Some(folder.path().join("below/tuning.json")), driver: "driver 1".into() };
        assert!(file.read().is_empty());
        let chosen = Tuning::from([("conv3d_forward 3x3x3 64->64".to_owned(), "128x64".to_owned())]);
        file.write(&chosen);
        file.write(&Tuning::from([("linear_forward".to_owned(), "64x64".to_owned())]));
        assert!(file.read().len() == 2 && chosen.iter().all(|(problem, name)| file.read()[problem] == *name));
        assert!(TuningFile { driver: "driver 2".into(), ..file.clone() }.read().is_empty());
        std::fs::write(file.path.as_ref().unwrap(), "{").unwrap();
        assert!(file.read().is_empty());
    }
}
