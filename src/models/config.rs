//! Which model a run has, and its widths.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

use super::{ARCHITECTURES, Architecture, BatchShape, Built, Mode, WIDEST};
use crate::graph::Graph;
use crate::layers::segmentation_loss::MAX_CLASSES;
use crate::{Error, Result};

/// The key that names the kind of model.
pub const ARCHITECTURE: &str = "model.architecture";
/// A number of classes that is still to be taken from the data.
pub const OF_THE_DATA: usize = 0;
const CLASSES: &str = "model.classes";

/// The architecture of a model and the values of its keys.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    architecture: &'static Architecture,
    /// K: semantic classes, free included, or [`OF_THE_DATA`].
    pub classes: usize,
    /// In the order of the architecture's keys.
    widths: Vec<usize>,
}

impl ModelConfig {
    /// That of the preset with this number, the smallest first, for CarlaSC's classes.
    pub fn of(architecture: &'static Architecture, preset: usize) -> ModelConfig {
        let widths = architecture.keys.iter().map(|key| key.defaults[preset.min(key.defaults.len() - 1)]).collect();
        ModelConfig { architecture, classes: 11, widths }
    }

    /// The same with other values for some keys.
    ///
    /// # Errors
    /// [`Error::Usage`] if the architecture has no such key.
    pub fn with(mut self, values: &[(&str, usize)]) -> Result<ModelConfig> {
        for &(key, value) in values {
            let Architecture { name, keys, .. } = self.architecture;
            let place = keys.iter().position(|known| known.key == key);
            let place = place.ok_or_else(|| Error::Usage(format!("the model {name} has no {key}")))?;
            self.widths[place] = value;
        }
        Ok(self)
    }

    /// The kind of model.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// The value of a key; 0 if the architecture does not have it.
    pub fn get(&self, key: &str) -> usize {
        let mut widths = self.architecture.keys.iter().zip(&self.widths);
        widths.find(|(known, _)| known.key == key).map_or(0, |(_, &width)| width)
    }

    /// Every key with its documentation: those of all architectures.
    pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
        let own = [
            (ARCHITECTURE, "Kind of model, such as sep4d."),
            (CLASSES, "K, classes of the data set, up to 64; 0 to take it from there, as without this key."),
        ];
        let mut keys: Vec<(&str, &str)> = Vec::from(own);
        for key in ARCHITECTURES.iter().flat_map(|architecture| architecture.keys) {
            if keys.iter().all(|(known, _)| *known != key.key) {
                keys.push((key.key, key.doc));
            }
        }
        keys.into_iter()
    }

    /// Checks every value that its type does not confine.
    ///
    /// # Errors
    /// [`Error::Usage`] with one sentence about the first key that is wrong.
    pub fn validate(&self) -> Result<()> {
        for (key, &width) in self.architecture.keys.iter().zip(&self.widths) {
            if width == 0 {
                return Err(Error::Usage(format!("{} is 0, but {}; set it to 1 or more", key.key, key.needed_for)));
            }
            if width > WIDEST {
                return Err(Error::Usage(format!("{} is {width}; set it to at most {WIDEST}", key.key)));
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
        let mut map = serializer.serialize_map(Some(2 + self.widths.len()))?;
        map.serialize_entry(short(ARCHITECTURE), self.architecture.name)?;
        map.serialize_entry(short(CLASSES), &self.classes)?;
        for (key, width) in self.architecture.keys.iter().zip(&self.widths) {
            map.serialize_entry(short(key.key), width)?;
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
        let mut take = |key: &str| {
            let value = values.remove(short(key)).ok_or_else(|| D::Error::custom(format!("{key} is missing")))?;
            let number = value.as_integer().and_then(|value| usize::try_from(value).ok());
            number.ok_or_else(|| D::Error::custom(format!("{key} is {value}, which is no whole number of 0 or more")))
        };
        let classes = take(CLASSES)?;
        let widths = architecture.keys.iter().map(|key| take(key.key)).collect::<std::result::Result<_, _>>()?;
        match values.keys().next() {
            Some(key) => Err(D::Error::custom(format!("the model {} has no {key}", architecture.name))),
            None => Ok(ModelConfig { architecture, classes, widths }),
        }
    }
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
