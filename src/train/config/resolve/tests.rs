//! What becomes of presets, files and pairs.

use super::*;
use crate::data::ClassWeights;
use crate::models::ARCHITECTURES;

fn set(pairs: &[&str]) -> Result<RunConfig> {
    let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
    RunConfig::resolve(None, None, &pairs)
}

fn message(pairs: &[&str]) -> String {
    let error = set(pairs).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn the_documented_keys_are_the_keys() {
    let table = table(&RunConfig::preset(Preset::Demo, None)).unwrap();
    let mut keys: Vec<String> = Vec::new();
    for (section, value) in &table {
        keys.extend(value.as_table().unwrap().keys().map(|name| format!("{section}.{name}")));
    }
    let mut documented: Vec<String> = RunConfig::keys().map(|(key, _)| key.to_owned()).collect();
    for architecture in ARCHITECTURES {
        let model = ModelConfig::of(architecture, 0);
        keys.extend(Table::try_from(model).unwrap().keys().map(|name| format!("model.{name}")));
    }
    keys.sort();
    keys.dedup();
    documented.sort();
    assert_eq!(keys, documented);
    assert!(RunConfig::keys().all(|(_, doc)| doc.ends_with('.') && !doc.contains('\n')));
}

#[test]
fn every_preset_is_valid_and_survives_its_file() {
    for preset in Preset::ALL {
        for frames in [2, 4, 8, 16, 64] {
            let config = RunConfig::preset(preset, Some(frames));
            config.validate().unwrap();
            assert_eq!(RunConfig::from_toml(&config.to_toml(), "config.toml").unwrap(), config);
        }
    }
    // What an earlier version wrote had no stride and took all sequences.
    let text = RunConfig::preset(Preset::Demo, None).to_toml();
    let earlier: String = text
        .lines()
        .filter(|line| !line.contains("stride =") && !line.contains("sequences ="))
        .fold(String::new(), |text, line| text + line + "\n");
    assert_eq!(RunConfig::from_toml(&earlier, "config.toml").unwrap(), RunConfig::preset(Preset::Demo, None));
    let paper = |frames| RunConfig::preset(Preset::Paper, Some(frames)).train.batch;
    assert_eq!([4, 8, 16, 32, 64].map(paper), [2, 2, 1, 1, 1]);
    assert_eq!(RunConfig::preset(Preset::Paper, None).model.get("model.hidden"), 128);
}

#[test]
fn later_settings_win() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, "[data]\nframes = 8\n[train]\npreset = \"paper\"\nsteps = 7\nkl = 1\n").unwrap();
    let config = RunConfig::resolve(None, Some(&path), &["train.steps=9".into()]).unwrap();
    assert_eq!((config.train.preset, config.train.steps, config.train.batch), (Preset::Paper, 9, 2));
    assert_eq!((config.data.frames, config.train.kl, config.model.get("model.hidden")), (8, 1.0, 128));
    let config = RunConfig::resolve(Some(Preset::Tiny), Some(&path), &[]).unwrap();
    assert_eq!((config.train.preset, config.model.get("model.hidden"), config.train.steps), (Preset::Tiny, 8, 7));
}

#[test]
fn values_of_every_type_can_be_set() {
    let config = set(&[
        "data.crop=[32, 32,8]",
        "data.root=some folder",
        "train.device=1",
        "train.learning_rate=1",
        "train.milestones=[0, 0.5, 1]",
        "data.augment=true",
        "data.val_split=test",
        "train.preset=base",
        "data.sequences=[Town01_Light, 08]",
    ])
    .unwrap();
    assert_eq!(config.crop(), Some([32, 32, 8]));
    assert_eq!(config.data.sequences, ["Town01_Light", "08"]);
    for same in ["Town01_Light,08", "[\"Town01_Light\", \"08\"]"] {
        assert_eq!(set(&[&format!("data.sequences={same}")]).unwrap().data.sequences, config.data.sequences);
    }
    assert_eq!(set(&["data.sequences=10"]).unwrap().data.sequences, ["10"]);
    assert!(set(&["data.sequences=[]"]).unwrap().data.sequences.is_empty());
    assert_eq!(config.data.root, Path::new("some folder"));
    assert_eq!((config.train.device.as_str(), config.train.learning_rate), ("1", 1.0));
    assert_eq!(config.train.milestones, [0.0, 0.5, 1.0]);
    assert_eq!((config.data.val_split, config.train.preset), (crate::data::Split::Test, Preset::Base));
}

#[test]
fn mistakes_get_one_clear_sentence() {
    assert!(message(&["train.step=5"]).contains("did you mean train.steps?"));
    assert!(message(&["steps=5"]).contains("did you mean train.steps?"));
    assert!(message(&["model.hiden=5"]).contains("did you mean model.hidden?"));
    assert!(message(&["train.lr=1"]).contains("did you mean train.learning_rate?"));
    assert!(!message(&["train.momentum=1"]).contains("did you mean"));
    assert!(message(&["train.steps"]).contains("key=value"));
    assert!(message(&["train.steps=many"]).contains("train.steps must be a whole number, not \"many\""));
    assert!(message(&["train.steps=1.5"]).contains("a whole number, not 1.5"));
    assert!(message(&["train.steps=-1"]).contains("0 or more"));
    assert!(message(&["data.augment=1"]).contains("true or false"));
    for frames in ["0", "1", "65", "1000"] {
        assert!(message(&[&format!("data.frames={frames}")]).contains("2 to 64 frames"));
    }
    assert!(message(&["train.steps=1\ntrain.seed=2"]).contains("must be a whole number"));
    assert!(message(&["=3"]).contains("key=value"));
    for key in ["model.hidden", "train.batch", "train.prefetch"] {
        assert!(message(&[&format!("{key}=9223372036854775807")]).contains("at most"));
    }
    assert!(message(&["data.stride=0"]).contains("data.stride is 0"));
    assert!(message(&["data.stride=1001"]).contains("at most 1000"));
    assert!(message(&["data.sequences=[1, 2]"]).contains("data.sequences"));
    assert!(message(&["data.crop=[31, 32, 8]"]).contains("even numbers"));
    assert!(message(&["data.crop=[32, 8]"]).contains("three even numbers"));
    assert!(message(&["data.crop=[32, 8, -2]"]).contains("data.crop"));
    assert!(message(&["data.crop=[\"a\", 8, 2]"]).contains("data.crop"));
    assert!(message(&["train.learning_rate=nan"]).contains("train.learning_rate has NaN"));
    assert!(message(&["train.milestones=[2]"]).contains("train.milestones has 2"));
    assert!(message(&["data.val_split=holdout"]).contains("train, val or test"));
    assert!(message(&["train.schedule=linear"]).contains("steps (by a factor"));
    assert!(message(&["train.warmup=3000"]).contains("no more steps than there are"));
    assert!(message(&["train.preset=huge"]).contains("tiny, demo, base or paper"));
}

#[test]
fn another_model_has_other_keys() {
    let toy = set(&["model.toy_features=6", "model.architecture=toy", "train.preset=tiny"]).unwrap();
    assert_eq!((toy.model.architecture().name, toy.model.get("model.toy_features")), ("toy", 6));
    assert_eq!(RunConfig::from_toml(&toy.to_toml(), "config.toml").unwrap(), toy);
    assert!(!toy.to_toml().contains("hidden"));
    // What it is trained with is its own, unless it is set.
    assert_eq!((toy.train.lovasz, toy.train.class_weights), (0.5, ClassWeights::None));
    let demo = set(&["train.lovasz=3", "model.architecture=toy"]).unwrap();
    assert_eq!((demo.train.lovasz, demo.train.class_weights), (3.0, ClassWeights::None));
    let like = toy.like(Preset::Base, None).unwrap();
    assert_eq!((like.train.lovasz, like.train.class_weights), (1.0, ClassWeights::None));
    let back = toy.with(&["model.architecture=sep4d".into()]).unwrap();
    assert_eq!(back, set(&["train.preset=tiny"]).unwrap());
    assert!(message(&["model.architecture=toy", "model.hidden=3"]).contains("the model toy has no model.hidden"));
    let names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
    let expected = format!("no model \"vae\"; set model.architecture to {}", names.join(", "));
    assert!(message(&["model.architecture=vae"]).contains(&expected));
    assert!(message(&["model.architecture=toy", "model.toy_features=0"]).contains("at least one feature"));
    // What was written before there were others.
    let demo = RunConfig::preset(Preset::Demo, None);
    let earlier = demo.to_toml().replace("architecture = \"sep4d\"", "");
    assert_eq!(RunConfig::from_toml(&earlier, "config.toml").unwrap(), demo);
}

#[test]
fn the_data_decide_the_classes_unless_they_were_given() {
    use crate::data::synth::CLASSES;

    let mut config = set(&[]).unwrap();
    let begun = RunConfig::preset(Preset::Demo, None);
    assert_eq!((config.model.classes, config.validate().is_ok()), (0, true));
    assert_eq!(begun.resumed_as(config.clone()).unwrap(), begun);
    config.settle(&CLASSES, true).unwrap();
    let aligned = begun.model.clone().for_data(true).unwrap();
    assert_eq!(config, RunConfig { model: aligned, ..begun.clone() });
    let mut given = set(&["model.classes=12"]).unwrap();
    let why = given.settle(&CLASSES, true).unwrap_err().to_string();
    assert_eq!(why, format!("model.classes is 12, but {} has 11 classes; set model.classes to that", CLASSES.name));
    assert!(begun.resumed_as(given).unwrap_err().to_string().contains("model.classes cannot change"));
    for many in ["1", "65", "256"] {
        assert!(message(&[&format!("model.classes={many}")]).contains("from 2 to 64"));
    }
}

#[test]
fn the_data_decide_whether_frames_are_aligned() {
    use crate::data::synth::CLASSES;
    use crate::models::ALIGN;

    let settled = |pairs: &[&str], has_poses| {
        let mut config = set(pairs).unwrap();
        config.settle(&CLASSES, has_poses).map(|()| config)
    };
    let of_the_data = ["model.align=auto"];
    let [with, without] = [true, false].map(|poses| settled(&of_the_data, poses).unwrap());
    assert_eq!([&with, &without].map(|config| config.model.choice(ALIGN)), ["pose", "none"]);
    let why = settled(&["model.align=pose"], false).unwrap_err().to_string();
    assert!(why.contains("not every sequence of the data has poses; set model.align to registered after"), "{why}");
    // Whatever the data have now, a run goes on as it was begun.
    let again = set(&of_the_data).unwrap();
    assert_eq!(with.resumed_as(again.clone()).unwrap(), with);
    assert_eq!(without.resumed_as(again).unwrap(), without);
    let why = with.resumed_with(&["model.align=none".into()]).unwrap_err().to_string();
    assert!(why.contains("model.align cannot change"), "{why}");
}

#[test]
fn what_was_written_before_a_key_stays_the_model_that_it_was() {
    let given = set(&["model.features=32", "model.align=pose"]).unwrap();
    let lacks = |name: &str| {
        let lines = given.to_toml();
        lines.lines().filter(|line| !line.starts_with(name)).fold(String::new(), |text, line| text + line + "\n")
    };
    let read = |text: &str| RunConfig::from_toml(text, "config.toml").unwrap().model;
    assert_eq!(read(&given.to_toml()), given.model);
    assert_eq!(read(&lacks("features =")).get("model.features"), 0);
    assert_eq!(read(&lacks("align =")).choice("model.align"), "none");
}

#[test]
fn a_run_that_was_begun_with_an_earlier_preset_goes_on_as_it_was() {
    let before = set(&["model.features=0", "model.plane_features=16", "model.align=none"]).unwrap();
    let again = set(&["train.steps=9"]).unwrap();
    let goes_on = before.resumed_as(again).unwrap();
    assert_eq!((&goes_on.model, goes_on.train.steps), (&before.model, 9));
    let why = before.resumed_as(set(&["model.features=7"]).unwrap()).unwrap_err().to_string();
    assert!(why.contains("model.features cannot change"), "{why}");
}

#[test]
fn every_loss_of_a_model_has_the_key_of_its_weight() {
    for term in crate::models::loss_terms() {
        assert!(RunConfig::preset(Preset::Demo, None).value(term.weight).is_some_and(|weight| weight.is_float()));
    }
    let heavy = set(&["train.kl=0.25"]).unwrap().step();
    assert_eq!(heavy.weights.terms.get("kl"), Some(0.25));
}

#[test]
fn a_resumed_run_stays_the_same_run() {
    let config = RunConfig::preset(Preset::Tiny, None);
    let longer = config.resumed_with(&["train.steps=80".into(), "data.root=elsewhere".into()]).unwrap();
    assert_eq!(longer.train.steps, 80);
    for pair in [
        "train.seed=1",
        "model.hidden=16",
        "data.unobserved=ignore",
        "data.frames=4",
        "data.stride=2",
        "data.sequences=A",
    ] {
        let error = config.resumed_with(&[pair.into()]).unwrap_err();
        assert!(error.to_string().contains("cannot change"), "{error}");
    }
    let why = config.resumed_with(&["model.architecture=toy".into()]).unwrap_err().to_string();
    assert!(why.contains("model.architecture cannot change"), "{why}");
    assert!(FIXED.iter().all(|key| RunConfig::keys().any(|(known, _)| known == *key)));
}

#[test]
fn mistakes_in_a_file_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    for (text, expected) in [
        ("[train]\nsteps = = 3\n", "line 2"),
        ("[trian]\nsteps = 3\n", "no key trian.steps; did you mean train.steps?"),
        ("steps = 3\n", "no key steps"),
        ("[train]\nsteps = \"3\"\n", "must be a whole number, not \"3\""),
        ("[trainer]\n", "no key trainer"),
        ("train = 3\n", "no key train;"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = RunConfig::resolve(None, Some(&path), &[]).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains("run.toml"), "{message}");
    }
    assert!(RunConfig::resolve(None, Some(Path::new("/nowhere.toml")), &[]).is_err());
    let incomplete = RunConfig::from_toml("[train]\nsteps = 3\n", "config.toml").unwrap_err();
    assert!(incomplete.to_string().contains("lacks train.preset"), "{incomplete}");
}
