//! `sep4d export RUN OUT`: reconstructions and latents as files.
//!
//! Frames are written in the format of the data set, so that the exported folder can be read like any (docs/datasets.md). The
//! latents of the clip from frame NNNNNN, each with its name, lie beside them in `OUT/<Split>/<Sequence>/latents/NNNNNN.npz`.
//!
//! Until all is written, OUT/INCOMPLETE.txt keeps a part from being taken for the whole.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use npyz::WriterBuilder;
use npyz::npz::NpzWriter;
use npyz::zip::write::FileOptions;
use sep4d::data::{Dataset, Exported};
use sep4d::files::{
    IncompleteMark, check_can_be_folder, is_incomplete, is_vacant, make_folder, unwritable, write_atomically,
};
use sep4d::models::LatentKind;
use sep4d::train::inference::Latent;
use sep4d::train::validation::reconstruct;
use sep4d::{Error, Result};

use super::console::Console;
use super::model::{self, Model};
use super::output::say;
use super::signals;

/// Write reconstructions, in the data's own format, and latents (.npz) of a whole split
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: model::Args,
    /// Folder to write, in the format of the data; new or empty
    out: PathBuf,
    /// At most this many clips, from the first on; 0 for all [default: all]
    #[arg(long)]
    clips: Option<usize>,
}

/// Exports.
///
/// # Errors
/// [`Error::Usage`] if the folder is not empty, [`Error::Data`] if a file cannot be written, and as for [`Model::open`].
pub fn run(args: Args) -> Result<()> {
    check_can_be_folder(&args.out)?;
    // What an export that was stopped has left is written again.
    if !is_incomplete(&args.out) && !is_vacant(&args.out)? {
        return Err(Error::Usage(format!("{} is not empty; choose a new folder", args.out.display())));
    }
    signals::explain(format!("{} is not complete: run the command again", args.out.display()));
    let mut model = Model::open(&args.model)?;
    let mut clips = covering(&model.dataset);
    clips.truncate(args.clips.filter(|&count| count > 0).unwrap_or(usize::MAX));
    let mark = IncompleteMark::set(&args.out, "sep4d export")?;
    let console = Console::new(clips.len() as u64, "clips");
    let split = model.dataset.split();
    let voxels = model.dataset.grid().voxels();
    let mut sink = model.dataset.sink(&args.out)?;
    // The frames of each sequence that are written already.
    let mut written: HashSet<(String, usize)> = HashSet::new();
    for (done, &index) in clips.iter().enumerate() {
        let shown = reconstruct(&mut model.inference, &model.dataset, index)?;
        let frames = shown.labels.chunks(voxels).zip(shown.observed.chunks(voxels));
        for (t, (labels, observed)) in frames.enumerate() {
            let number = shown.first_frame + t * shown.frame_step;
            if written.insert((shown.sequence.clone(), number)) {
                sink.put(&Exported { split, sequence: &shown.sequence, number, labels, observed })?;
            }
        }
        let latents = sink.beside(split, &shown.sequence).join("latents");
        write_latents(&latents, shown.first_frame, &shown.latents)?;
        console.advance(done as u64 + 1, shown.sequence);
    }
    sink.finish()?;
    mark.clear()?;
    console.end();
    model.context.save_pipeline_cache();
    say!("{}", model.dataset.about())?;
    say!("exported {} clips to {}", clips.len(), args.out.display())?;
    Ok(())
}

/// Clips that together hold every frame, with as little overlap as possible.
fn covering(dataset: &Dataset) -> Vec<usize> {
    let starts: HashSet<(&str, usize)> = (0..dataset.len()).filter_map(|index| dataset.origin(index)).collect();
    let mut covered: HashSet<(&str, usize)> = HashSet::new();
    let mut clips = Vec::new();
    for index in 0..dataset.len() {
        let (Some((sequence, first)), Some(step)) = (dataset.origin(index), dataset.frame_step(index)) else {
            continue;
        };
        let numbers = (0..dataset.frames_per_clip()).map(|t| (sequence, first + t * step));
        // The last frames of a row of clips are in none that begins later.
        let is_end = !starts.contains(&(sequence, first + step));
        if !covered.contains(&(sequence, first)) || is_end && !numbers.clone().all(|number| covered.contains(&number)) {
            covered.extend(numbers);
            clips.push(index);
        }
    }
    clips
}

fn write_latents(folder: &Path, first_frame: usize, latents: &[Latent]) -> Result<()> {
    make_folder(folder)?;
    let path = folder.join(format!("{first_frame:06}.npz"));
    let mut bytes = std::io::Cursor::new(Vec::new());
    let write = |bytes: &mut std::io::Cursor<Vec<u8>>| -> std::io::Result<()> {
        let mut file = NpzWriter::new(bytes);
        for latent in latents {
            // Of the batch's one clip.
            let shape: Vec<u64> = latent.shape.iter().skip(1).map(|&side| side as u64).collect();
            let name = latent.spec.name;
            let parts = match latent.spec.kind {
                LatentKind::Gaussian => {
                    vec![(format!("{name}_mu"), &latent.mu), (format!("{name}_logvar"), &latent.logvar)]
                }
                LatentKind::Plain | LatentKind::Motion | LatentKind::Code { .. } => vec![(name.to_owned(), &latent.mu)],
            };
            for (name, values) in parts {
                let array = file.array::<f32>(&name, FileOptions::default())?.default_dtype().shape(&shape);
                let mut array = array.begin_nd()?;
                array.extend(values.iter().copied())?;
                array.finish()?;
            }
        }
        Ok(())
    };
    write(&mut bytes).map_err(|why| unwritable(&path, &why))?;
    write_atomically(&path, bytes.get_ref())
}

#[cfg(test)]
mod tests {
    use sep4d::data::synth::{self, Level, SynthOptions};
    use sep4d::data::{DatasetOptions, Split};

    use super::*;

    #[test]
    fn every_frame_is_exported_at_any_stride() {
        let dir = tempfile::tempdir().unwrap();
        let grid = synth::grid([4, 4, 2], [1.6, 1.6, 0.75]).unwrap();
        let options = SynthOptions {
            grid,
            frames: 11,
            towns: [0, 1, 0],
            levels: vec![Level::Light, Level::Heavy],
            ..Default::default()
        };
        synth::write(dir.path(), &options, |_| {}).unwrap();
        let clips = |stride: usize| {
            let options = DatasetOptions { frames_per_clip: 3, stride, ..Default::default() };
            let set = Dataset::open(dir.path(), Split::Val, options).unwrap();
            let chosen = covering(&set);
            let held = |index: &usize| {
                let (name, first) = set.origin(*index).unwrap();
                (0..3).map(|t| (name.to_owned(), first + t * set.frame_step(*index).unwrap())).collect::<Vec<_>>()
            };
            let of = |clips: &[usize]| clips.iter().flat_map(held).collect::<HashSet<(String, usize)>>();
            assert_eq!(of(&chosen), of(&(0..set.len()).collect::<Vec<_>>()), "stride {stride}");
            chosen
        };
        assert_eq!(clips(1), [0, 3, 6, 8, 9, 12, 15, 17]);
        assert_eq!(clips(2), [0, 1, 5, 6, 7, 8, 12, 13]);
        assert_eq!(clips(5), [0, 1]);
    }
}
