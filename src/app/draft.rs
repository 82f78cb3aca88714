//! Changes to the settings of the next run: what was set on purpose survives a change of the preset.

use toml::Value;

use crate::Result;
use crate::models::{ALIGN, BY_POSES, OF_THE_POSES};
use crate::train::config::{Preset, RunConfig};

/// What no preset decides.
pub const GIVEN: [&str; 4] = ["model.architecture", "data.root", "model.classes", "output.dir"];

/// What `key` would be if nobody had set it.
pub fn preset_value(config: &RunConfig, key: &str) -> Option<Value> {
    // Other defaults depend on the number of frames, but not that number itself.
    let frames = (key != "data.frames").then_some(config.data.frames);
    config.like(config.train.preset, frames).ok()?.value(key)
}

/// Whether `key` was set on purpose.
pub fn is_edited(config: &RunConfig, key: &str) -> bool {
    let preset = || preset_value(config, key);
    // What the data have decided, as the preset leaves it to them, nobody has set.
    let is_of_the_data = || {
        let is = |value: Option<Value>, name: &str| value.is_some_and(|value| value.as_str() == Some(name));
        key == ALIGN && is(config.value(key), BY_POSES) && is(preset(), OF_THE_POSES)
    };
    key != "train.preset" && !GIVEN.contains(&key) && config.value(key) != preset() && !is_of_the_data()
}

/// The keys that were set on purpose.
pub fn edited(config: &RunConfig) -> Vec<&'static str> {
    RunConfig::keys().map(|(key, _)| key).filter(|key| is_edited(config, key)).collect()
}

/// The settings with another value for `key`; what follows from the preset follows from it anew.
///
/// # Errors
/// [`crate::Error::Usage`] if the value is of another type.
pub fn set(config: &RunConfig, key: &'static str, value: Value) -> Result<RunConfig> {
    let changed = config.with_values([(key, value)])?;
    if !matches!(key, "train.preset" | "data.frames") {
        return Ok(changed);
    }
    let kept = GIVEN.into_iter().chain(edited(config)).filter(|kept| *kept != key);
    let values: Vec<_> = kept.filter_map(|key| Some((key, config.value(key)?))).collect();
    // A number of frames that was set on purpose survives, and batches follow from it.
    let frames = match key {
        "data.frames" => Some(changed.data.frames),
        _ => is_edited(config, "data.frames").then_some(config.data.frames),
    };
    changed.like(changed.train.preset, frames)?.with_values(values)
}

/// The settings with `key` as the preset has it.
///
/// # Errors
/// As for [`set`].
pub fn reset(config: &RunConfig, key: &'static str) -> Result<RunConfig> {
    preset_value(config, key).map_or_else(|| Ok(config.clone()), |value| set(config, key, value))
}

/// The settings with everything as the preset has it.
///
/// # Errors
/// As for [`set`].
pub fn reset_all(config: &RunConfig) -> Result<RunConfig> {
    let given = GIVEN.into_iter().filter_map(|key| Some((key, config.value(key)?)));
    config.like(config.train.preset, None)?.with_values(given)
}

/// The key that a sentence of [`RunConfig::validate`] is about.
pub fn culprit(sentence: &str) -> Option<&'static str> {
    let keys = RunConfig::keys().filter_map(|(key, _)| Some((sentence.find(key)?, key)));
    // Of two keys at one place the longer is meant.
    keys.min_by_key(|(at, key)| (*at, usize::MAX - key.len())).map(|(_, key)| key)
}

/// What a preset is for.
pub fn about(preset: Preset) -> &'static str {
    match preset {
        Preset::Tiny => "seconds, for tests",
        Preset::Demo => "minutes on a CPU",
        Preset::Base => "half the paper's width",
        Preset::Paper => "the paper's",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> RunConfig {
        let mut config = RunConfig::preset(Preset::Demo, None);
        config.data.root = "somewhere".into();
        config
    }

    #[test]
    fn a_new_preset_keeps_what_was_set_on_purpose() {
        let config = set(&demo(), "train.steps", Value::Integer(77)).unwrap();
        let config = set(&config, "train.kl", Value::Float(0.5)).unwrap();
        assert_eq!(edited(&config), ["train.steps", "train.kl"]);
        let config = set(&config, "train.preset", Value::String("paper".into())).unwrap();
        let mut expected = RunConfig::preset(Preset::Paper, None);
        expected.data.root = "somewhere".into();
        (expected.train.steps, expected.train.kl) = (77, 0.5);
        assert_eq!(config, expected);
        assert_eq!(reset_all(&config).unwrap().train, RunConfig::preset(Preset::Paper, None).train);
        assert_eq!(reset_all(&config).unwrap().data.root, expected.data.root);
    }

    #[test]
    fn what_the_data_decide_was_set_by_nobody() {
        let align = |name: &str| set(&demo(), ALIGN, Value::String(name.into())).unwrap();
        assert!(edited(&demo()).is_empty() && edited(&align(BY_POSES)).is_empty());
        assert_eq!(edited(&align("none")), [ALIGN]);
    }

    #[test]
    fn what_follows_from_the_frames_follows_anew() {
        let paper = set(&demo(), "train.preset", Value::String("paper".into())).unwrap();
        assert_eq!((paper.data.frames, paper.train.batch), (16, 1));
        let short = set(&paper, "data.frames", Value::Integer(4)).unwrap();
        assert_eq!((short.data.frames, short.train.batch), (4, 2));
        assert_eq!(edited(&short), ["data.frames"]);
        let base = set(&short, "train.preset", Value::String("tiny".into())).unwrap();
        assert_eq!(base.data.frames, 4);
        assert_eq!(reset(&short, "data.frames").unwrap(), paper);
    }

    #[test]
    fn a_sentence_is_told_where_it_belongs() {
        let mut config = demo();
        config.train.keep_last = 0;
        assert_eq!(culprit(&config.validate().unwrap_err().to_string()), Some("train.keep_last"));
        let mut config = demo();
        config.train.milestones = vec![2.0];
        assert_eq!(culprit(&config.validate().unwrap_err().to_string()), Some("train.milestones"));
        let mut config = demo();
        config.data.validation_clips = 0;
        assert_eq!(culprit(&config.validate().unwrap_err().to_string()), Some("data.validation_clips"));
        assert_eq!(culprit("all is well"), None);
    }
}
