//! From presets, files and `key=value` pairs to a checked configuration, and back to a file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::{Table, Value};

use super::suggest::nearest;
use super::{Preset, RunConfig};
use crate::files::cause;
use crate::models::{ALIGN, ARCHITECTURE, ARCHITECTURES, ModelConfig, OF_THE_DATA, OF_THE_POSES, by_name, keys_of_all};
use crate::{Error, Result};

/// No configuration has more bytes.
const LONGEST: u64 = 1 << 20;

/// What a run keeps until its end, beside its model: its checkpoints and its order of clips depend on it.
const FIXED: [&str; 12] = [
    "data.frames",
    "data.crop",
    "data.stride",
    "data.sequences",
    "data.unobserved",
    "data.train_split",
    "data.augment",
    "train.preset",
    "train.batch",
    "train.accumulate",
    "train.seed",
    "output.dir",
];

/// One value that overrides a preset's, and where it was found, for messages.
struct Setting {
    key: String,
    value: Value,
    origin: String,
}

impl RunConfig {
    /// The configuration from a preset, then a file, then `key=value` pairs; what comes later wins.
    ///
    /// Without `model.classes` among them it is 0, to be taken from the data by [`RunConfig::settle`].
    /// Without `preset`, `train.preset` among the pairs or in the file decides; without that, it is `demo`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unreadable file, an unknown key (naming the nearest one), a wrong type or a wrong value.
    pub fn resolve(preset: Option<Preset>, file: Option<&Path>, set: &[String]) -> Result<RunConfig> {
        let mut settings = match file {
            Some(path) => {
                let text = read(path).map_err(|why| {
                    Error::Usage(format!(
                        "the configuration {} cannot be read: {}; give a TOML file, such as a run's config.toml",
                        path.display(),
                        cause(&why)
                    ))
                })?;
                parse(&text, &path.display().to_string())?
            }
            None => Vec::new(),
        };
        let mut any = table(&RunConfig::preset(Preset::default(), None))?;
        for key in keys_of_all() {
            insert_missing(&mut any, key.key, key.any_value());
        }
        for pair in set {
            settings.push(parse_pair(pair, &any)?);
        }
        let given = settings.iter().any(|setting| setting.key == "model.classes");
        let mut config = RunConfig::over_preset(preset, settings)?;
        if !given {
            config.model.classes = OF_THE_DATA;
        }
        Ok(config)
    }

    /// `settings` on top of `preset`, or of the preset that they name.
    fn over_preset(preset: Option<Preset>, mut settings: Vec<Setting>) -> Result<RunConfig> {
        let last = |key: &str| settings.iter().rev().find(|setting| setting.key == key);
        let preset = match (preset, last("train.preset")) {
            (Some(preset), _) => preset,
            (None, Some(Setting { value: Value::String(name), .. })) => name.parse()?,
            (None, _) => Preset::default(),
        };
        let frames = last("data.frames").and_then(|s| s.value.as_integer()).and_then(|t| usize::try_from(t).ok());
        settings.retain(|setting| setting.key != "train.preset");
        overlay(&RunConfig::preset(preset, frames), settings)
    }

    /// This configuration with `key=value` pairs on top.
    ///
    /// # Errors
    /// [`Error::Usage`] as for [`RunConfig::resolve`].
    pub fn with(&self, set: &[String]) -> Result<RunConfig> {
        let base = table(self)?;
        let settings = set.iter().map(|pair| parse_pair(pair, &base)).collect::<Result<Vec<_>>>()?;
        overlay(self, settings)
    }

    /// The configuration from the text of a run's file, such as its `config.toml`; `origin` is named in messages. A key that
    /// the file lacks, because an earlier version wrote it, has its preset's value, or what models were before it.
    ///
    /// # Errors
    /// [`Error::Usage`] as for [`RunConfig::resolve`], and if no preset is named.
    pub fn from_toml(text: &str, origin: &str) -> Result<RunConfig> {
        let mut settings = parse(text, origin)?;
        let given = |key: &str| settings.iter().find(|setting| setting.key == key);
        if given("train.preset").is_none() {
            return Err(Error::Usage(format!("{origin} lacks train.preset; restore it")));
        }
        let architecture = match given(ARCHITECTURE).and_then(|setting| setting.value.as_str()) {
            Some(name) => by_name(name)?,
            None => ARCHITECTURES[0],
        };
        let before = architecture.later.iter().filter(|(key, _)| given(key).is_none());
        let before = before.filter_map(|&(key, text)| {
            Some(Setting { key: key.to_owned(), value: literal(text)?, origin: origin.to_owned() })
        });
        let before: Vec<Setting> = before.collect();
        settings.extend(before);
        RunConfig::over_preset(None, settings)
    }

    /// This configuration, of a run that was begun, with `key=value` pairs on top.
    ///
    /// # Errors
    /// [`Error::Usage`] as for [`RunConfig::resolve`], and for a key that would make it another run.
    pub fn resumed_with(&self, set: &[String]) -> Result<RunConfig> {
        self.same_run(self.with(set)?)
    }

    /// `new`, if a run that was begun with this configuration can go on with it. What `new` would take from the data is as
    /// it was, and so is the model where `new` has what its preset has by now.
    ///
    /// # Errors
    /// [`Error::Usage`] for a key that would make it another run.
    pub fn resumed_as(&self, mut new: RunConfig) -> Result<RunConfig> {
        if new.model.classes == OF_THE_DATA {
            new.model.classes = self.model.classes;
        }
        if new.model.choice(ALIGN) == OF_THE_POSES {
            new.model = new.model.with_choice(ALIGN, self.model.choice(ALIGN))?;
        }
        if new.model.architecture() == self.model.architecture() && new.train.preset == self.train.preset {
            let usual = new.like(new.train.preset, Some(new.data.frames))?;
            let keys = ModelConfig::keys().map(|(key, _)| key);
            let as_usual = keys.filter(|key| new.value(key) == usual.value(key));
            let values: Vec<_> = as_usual.filter_map(|key| Some((key, self.value(key)?))).collect();
            new = new.with_values(values)?;
        }
        self.same_run(new)
    }

    /// `new`, unless it is another run.
    fn same_run(&self, new: RunConfig) -> Result<RunConfig> {
        match self.another_run(&new)? {
            Some(key) => Err(Error::Usage(format!(
                "{key} cannot change when a run is resumed; leave it out, or start a new run"
            ))),
            None => Ok(new),
        }
    }

    /// A key because of which a run that was begun with this configuration cannot go on with `new`, if there is one.
    ///
    /// # Errors
    /// [`Error::Usage`] if a path is not UTF-8.
    pub fn another_run(&self, new: &RunConfig) -> Result<Option<&'static str>> {
        let (before, after) = (table(self)?, table(new)?);
        let fixed = FIXED.into_iter().chain(ModelConfig::keys().map(|(key, _)| key));
        Ok(fixed.into_iter().find(|key| lookup(&before, key) != lookup(&after, key)))
    }

    /// The value of `section.name`; `None` if there is no such key.
    pub fn value(&self, key: &str) -> Option<Value> {
        lookup(&table(self).ok()?, key).cloned()
    }

    /// This configuration with other values for some of its keys. Only their types are checked, not their ranges.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown key or a value of another type.
    pub fn with_values(&self, values: impl IntoIterator<Item = (&'static str, Value)>) -> Result<RunConfig> {
        let mut table = table(self)?;
        for (key, value) in values {
            if let (ARCHITECTURE, Some(name)) = (key, value.as_str()) {
                choose_architecture(&mut table, name, self.train.preset)?;
            }
            insert(&mut table, key, value);
        }
        table.try_into().map_err(|why: toml::de::Error| {
            Error::Usage(format!("that cannot be set: {}", why.message().lines().next().unwrap_or_default()))
        })
    }

    /// A complete file with every key documented.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let table = table(self).unwrap_or_default();
        let mut section = "";
        for (key, doc) in RunConfig::keys() {
            let (parent, name) = key.split_once('.').unwrap_or(("", key));
            if parent != section {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}[{parent}]", if section.is_empty() { "" } else { "\n" });
                section = parent;
            }
            if let Some(value) = lookup(&table, key) {
                let _ = writeln!(text, "# {doc}\n{name} = {value}");
            }
        }
        text
    }
}

/// The text of a file, or of a pipe: what a shell's `<(...)` makes.
fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(std::io::Error::other("it is far longer than a configuration"));
    }
    Ok(text)
}

fn table(config: &RunConfig) -> Result<Table> {
    Table::try_from(config).map_err(|why| Error::Usage(format!("the configuration cannot be written as TOML: {why}")))
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (section, name) = key.split_once('.')?;
    table.get(section)?.as_table()?.get(name)
}

/// The settings of a TOML text.
fn parse(text: &str, origin: &str) -> Result<Vec<Setting>> {
    let table: Table = toml::from_str(text).map_err(|why: toml::de::Error| {
        let line = why.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Error::Usage(format!("{origin}, line {line}: {}; correct that line", why.message()))
    })?;
    let mut settings = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(keys) if !keys.is_empty() => {
                settings.extend(keys.into_iter().map(|(name, value)| Setting {
                    key: format!("{section}.{name}"),
                    value,
                    origin: origin.to_owned(),
                }));
            }
            Value::Table(_) if RunConfig::keys().any(|(key, _)| key.starts_with(&format!("{section}."))) => {}
            value => settings.push(Setting { key: section, value, origin: origin.to_owned() }),
        }
    }
    Ok(settings)
}

/// `key=value`, where the value is TOML, or plain text if the key in `base` holds text.
fn parse_pair(pair: &str, base: &Table) -> Result<Setting> {
    let Some((key, text)) = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
        return Err(Error::Usage(format!("--set {pair}: write it as key=value, for example --set train.steps=1000")));
    };
    let (key, text) = (key.trim().to_owned(), text.trim());
    let origin = "--set".to_owned();
    let old = lookup(base, &key).ok_or_else(|| unknown(&key, &origin))?;
    let value = match (old, literal(text)) {
        (Value::String(_), Some(Value::String(text))) => Value::String(text),
        (Value::String(_), _) => Value::String(text.to_owned()),
        (Value::Array(_), parsed) if key == "data.sequences" && !matches!(parsed, Some(Value::Array(_))) => {
            list_of_names(text)
        }
        (_, Some(value)) => value,
        (_, None) => Value::String(text.to_owned()),
    };
    Ok(Setting { key, value, origin })
}

/// A value as TOML writes it.
fn literal(text: &str) -> Option<Value> {
    let table = toml::from_str::<Table>(&format!("value = {text}")).ok();
    // A line break may have begun another key.
    table.filter(|table| table.len() == 1)?.remove("value")
}

/// Names with commas between, for a shell takes the quotes of a list.
fn list_of_names(text: &str) -> Value {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let names = inner.split(',').map(str::trim).filter(|name| !name.is_empty());
    Value::Array(names.map(|name| Value::String(name.to_owned())).collect())
}

/// Gives the model's section the keys of another architecture, and other keys the values that they have with it.
fn choose_architecture(table: &mut Table, name: &str, preset: Preset) -> Result<()> {
    let old = lookup(table, ARCHITECTURE).and_then(Value::as_str).unwrap_or_default();
    if old == name {
        return Ok(());
    }
    let (old, new) = (by_name(old)?, by_name(name)?);
    let usual = self::table(&RunConfig::preset(preset, None))?;
    let back = old.training.iter().filter_map(|(key, _)| Some((*key, lookup(&usual, key)?.clone())));
    let own = new.training.iter().filter_map(|(key, values)| Some((*key, literal(values[preset as usize])?)));
    for (key, value) in back.chain(own).collect::<Vec<_>>() {
        insert(table, key, value);
    }
    let model = ModelConfig::of(new, preset as usize);
    let classes = lookup(table, "model.classes").cloned();
    let written =
        Table::try_from(model).map_err(|why| Error::Usage(format!("{ARCHITECTURE} cannot be {name}: {why}")))?;
    table.insert("model".into(), Value::Table(written));
    if let (Some(classes), Some(Value::Table(model))) = (classes, table.get_mut("model")) {
        model.insert("classes".into(), classes);
    }
    Ok(())
}

fn insert_missing(table: &mut Table, key: &str, value: Value) {
    if let Some((section, name)) = key.split_once('.')
        && let Some(Value::Table(section)) = table.get_mut(section)
    {
        section.entry(name).or_insert(value);
    }
}

fn overlay(base: &RunConfig, mut settings: Vec<Setting>) -> Result<RunConfig> {
    let mut table = table(base)?;
    // Which keys there are depends on it.
    settings.sort_by_key(|setting| setting.key != ARCHITECTURE);
    for setting in &settings {
        set(&mut table, setting, base.train.preset)?;
    }
    let mut config: RunConfig = table.try_into().map_err(|why| refused(base, &settings, &why))?;
    if settings.iter().all(|setting| setting.key != "train.warmup") {
        // A warm-up that comes with the model gives way to a short run.
        config.train.warmup = config.train.warmup.min(config.train.steps);
    }
    config.validate()?;
    Ok(config)
}

/// Gives a key its value, of the type that it had before.
fn set(table: &mut Table, Setting { key, value, origin }: &Setting, preset: Preset) -> Result<()> {
    if let (ARCHITECTURE, Some(name)) = (key.as_str(), value.as_str()) {
        choose_architecture(table, name, preset)?;
    }
    let old = lookup(table, key).ok_or_else(|| match RunConfig::keys().any(|(known, _)| known == key) {
        true => Error::Usage(format!(
            "{origin}: the model {} has no {key}; leave it out, or set {ARCHITECTURE}",
            lookup(table, ARCHITECTURE).and_then(Value::as_str).unwrap_or_default()
        )),
        false => unknown(key, origin),
    })?;
    let value = match (old, value) {
        (Value::Float(_), Value::Integer(whole)) => Value::Float(*whole as f64),
        (Value::Array(_), Value::Array(items)) if key == "train.milestones" => {
            let number = |item: &Value| item.as_integer().map_or_else(|| item.clone(), |i| Value::Float(i as f64));
            Value::Array(items.iter().map(number).collect())
        }
        (_, value) => value.clone(),
    };
    let wrong = |what: &str| Error::Usage(format!("{origin}: {key} must be {what}, not {}", on_one_line(&value)));
    if !old.same_type(&value) {
        return Err(wrong(if key == "data.sequences" { "a list of names in quotes" } else { kind(old) }));
    }
    if matches!(value, Value::Integer(..0)) {
        return Err(wrong("0 or more"));
    }
    insert(table, key, value);
    Ok(())
}

fn insert(table: &mut Table, key: &str, value: Value) {
    if let Some((section, name)) = key.split_once('.')
        && let Some(Value::Table(section)) = table.get_mut(section)
    {
        section.insert(name.to_owned(), value);
    }
}

/// Which of the settings, of the right types, cannot be: the first with which the table is no configuration any more.
fn refused(base: &RunConfig, settings: &[Setting], why: &toml::de::Error) -> Error {
    let mut table = table(base).unwrap_or_default();
    for setting in settings {
        let Setting { key, value, origin } = setting;
        if set(&mut table, setting, base.train.preset).is_ok()
            && let Err(why) = table.clone().try_into::<RunConfig>()
        {
            let doc = RunConfig::keys().find(|(other, _)| other == key).map_or("", |(_, doc)| doc);
            let reason = why.message().lines().next().unwrap_or_default();
            return Error::Usage(format!(
                "{origin}: {key} cannot be {} ({reason}); it means: {doc}",
                on_one_line(value)
            ));
        }
    }
    Error::Usage(format!("the configuration is wrong: {}", why.message()))
}

/// On one line, whatever the text.
fn on_one_line(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| format!("{text:?}"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list such as [64, 64, 8]",
        Value::Datetime(_) | Value::Table(_) => "of another type",
    }
}

fn unknown(key: &str, origin: &str) -> Error {
    let hint = nearest(key).map_or(String::new(), |nearest| format!(" did you mean {nearest}?"));
    Error::Usage(format!("{origin}: there is no key {key};{hint} `sep4d train --help` lists all keys"))
}

#[cfg(test)]
mod tests;
