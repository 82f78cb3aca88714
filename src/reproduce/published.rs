//! What the papers print: of SEP-4D (AAAI 2026) all tables, of DynamicCity (ICLR 2025) its own mIoU. Per cent.

use super::plan::{DYNAMIC_CITY, OCC_SORA, SEP4D, Variant};

/// The classes of Table 2, in its order.
pub const CLASSES: [&str; 10] =
    ["Building", "Barrier", "Other", "Pedestrian", "Pole", "Road", "Ground", "Sidewalk", "Vegetation", "Vehicle"];

/// A row of Table 1: T, mIoU of OccSora, of DynamicCity and of SEP-4D, training times of the last two in seconds.
type Length = (usize, Option<f64>, f64, f64, f64, f64);
const TABLE_1: [Length; 5] = [
    (4, Some(41.01), 76.25, 91.68, 1912.0, 1474.0),
    (8, Some(39.91), 70.61, 85.33, 2509.0, 2712.0),
    (16, Some(33.40), 66.07, 76.41, 2037.0, 2585.0),
    (32, Some(28.91), 59.31, 68.47, 5891.0, 6639.0),
    (64, None, 47.17, 56.80, 11156.0, 13208.0),
];

/// DynamicCity's mIoU in its authors' paper.
const DYNAMIC_CITY_ITSELF: [(usize, f64); 4] = [(4, 79.61), (8, 76.18), (16, 74.22), (32, 59.31)];

/// Rows of Table 2: T, mIoU and IoU by class.
type ByClass = (usize, f64, [f64; 10]);
const OCC_SORA_BY_CLASS: [ByClass; 3] = [
    (8, 39.910, [33.001, 3.260, 5.659, 19.224, 19.357, 93.038, 57.335, 85.551, 30.899, 51.776]),
    (16, 33.404, [19.264, 2.205, 3.454, 11.781, 9.165, 92.054, 50.077, 82.594, 18.078, 45.363]),
    (32, 28.911, [16.565, 1.413, 0.944, 6.200, 4.150, 91.466, 43.399, 78.614, 11.007, 35.353]),
];
const DYNAMIC_CITY_BY_CLASS: [ByClass; 4] = [
    (8, 76.181, [70.874, 50.025, 52.433, 87.958, 85.866, 97.513, 83.074, 93.944, 58.626, 81.498]),
    (16, 74.223, [66.852, 51.901, 49.844, 79.410, 82.369, 96.937, 84.484, 94.082, 58.217, 78.134]),
    (32, 59.308, [52.036, 25.521, 29.382, 56.811, 57.876, 94.792, 78.390, 89.955, 46.080, 62.234]),
    (64, 47.167, [44.869, 10.533, 10.294, 39.476, 32.211, 86.832, 68.131, 83.453, 42.178, 53.693]),
];
const SEP4D_BY_CLASS: [ByClass; 4] = [
    (8, 85.330, [76.858, 52.433, 81.788, 96.255, 92.638, 98.542, 93.703, 97.318, 71.955, 91.810]),
    (16, 76.408, [68.433, 55.092, 44.034, 80.445, 84.691, 97.843, 85.101, 95.020, 60.428, 92.993]),
    (32, 68.473, [57.428, 33.551, 37.587, 71.618, 68.744, 96.104, 81.383, 97.245, 57.472, 83.598]),
    (64, 56.798, [50.137, 13.110, 19.186, 44.793, 43.224, 93.782, 83.883, 89.179, 48.252, 82.434]),
];

/// Rows of Tables 3 and 4: mIoU and IoU.
const AT_16: [(&str, f64, f64); 6] = [
    ("sep4d-concat", 63.71, 91.07),
    ("sep4d-conv1d", 74.78, 91.66),
    ("sep4d-averaging", 75.39, 92.31),
    ("sep4d-dynamic", 75.61, 91.98),
    ("sep4d-conv3d_se", 46.74, 84.0),
    ("sep4d", 76.41, 92.32),
];

/// mIoU in Table 1.
pub fn miou(variant: &Variant, frames: usize) -> Option<f64> {
    let &(_, occ_sora, dynamic_city, sep4d, ..) = TABLE_1.iter().find(|row| row.0 == frames)?;
    match variant {
        v if v == &OCC_SORA => occ_sora,
        v if v == &DYNAMIC_CITY => Some(dynamic_city),
        v if v == &SEP4D => Some(sep4d),
        _ => None,
    }
}

/// mIoU in the paper of those who made the model, where that is another one.
pub fn miou_of_its_authors(variant: &Variant, frames: usize) -> Option<f64> {
    let found = DYNAMIC_CITY_ITSELF.iter().find(|(t, _)| variant == &DYNAMIC_CITY && *t == frames);
    found.map(|(_, miou)| *miou)
}

/// Training time in Table 1, seconds on two A6000.
pub fn seconds(variant: &Variant, frames: usize) -> Option<f64> {
    let &(_, _, _, _, dynamic_city, sep4d) = TABLE_1.iter().find(|row| row.0 == frames)?;
    match variant {
        v if v == &DYNAMIC_CITY => Some(dynamic_city),
        v if v == &SEP4D => Some(sep4d),
        _ => None,
    }
}

/// mIoU and IoU by class in Table 2, in the order of [`CLASSES`].
pub fn by_class(variant: &Variant, frames: usize) -> Option<(f64, [f64; 10])> {
    let rows: &[ByClass] = match variant {
        v if v == &OCC_SORA => &OCC_SORA_BY_CLASS,
        v if v == &DYNAMIC_CITY => &DYNAMIC_CITY_BY_CLASS,
        v if v == &SEP4D => &SEP4D_BY_CLASS,
        _ => return None,
    };
    rows.iter().find(|row| row.0 == frames).map(|row| (row.1, row.2))
}

/// mIoU and IoU in Tables 3 and 4, at 16 frames.
pub fn at_16(variant: &Variant) -> Option<(f64, f64)> {
    AT_16.iter().find(|row| row.0 == variant.name).map(|row| (row.1, row.2))
}

/// What contradicts what in Tables 1 and 2.
pub const ON_TABLE_1: [&str; 4] = [
    "SEP-4D's code is not to be had: the model here is our reading of the paper.",
    "Published times are of two A6000 and cannot be compared with measured ones, only with each other: SEP-4D's training takes longer \
     than DynamicCity's in four of the five rows.",
    "DynamicCity is understated in Table 1: its own paper has 79.61, 76.18 and 74.22 at T = 4, 8 and 16, where Table 1 has 76.25, 70.61 and \
     66.07. Table 2 has 76.18 and 74.22 too. With these the published lead is 12.07, 9.15 and 2.19 instead of 15.43, 14.72 and 10.34.",
    "Published figures are of CarlaSC at 128x128x8; figures of other data or sizes stand beside them for orientation only.",
];
/// What contradicts what in Table 3.
pub const ON_TABLE_3: [&str; 2] = [
    "The paper's text names Conv1D fusion, MLP fusion, averaging and dynamic weighting; its Table 3 has concatenation and no MLP.",
    "How the other fusions are built is not published; docs/model.md says how they are built here.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reproduce::plan::SYSTEMS;

    /// A digit that was typed wrong would show here.
    #[test]
    fn the_mean_over_classes_is_the_published_mean() {
        for variant in SYSTEMS {
            for frames in [8, 16, 32, 64] {
                let Some((miou, classes)) = by_class(variant, frames) else { continue };
                let mean = classes.iter().sum::<f64>() / 10.0;
                assert!((mean - miou).abs() < 0.05, "{} at {frames}: {mean} and {miou}", variant.name);
            }
        }
    }

    #[test]
    fn the_notes_state_what_the_tables_hold() {
        let lead = |of: fn(&Variant, usize) -> Option<f64>, frames| {
            miou(&SEP4D, frames).unwrap() - of(&DYNAMIC_CITY, frames).unwrap()
        };
        for (frames, own, table) in [(4, "12.07", "15.43"), (8, "9.15", "14.72"), (16, "2.19", "10.34")] {
            assert_eq!(format!("{:.2}", lead(miou_of_its_authors, frames)), own);
            assert_eq!(format!("{:.2}", lead(miou, frames)), table);
        }
        let longer = TABLE_1.iter().filter(|row| row.5 > row.4).count();
        assert_eq!(longer, 4);
    }
}
