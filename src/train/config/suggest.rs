//! The key that was meant by one that does not exist.

use strsim::osa_distance;

use super::RunConfig;

/// What other programs, and papers, call the keys. Of keys that share a name, the likelier comes first.
const ALIASES: [(&str, &[&str]); 31] = [
    ("data.root", &["path", "dir", "folder", "dataset", "data", "data_path", "dataset_path", "root_dir", "input"]),
    ("data.frames", &["t", "num_frames", "n_frames", "clip_length", "sequence_length", "seq_len", "window"]),
    ("data.stride", &["skip", "frame_skip", "frame_step", "subsample"]),
    ("data.sequences", &["scenes", "towns", "sequence", "seqs"]),
    ("data.crop", &["size", "grid", "grid_size", "roi", "voxels", "resolution"]),
    ("data.val_split", &["split", "val", "eval_split", "validation_split", "test_split"]),
    ("data.augment", &["aug", "augmentation", "flip"]),
    ("data.validation_clips", &["val_clips", "eval_clips"]),
    ("model.classes", &["k", "num_classes", "n_classes"]),
    ("model.latent_channels", &["c", "latent_dim", "latent", "z_dim", "z_channels"]),
    ("model.plane_features", &["d", "plane_channels"]),
    ("model.features", &["f", "feature_dim", "frame_features"]),
    ("model.hidden", &["hidden_dim", "hidden_size", "hidden_channels", "channels"]),
    ("train.steps", &["epochs", "num_epochs", "max_epochs", "max_steps", "iterations", "iters", "max_iters", "length"]),
    ("train.batch", &["b", "bs", "batch_size"]),
    (
        "train.accumulate",
        &["accum", "grad_accum", "accumulation_steps", "gradient_accumulation_steps", "accumulate_grad_batches"],
    ),
    ("train.ema", &["ema_decay", "ema_rate", "polyak", "swa"]),
    ("train.precision", &["amp", "fp16", "half", "mixed_precision", "dtype"]),
    ("train.learning_rate", &["lr", "base_lr", "init_lr", "alpha"]),
    ("train.milestones", &["lr_steps", "lr_milestones"]),
    ("train.schedule", &["lr_schedule", "scheduler", "lr_scheduler"]),
    ("train.warmup", &["warmup_steps", "warmup_iters", "warm_up"]),
    ("train.decay", &["gamma", "lr_decay", "lr_gamma"]),
    ("train.weight_decay", &["wd", "l2"]),
    ("train.clip_norm", &["grad_clip", "clip_grad", "gradient_clip", "max_norm", "max_grad_norm", "grad_norm"]),
    ("train.cross_entropy", &["ce", "ce_weight"]),
    ("train.kl", &["beta", "kld", "kl_weight", "kl_divergence"]),
    ("train.prefetch", &["workers", "num_workers"]),
    ("train.validate_every", &["eval_every", "val_every", "eval_interval", "val_interval"]),
    ("train.device", &["gpu", "cuda", "adapter"]),
    (
        "output.dir",
        &["out", "output", "path", "folder", "run", "run_dir", "out_dir", "save_dir", "work_dir", "log_dir"],
    ),
];

/// Names shorter than this are only told apart from others by being equal.
const SHORTEST: usize = 4;
/// Longer than any that is meant for a key.
const LONGEST: usize = 64;

/// The key that was most likely meant by `key`, if any is likely: one of the same name, or that others call so, or that is
/// spelt alike, or begins alike; of several, the one in the same section.
pub fn nearest(key: &str) -> Option<&'static str> {
    if key.len() > LONGEST {
        return None;
    }
    let key = key.trim().to_lowercase().replace('-', "_");
    let (section, name) = key.rsplit_once('.').unwrap_or(("", &key));
    let keys = || RunConfig::keys().map(|(known, _)| known);
    if keys().any(|known| section_of(known) == key) {
        return None;
    }
    let elsewhere = |known: &str| !section.is_empty() && section_of(known) != section;
    let own = keys().flat_map(|known| [(known, name_of(known), 0), (known, known, 0)]);
    let aliases = ALIASES.iter().flat_map(|(known, names)| names.iter().map(|alias| (*known, *alias, 1)));
    let spelt_alike = own
        .chain(aliases)
        .filter_map(|(known, other, rank)| Some((distance(name, other)?, elsewhere(known), rank, known)))
        .min_by_key(|(distance, elsewhere, rank, _)| (*distance, *elsewhere, *rank));
    let begins_alike = || keys().filter(|known| begin_alike(name, name_of(known))).min_by_key(|known| elsewhere(known));
    spelt_alike.map(|(.., known)| known).or_else(begins_alike)
}

fn section_of(key: &str) -> &str {
    key.split_once('.').map_or("", |(section, _)| section)
}

fn name_of(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, name)| name)
}

/// How many letters are to be changed, left out, added or swapped to make `known` of `name`, whatever separates their words;
/// `None` if those are too many for a slip.
fn distance(name: &str, known: &str) -> Option<usize> {
    let letters = |text: &str| text.replace(['_', '.'], "");
    let (name, known) = (letters(name), letters(known));
    let slips = if known.len() < SHORTEST { 0 } else { name.len() / 3 };
    Some(osa_distance(&name, &known)).filter(|distance| *distance <= slips)
}

/// Whether one begins with all words of the other.
fn begin_alike(name: &str, known: &str) -> bool {
    let goes_on = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'));
    goes_on(name, known) || goes_on(known, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_elsewhere_are_understood() {
        for (meant, key) in [
            ("train.lr", "train.learning_rate"),
            ("lr", "train.learning_rate"),
            ("optimizer.lr", "train.learning_rate"),
            ("data.path", "data.root"),
            ("data.dir", "data.root"),
            ("output.path", "output.dir"),
            ("dir", "output.dir"),
            ("train.epochs", "train.steps"),
            ("train.batch_size", "train.batch"),
            ("data.batch-size", "train.batch"),
            ("T", "data.frames"),
            ("data.T", "data.frames"),
            ("model.frames", "data.frames"),
            ("train.gpu", "train.device"),
            ("train.amp", "train.precision"),
            ("train.wd", "train.weight_decay"),
        ] {
            assert_eq!(nearest(meant), Some(key), "{meant}");
        }
    }

    #[test]
    fn slips_are_understood() {
        for (meant, key) in [
            ("train.step", "train.steps"),
            ("trian.steps", "train.steps"),
            ("train_steps", "train.steps"),
            ("model.hiden", "model.hidden"),
            ("train.learningRate", "train.learning_rate"),
            ("train.leraning_rate", "train.learning_rate"),
            ("train.bacth_size", "train.batch"),
            ("train.learning", "train.learning_rate"),
            ("train.checkpoint", "train.checkpoint_every"),
            ("train.seed_everything", "train.seed"),
            ("data.rooot", "data.root"),
        ] {
            assert_eq!(nearest(meant), Some(key), "{meant}");
        }
    }

    #[test]
    fn what_is_like_no_key_is_not_likened_to_one() {
        for key in
            ["train.momentum", "train.optimizer", "model.pooling", "data.fps", "x", "train.xl", "", ".", "train", "ж.ж"]
        {
            assert_eq!(nearest(key), None, "{key}");
        }
    }

    #[test]
    fn aliases_stand_for_keys_and_hide_none() {
        let keys: Vec<&str> = RunConfig::keys().map(|(key, _)| key).collect();
        for (key, aliases) in ALIASES {
            assert!(keys.contains(&key), "{key}");
            for alias in aliases {
                let section = section_of(key);
                assert!(!keys.contains(&format!("{section}.{alias}").as_str()), "{section}.{alias} is a key");
            }
        }
    }
}
