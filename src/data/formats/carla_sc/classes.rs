//! The classes of CarlaSC, their colours, the raw ids in its files, and the published frequencies.

use std::sync::{Arc, LazyLock};

use crate::data::classes::{ClassSet, Handedness};

/// The class of each raw id.
pub const CLASS_OF_RAW: [u8; 23] = [0, 1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 2, 5, 3, 7, 3, 3, 2, 5, 3, 3, 3, 7];

/// Voxels of each raw id in the published training split.
const PUBLISHED_RAW_COUNTS: [u64; 23] = [
    3763643297, 39644538, 8417042, 362221, 546581, 2265328, 3319457, 184640959, 105036782, 20811569, 9942710, 18401902,
    96415, 0, 6995101, 538555, 4313, 8965598, 66443, 3009867, 2982851, 234650, 66806621,
];

/// Name, colour, and colour for colour-blind readers.
const CLASSES: [(&str, [u8; 3], [u8; 3]); 11] = [
    ("Free", [255, 255, 255], [255, 255, 255]),
    ("Building", [214, 158, 74], [230, 159, 0]),
    ("Barrier", [190, 110, 60], [150, 75, 0]),
    ("Other", [60, 190, 200], [0, 190, 190]),
    ("Pedestrian", [230, 60, 70], [204, 20, 40]),
    ("Pole", [240, 210, 60], [240, 228, 66]),
    ("Road", [122, 92, 140], [85, 85, 95]),
    ("Ground", [150, 130, 100], [165, 150, 120]),
    ("Sidewalk", [216, 120, 190], [204, 121, 167]),
    ("Vegetation", [70, 165, 80], [0, 158, 115]),
    ("Vehicle", [70, 125, 235], [0, 114, 178]),
];

/// CarlaSC (Wilson et al., RA-L 2022) in the eleven classes of its completion benchmark.
pub static CARLA_SC: LazyLock<Arc<ClassSet>> = LazyLock::new(|| {
    let ids = CLASS_OF_RAW.iter().enumerate().map(|(raw, class)| (raw as u16, *class));
    let classes = CLASSES.map(|(name, color, safe_color)| (name.to_owned(), color, safe_color));
    Arc::new(ClassSet::new("CarlaSC", Handedness::Left, classes, ids))
});

/// Voxels of each class in the published training split, `[K]`.
pub fn published_counts() -> Vec<u64> {
    let mut counts = vec![0; CLASSES.len()];
    for (&class, count) in CLASS_OF_RAW.iter().zip(PUBLISHED_RAW_COUNTS) {
        counts[usize::from(class)] += count;
    }
    counts
}

/// The share of each class in the published training split, `[K]`, with sum 1.
pub fn published_frequencies() -> Vec<f64> {
    let counts = published_counts();
    let total = counts.iter().sum::<u64>().max(1) as f64;
    counts.into_iter().map(|count| count as f64 / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_raw_id_has_a_class() {
        assert_eq!(CARLA_SC.len(), 11);
        for (raw, &class) in CLASS_OF_RAW.iter().enumerate() {
            assert_eq!(CARLA_SC.class_of(raw as u64), Some(class));
        }
        for class in 0..11 {
            assert_eq!(CLASS_OF_RAW[usize::from(CARLA_SC.id_of(class))], class);
        }
        assert_eq!(CARLA_SC.class_of(23), None);
    }

    #[test]
    fn the_published_counts_give_the_known_mean_frame() {
        let frames = f64::from(18 * 1800);
        let per_frame: Vec<u64> = published_counts()[1..].iter().map(|c| (*c as f64 / frames).round() as u64).collect();
        assert_eq!(per_frame, [1224, 1104, 220, 17, 75, 5801, 2278, 3242, 642, 307]);
    }

    #[test]
    fn colours_differ_clearly() {
        for palette in [&CARLA_SC.colors, &CARLA_SC.safe_colors] {
            for (i, a) in palette.iter().enumerate() {
                for b in &palette[..i] {
                    let distance: i32 = (0..3).map(|c| (i32::from(a[c]) - i32::from(b[c])).pow(2)).sum();
                    assert!(distance > 45 * 45, "{a:?} and {b:?} look alike");
                }
            }
        }
    }
}
