//! Which model a run has, and its widths.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

use super::{ARCHITECTURES, Architecture, BatchShape, Built, Key, Mode, Values, WIDEST};
use crate::graph::Graph;
use crate::layers::segmentation_loss::MAX_CLASSES;
use crate::{Error, Result};

/// The key that names the kind of model.
pub const ARCHITECTURE: &str = "model.architecture";
/// A number of classes that is still to be taken from the data.
pub const OF_THE_DATA: usize = 0;
const CLASSES: &str = "model.classes";
/// The key that says by what a model aligns the frames of a clip, if it can.
pub const ALIGN: &str = "model.align";
/// By the poses of the data.
pub const BY_POSES: &str = "pose";
/// By what registration found of the sensor's motion.
pub const BY_REGISTRATION: &str = "registered";
/// By them, if the data have any: still to be taken from there.
pub const OF_THE_POSES: &str = "auto";

/// The architecture of a model and the values of its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    architecture: &'static Architecture,
    /// K: semantic classes, free included, or [`OF_THE_DATA`].
    pub classes: usize,
    /// In the order of the architecture's keys; of a choice, its place among them.
    values: Vec<usize>,
}

impl ModelConfig {
    /// That of the preset with this number, the smallest first, for CarlaSC's classes.
    pub fn of(architecture: &'static Architecture, preset: usize) -> ModelConfig {
        let value = |key: &Key| match &key.values {
            Values::Width { defaults, .. } => defaults[preset.min(defaults.len() - 1)],
            Values::Choice { defaults, .. } => defaults[preset.min(defaults.len() - 1)],
        };
        ModelConfig { architecture, classes: 11, values: architecture.keys.iter().map(value).collect() }
    }

    /// The same with other numbers for some keys.
    ///
    /// # Errors
    /// [`Error::Usage`] if the architecture has no such key.
    pub fn with(mut self, values: &[(&str, usize)]) -> Result<ModelConfig> {
        for &(key, value) in values {
            let place = self.place(key)?;
            self.values[place] = value;
        }
        Ok(self)
    }

    /// The same with another choice for a key.
    ///
    /// # Errors
    /// [`Error::Usage`] if the architecture has no such key, or it cannot be that.
    pub fn with_choice(mut self, key: &str, name: &str) -> Result<ModelConfig> {
        let place = self.place(key)?;
        self.values[place] = self.architecture.keys[place].read(&Value::String(name.to_owned()))?;
        Ok(self)
    }

    /// The same with its frames aligned by poses, or not, where that is left to whether the data have them and the model can.
    ///
    /// # Errors
    /// [`Error::Usage`] if the architecture cannot align frames by poses.
    pub fn for_data(self, has_poses: bool) -> Result<ModelConfig> {
        match self.choice(ALIGN) {
            OF_THE_POSES => {
                let aligned = has_poses && (self.architecture.aligns)(&self);
                self.with_choice(ALIGN, if aligned { BY_POSES } else { "none" })
            }
            _ => Ok(self),
        }
    }

    fn place(&self, key: &str) -> Result<usize> {
        let Architecture { name, keys, .. } = self.architecture;
        let place = keys.iter().position(|known| known.key == key);
        place.ok_or_else(|| Error::Usage(format!("the model {name} has no {key}")))
    }

    /// The kind of model.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The number of a key; 0 if the architecture does not have it.
    pub fn get(&self, key: &str) -> usize {
        self.keyed().find(|(known, _)| known.key == key).map_or(0, |(_, value)| value)
    }

    /// What was chosen for a key; nothing if the architecture does not have it.
    pub fn choice(&self, key: &str) -> &'static str {
        let chosen = |(known, value): (&'static Key, usize)| match known.values {
            Values::Choice { names, .. } if known.key == key => Some(names[value].0),
            _ => None,
        };
        self.keyed().find_map(chosen).unwrap_or_default()
    }

    fn keyed(&self) -> impl Iterator<Item = (&'static Key, usize)> {
        self.architecture.keys.iter().zip(self.values.iter().copied())
    }

    /// Every key with its documentation: those of all architectures.
    pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
        let own = [
            (ARCHITECTURE, "Kind of model, such as sep4d."),
            (CLASSES, "K, classes of the data set, up to 64; 0 to take it from there, as without this key."),
        ];
        own.into_iter().chain(keys_of_all().into_iter().map(|key| (key.key, key.doc)))
    }

    /// Checks every value that its type does not confine.
    ///
    /// # Errors
    /// [`Error::Usage`] with one sentence about the first key that is wrong.
    pub fn validate(&self) -> Result<()> {
        for (Key { key, values, .. }, value) in self.keyed() {
            match values {
                Values::Width { needed_for: Some(why), .. } if value == 0 => {
                    return Err(Error::Usage(format!("{key} is 0, but {why}; set it to 1 or more")));
                }
                Values::Width { .. } if value > WIDEST => {
                    return Err(Error::Usage(format!("{key} is {value}; set it to at most {WIDEST}")));
                }
                _ => {}
            }
        }
        if self.classes != OF_THE_DATA && !(2..=MAX_CLASSES).contains(&self.classes) {
            return Err(Error::Usage(format!(
                "{CLASSES} is {}; set it to the data's, from 2 to {MAX_CLASSES}, or leave it out",
                self.classes
            )));
        }
        Ok(())
    }

    /// Floats of the latents of one clip, and how many bits those take that are codes.
    ///
    /// # Errors
    /// As for [`ModelConfig::build`].
    pub fn latent_size(&self, shape: &BatchShape) -> Result<(usize, f64)> {
        let mut g = Graph::new();
        let built = self.build(&mut g, &BatchShape { batch: 1, ..shape.clone() }, Mode::Look)?;
        let sizes = || built.latents.iter().map(|built| (built.latent, g.tensor(built.encoded).spec.elements()));
        let floats = sizes().map(|(latent, encoded)| latent.floats(encoded)).sum();
        Ok((floats, sizes().filter_map(|(latent, encoded)| latent.bits(encoded)).sum()))
    }

    /// Appends the model to `g`.
    ///
    /// # Errors
    /// [`Error::Usage`] for extents that do not work, [`Error::Shape`] otherwise.
    pub fn build(&self, g: &mut Graph, shape: &BatchShape, mode: Mode) -> Result<Built> {
        shape.check()?;
        (self.architecture.build)(g, self, shape, mode)
    }
}

/// The name of a key within its section.
fn short(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, name)| name)
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2 + self.values.len()))?;
        map.serialize_entry(short(ARCHITECTURE), self.architecture.name)?;
        map.serialize_entry(short(CLASSES), &self.classes)?;
        for (key, value) in self.keyed() {
            match key.values {
                Values::Width { .. } => map.serialize_entry(short(key.key), &value)?,
                Values::Choice { names, .. } => map.serialize_entry(short(key.key), names[value].0)?,
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    /// Without an architecture it is the first one, as before there were others.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut values = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let architecture = match values.remove(short(ARCHITECTURE)) {
            None => ARCHITECTURES[0],
            Some(name) => by_name(name.as_str().unwrap_or_default()).map_err(D::Error::custom)?,
        };
        let mut take =
            |key: &str| values.remove(short(key)).ok_or_else(|| D::Error::custom(format!("{key} is missing")));
        let classes = number(CLASSES, &take(CLASSES)?).map_err(D::Error::custom)?;
        let read = |key: &Key| key.read(&take(key.key)?).map_err(D::Error::custom);
        let chosen = architecture.keys.iter().map(read).collect::<std::result::Result<_, _>>()?;
        match values.keys().next() {
            Some(key) => Err(D::Error::custom(format!("the model {} has no {key}", architecture.name))),
            None => Ok(ModelConfig { architecture, classes, values: chosen }),
        }
    }
}

/// The keys of all architectures; one that several have comes once.
pub fn keys_of_all() -> Vec<&'static Key> {
    let mut keys: Vec<&Key> = Vec::new();
    for key in ARCHITECTURES.iter().flat_map(|architecture| architecture.keys) {
        if keys.iter().all(|known| known.key != key.key) {
            keys.push(key);
        }
    }
    keys
}

impl Key {
    /// A value of its type.
    pub fn any_value(&self) -> Value {
        match self.values {
            Values::Width { .. } => Value::Integer(0),
            Values::Choice { names, .. } => Value::String(names[0].0.to_owned()),
        }
    }

    fn read(&self, value: &Value) -> Result<usize> {
        let Values::Choice { names: choices, .. } = self.values else { return number(self.key, value) };
        choices.iter().position(|(name, _)| value.as_str() == Some(name)).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            Error::Usage(format!("{} is {value}; set it to {}", self.key, names.join(", ")))
        })
    }
}

fn number(key: &str, value: &Value) -> Result<usize> {
    let number = value.as_integer().and_then(|value| usize::try_from(value).ok());
    number.ok_or_else(|| Error::Usage(format!("{key} is {value}, which is no whole number of 0 or more")))
}

/// The architecture of that name.
///
/// # Errors
/// [`Error::Usage`] if there is none.
pub fn by_name(name: &str) -> Result<&'static Architecture> {
    ARCHITECTURES.iter().copied().find(|architecture| architecture.name == name).ok_or_else(|| {
        let names: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
        Error::Usage(format!("there is no model {name:?}; set {ARCHITECTURE} to {}", names.join(", ")))
    })
}
