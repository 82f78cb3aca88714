//! What the labels of a data set mean: names, colours, and the ids that stand for them in its files.

use std::sync::Arc;

/// In labels as a [`Source`](super::source::Source) reads them: the files say that this voxel is to be left out.
pub(crate) const IGNORED: u8 = 255;

/// No data set has more classes: `IGNORED` and what no class is must stay apart from them.
pub const MOST_CLASSES: usize = 254;

/// Which way the y axis of a data set's grid points. The world's is always right-handed: x forward, y left, z up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Handedness {
    /// y points left, as the world's.
    #[default]
    Right,
    /// y points right, as in CarlaSC; without mirroring, traffic would keep to the wrong side.
    Left,
}

/// The classes of a data set. Class 0 is free space, whatever its id in the files.
#[derive(Debug, PartialEq, Eq)]
pub struct ClassSet {
    /// The data set's name.
    pub name: String,
    /// One name a class, `[K]`.
    pub names: Vec<String>,
    /// One sRGB colour a class, `[K]`, legible on dark and on light backgrounds.
    pub colors: Vec<[u8; 3]>,
    /// The same for colour-blind readers (after Okabe and Ito): neighbours differ in lightness as well as in hue.
    pub safe_colors: Vec<[u8; 3]>,
    /// Which way the y axis of its grid points.
    pub handedness: Handedness,
    /// Whether what is of the class may move by itself, such as vehicles and people, `[K]`: by its name.
    pub moves: Vec<bool>,
    /// The class of each id that may occur in the files.
    class_of_id: Vec<Option<u8>>,
    /// The id with which each class is written, `[K]`.
    ids: Vec<u16>,
}

impl ClassSet {
    /// Classes by name, colour and colour for colour-blind readers, free space first, and the class or [`IGNORED`] of each id.
    /// A class is written with the first id that stands for it.
    pub(crate) fn new(
        name: &str,
        handedness: Handedness,
        classes: impl IntoIterator<Item = (String, [u8; 3], [u8; 3])>,
        ids: impl IntoIterator<Item = (u16, u8)>,
    ) -> ClassSet {
        let mut set = ClassSet {
            name: name.to_owned(),
            names: Vec::new(),
            colors: Vec::new(),
            safe_colors: Vec::new(),
            handedness,
            moves: Vec::new(),
            class_of_id: Vec::new(),
            ids: Vec::new(),
        };
        for (name, color, safe_color) in classes {
            set.moves.push(moves(&name));
            set.names.push(name);
            set.colors.push(color);
            set.safe_colors.push(safe_color);
        }
        let mut written = vec![None; set.names.len()];
        for (id, class) in ids {
            let at = usize::from(id);
            if set.class_of_id.len() <= at {
                set.class_of_id.resize(at + 1, None);
            }
            set.class_of_id[at] = Some(class);
            if let Some(slot) = written.get_mut(usize::from(class)) {
                slot.get_or_insert(id);
            }
        }
        set.ids = written.into_iter().map(Option::unwrap_or_default).collect();
        set
    }

    /// Classes that a format knows by their ids, names and colours, free space first, and what further ids stand for.
    pub(crate) fn known(name: &str, handedness: Handedness, rows: &[Row], also: &[(u16, u8)]) -> Arc<ClassSet> {
        let classes =
            rows.iter().enumerate().map(|(class, (_, name, color))| ((*name).to_owned(), *color, safe_color(class)));
        let ids = rows.iter().enumerate().map(|(class, (id, ..))| (*id, class as u8));
        Arc::new(ClassSet::new(name, handedness, classes, ids.chain(also.iter().copied())))
    }

    /// K, the number of classes, free space included.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The class for which `id` stands in the files; `None` for an id that the data set does not have.
    pub fn class_of(&self, id: u64) -> Option<u8> {
        *self.class_of_id.get(usize::try_from(id).ok()?)?
    }

    /// The id with which class `class` is written into files; that of free space for what is no class.
    pub fn id_of(&self, class: u8) -> u16 {
        self.ids.get(usize::from(class)).or(self.ids.first()).copied().unwrap_or_default()
    }

    /// The largest id that the files may have.
    pub(crate) fn largest_id(&self) -> usize {
        self.class_of_id.len().saturating_sub(1)
    }
}

/// What the names of classes begin with that move by themselves.
const MOVERS: [&str; 23] = [
    "animal",
    "auto",
    "bicycl",
    "bike",
    "bus",
    "car",
    "cyclist",
    "human",
    "motor",
    "pedestrian",
    "people",
    "person",
    "rider",
    "rickshaw",
    "scooter",
    "trailer",
    "train",
    "tram",
    "truck",
    "van",
    "vehicle",
    "wheelchair",
    "walker",
];
/// What such names are followed by, so that a carpet is none.
const ENDINGS: [&str; 12] =
    ["", "s", "es", "e", "ist", "ists", "cycle", "cycles", "cyclist", "cyclists", "bike", "bikes"];

/// Whether a class of this name moves by itself: one of its words is that of a mover.
fn moves(name: &str) -> bool {
    let name = name.to_lowercase();
    let is_mover = |word: &str| {
        MOVERS.iter().any(|mover| word.strip_prefix(mover).is_some_and(|ending| ENDINGS.contains(&ending)))
    };
    name.split(|c: char| !c.is_alphabetic()).any(is_mover)
}

/// A class that a format knows: its id, name and colour.
pub(crate) type Row = (u16, &'static str, [u8; 3]);

/// Hues in which neighbours differ clearly; the first is that of free space, which is never drawn.
const HUES: [[u8; 3]; 11] = [
    [255, 255, 255],
    [214, 158, 74],
    [70, 125, 235],
    [230, 60, 70],
    [70, 165, 80],
    [122, 92, 140],
    [240, 210, 60],
    [60, 190, 200],
    [216, 120, 190],
    [190, 110, 60],
    [150, 130, 100],
];

/// The same for colour-blind readers.
const SAFE_HUES: [[u8; 3]; 11] = [
    [255, 255, 255],
    [230, 159, 0],
    [0, 114, 178],
    [204, 20, 40],
    [0, 158, 115],
    [85, 85, 95],
    [240, 228, 66],
    [0, 190, 190],
    [204, 121, 167],
    [150, 75, 0],
    [165, 150, 120],
];

/// A colour for a class that has none of its own.
pub(crate) fn color(class: usize) -> [u8; 3] {
    shade(&HUES, class)
}

/// The same for colour-blind readers.
pub(crate) fn safe_color(class: usize) -> [u8; 3] {
    shade(&SAFE_HUES, class)
}

/// The hues in turn, each round in another lightness.
fn shade(hues: &[[u8; 3]; 11], class: usize) -> [u8; 3] {
    let round = class.saturating_sub(1) / (hues.len() - 1);
    let hue = if class == 0 { hues[0] } else { hues[1 + (class - 1) % (hues.len() - 1)] };
    let strength = [1.0, 0.62, 0.8, 0.45][round % 4];
    hue.map(|part| (f64::from(part) * strength) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_class_0_whatever_its_id() {
        let rows = [(17, "free", [255; 3]), (0, "others", [1; 3]), (4, "car", [2; 3])];
        let set = ClassSet::known("A", Handedness::Right, &rows, &[(5, 2), (255, IGNORED)]);
        let classes = [17, 0, 4, 5, 255, 1].map(|id| set.class_of(id));
        assert_eq!(classes, [Some(0), Some(1), Some(2), Some(2), Some(IGNORED), None]);
        assert_eq!([0, 1, 2, 9].map(|class| set.id_of(class)), [17, 0, 4, 17]);
        assert_eq!(set.class_of(u64::MAX), None);
    }

    #[test]
    fn what_moves_is_known_by_its_name() {
        for name in [
            "Vehicle",
            "Pedestrian",
            "Construction vehicle",
            "Car",
            "Bus",
            "buses",
            "Bicycle",
            "Bicyclist",
            "Motorcycle",
            "Motorcyclist",
            "motorbike",
            "Truck",
            "Trailer",
            "Other_vehicle",
            "Person",
            "moving-car",
            "people",
            "riders",
            "cyclists",
            "vans",
        ] {
            assert!(moves(name), "{name} moves");
        }
        for name in [
            "Free",
            "Carpet",
            "Traffic sign",
            "Trunk",
            "Vegetation",
            "Barrier",
            "Driveable surface",
            "Others",
            "Class 4",
            "",
        ] {
            assert!(!moves(name), "{name} stands still");
        }
    }

    #[test]
    fn colours_of_neighbours_differ() {
        for palette in [color, safe_color] {
            let colors: Vec<[u8; 3]> = (0..41).map(palette).collect();
            for (i, a) in colors.iter().enumerate() {
                assert!(colors[..i].iter().all(|b| a != b), "{a:?} occurs twice");
            }
        }
    }
}
