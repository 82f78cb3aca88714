//! The losses that models have beside those of the reconstruction.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ARCHITECTURES;

/// A loss of a model.
#[derive(Debug, PartialEq)]
pub struct LossTerm {
    /// What files call it.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// The key of its weight.
    pub weight: &'static str,
}

/// Different losses of all models together, at most.
const MOST: usize = 8;

/// The losses of all models; a loss that several have comes once.
pub fn loss_terms() -> Vec<&'static LossTerm> {
    let mut terms: Vec<&LossTerm> = Vec::new();
    for term in ARCHITECTURES.iter().flat_map(|architecture| architecture.losses) {
        if terms.iter().all(|known| known.name != term.name) {
            terms.push(term);
        }
    }
    terms
}

/// A number for each loss that a model has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms([Option<f32>; MOST]);

impl Terms {
    /// From names and numbers; names that no model has count for nothing.
    pub fn of<'a>(numbers: impl IntoIterator<Item = (&'a str, f32)>) -> Terms {
        let (mut terms, known) = (Terms::default(), loss_terms());
        for (name, number) in numbers {
            let place = known.iter().position(|term| term.name == name);
            if let Some(slot) = place.and_then(|place| terms.0.get_mut(place)) {
                *slot = Some(number);
            }
        }
        terms
    }

    /// That of one loss, if the model has it.
    pub fn get(&self, name: &str) -> Option<f32> {
        self.iter().find(|(term, _)| term.name == name).map(|(_, number)| number)
    }

    /// Those that there are, with their losses.
    pub fn iter(&self) -> impl Iterator<Item = (&'static LossTerm, f32)> {
        loss_terms().into_iter().zip(self.0).filter_map(|(term, number)| Some((term, number?)))
    }

    /// The columns of [`Terms::csv`], with a comma before each.
    pub fn columns() -> String {
        loss_terms().iter().map(|term| format!(",{}", term.name)).collect()
    }

    /// One column for each loss of any model, empty for those that this one lacks, with a comma before each.
    pub fn csv(&self) -> String {
        let numbers = loss_terms().into_iter().zip(self.0).map(|(_, number)| number);
        numbers.map(|number| number.map_or(",".into(), |number| format!(",{number}"))).collect()
    }
}

impl Serialize for Terms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (term, number) in self.iter() {
            map.serialize_entry(term.name, &number)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Terms {
    /// JSON has no NaN and no infinity: both were written as null.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry {
            Number(Option<f32>),
            Other(serde::de::IgnoredAny),
        }
        let entries = BTreeMap::<String, Entry>::deserialize(deserializer)?;
        let numbers = entries.iter().filter_map(|(name, entry)| match entry {
            Entry::Number(number) => Some((name.as_str(), number.unwrap_or(f32::NAN))),
            Entry::Other(_) => None,
        });
        Ok(Terms::of(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all() {
        assert!(loss_terms().len() <= MOST);
    }

    #[test]
    fn they_survive_their_file_among_other_things() {
        let terms = Terms::of([("kl", 0.25), ("nobody's", 1.0)]);
        assert_eq!((terms.get("kl"), terms.iter().count()), (Some(0.25), 1));
        assert_eq!(serde_json::to_string(&terms).unwrap(), "{\"kl\":0.25}");
        let back: Terms = serde_json::from_str("{\"kl\":0.25,\"clips\":[1],\"name\":\"x\",\"step\":3}").unwrap();
        assert_eq!(back, terms);
        let back: Terms = serde_json::from_str("{\"kl\":null}").unwrap();
        assert!(back.get("kl").unwrap().is_nan());
        assert_eq!((Terms::default().get("kl"), Terms::default().csv().chars().next()), (None, Some(',')));
    }
}
