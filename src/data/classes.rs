//! What the labels of a data set mean: names, colours, the raw ids in its files, and the published frequencies.

/// The classes of a data set. Class 0 is free space.
#[derive(Debug, PartialEq, Eq)]
pub struct ClassSet {
    /// The data set's name.
    pub name: &'static str,
    /// One name a class, `[K]`.
    pub names: &'static [&'static str],
    /// One sRGB colour a class, `[K]`, legible on dark and on light backgrounds.
    pub colors: &'static [[u8; 3]],
    /// The same for colour-blind readers (after Okabe and Ito): neighbours differ in lightness as well as in hue.
    pub safe_colors: &'static [[u8; 3]],
    /// The class of each raw id found in the files.
    pub class_of_raw: &'static [u8],
    /// Voxels of each raw id in the published training split.
    pub published_raw_counts: &'static [u64],
    /// How many frames those were counted over.
    pub published_frames: u64,
}

impl ClassSet {
    /// K, the number of classes, free space included.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Voxels of each class in the published training split, `[K]`.
    pub fn published_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.len()];
        for (&class, &count) in self.class_of_raw.iter().zip(self.published_raw_counts) {
            counts[usize::from(class)] += count;
        }
        counts
    }

    /// The share of each class in the published training split, `[K]`, with sum 1.
    pub fn published_frequencies(&self) -> Vec<f64> {
        let counts = self.published_counts();
        let total = counts.iter().sum::<u64>().max(1) as f64;
        counts.into_iter().map(|count| count as f64 / total).collect()
    }
}

/// CarlaSC (Wilson et al., RA-L 2022) in the eleven classes of its completion benchmark.
pub static CARLA_SC: ClassSet = ClassSet {
    name: "CarlaSC",
    names: &[
        "Free",
        "Building",
        "Barrier",
        "Other",
        "Pedestrian",
        "Pole",
        "Road",
        "Ground",
        "Sidewalk",
        "Vegetation",
        "Vehicle",
    ],
    colors: &[
        [255, 255, 255],
        [214, 158, 74],
        [190, 110, 60],
        [60, 190, 200],
        [230, 60, 70],
        [240, 210, 60],
        [122, 92, 140],
        [150, 130, 100],
        [216, 120, 190],
        [70, 165, 80],
        [70, 125, 235],
    ],
    safe_colors: &[
        [255, 255, 255],
        [230, 159, 0],
        [150, 75, 0],
        [0, 190, 190],
        [204, 20, 40],
        [240, 228, 66],
        [85, 85, 95],
        [165, 150, 120],
        [204, 121, 167],
        [0, 158, 115],
        [0, 114, 178],
    ],
    class_of_raw: &[0, 1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 2, 5, 3, 7, 3, 3, 2, 5, 3, 3, 3, 7],
    published_raw_counts: &[
        3763643297, 39644538, 8417042, 362221, 546581, 2265328, 3319457, 184640959, 105036782, 20811569, 9942710,
        18401902, 96415, 0, 6995101, 538555, 4313, 8965598, 66443, 3009867, 2982851, 234650, 66806621,
    ],
    published_frames: 18 * 1800,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_one_row_a_class() {
        let k = CARLA_SC.len();
        assert_eq!((CARLA_SC.colors.len(), CARLA_SC.safe_colors.len()), (k, k));
        assert_eq!(CARLA_SC.class_of_raw.len(), CARLA_SC.published_raw_counts.len());
        assert!(CARLA_SC.class_of_raw.iter().all(|&class| usize::from(class) < k));
    }

    #[test]
    fn the_published_counts_give_the_known_mean_frame() {
        let counts = CARLA_SC.published_counts();
        let per_frame: Vec<u64> =
            counts[1..].iter().map(|c| (*c as f64 / CARLA_SC.published_frames as f64).round() as u64).collect();
        assert_eq!(per_frame, [1224, 1104, 220, 17, 75, 5801, 2278, 3242, 642, 307]);
    }

    #[test]
    fn colours_differ_clearly() {
        for palette in [CARLA_SC.colors, CARLA_SC.safe_colors] {
            for (i, a) in palette.iter().enumerate() {
                for b in &palette[..i] {
                    let distance: i32 = (0..3).map(|c| (i32::from(a[c]) - i32::from(b[c])).pow(2)).sum();
                    assert!(distance > 45 * 45, "{a:?} and {b:?} look alike");
                }
            }
        }
    }
}
