//! The colours of everything that is not a class: page, text, sky, floor and reconstruction outcomes.

/// An sRGB colour, 8 bits a channel.
pub type Rgb = [u8; 3];

/// Light for paper, dark for screens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// Dark ink on white.
    #[default]
    Light,
    /// Light ink on near-black.
    Dark,
}

/// What a [`Theme`] paints with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThemeColors {
    /// The page around the panels.
    pub page: Rgb,
    /// Headings and labels.
    pub ink: Rgb,
    /// Secondary text.
    pub muted_ink: Rgb,
    /// Top of a panel's background.
    pub sky_top: Rgb,
    /// Bottom of a panel's background.
    pub sky_bottom: Rgb,
    /// The floor under the grid.
    pub floor: Rgb,
    /// Lines and border of the floor.
    pub floor_line: Rgb,
    /// What shaded faces and occluded corners tend to.
    pub shadow: Rgb,
    /// A voxel reconstructed with its class: faint, so that the errors stand out.
    pub correct: Rgb,
    /// A voxel of the original that the reconstruction lacks.
    pub missed: Rgb,
    /// A voxel of the reconstruction that the original lacks.
    pub invented: Rgb,
    /// A voxel of both, with another class.
    pub wrong_class: Rgb,
    /// A voxel the sensor never saw.
    pub unobserved: Rgb,
}

impl Theme {
    /// The colours of this theme. The outcomes are blue, vermilion and yellow of different lightness (after Okabe and
    /// Ito), so that they can be told apart with any colour vision and in grey.
    pub fn colors(self) -> ThemeColors {
        match self {
            Theme::Light => ThemeColors {
                page: [255, 255, 255],
                ink: [28, 32, 38],
                muted_ink: [98, 106, 118],
                sky_top: [236, 241, 247],
                sky_bottom: [247, 249, 251],
                floor: [229, 233, 238],
                floor_line: [202, 209, 217],
                shadow: [38, 44, 66],
                correct: [204, 209, 216],
                missed: [0, 104, 178],
                invented: [214, 84, 0],
                wrong_class: [242, 196, 0],
                unobserved: [232, 234, 238],
            },
            Theme::Dark => ThemeColors {
                page: [17, 19, 23],
                ink: [232, 235, 240],
                muted_ink: [148, 156, 168],
                sky_top: [33, 37, 44],
                sky_bottom: [24, 27, 32],
                floor: [40, 45, 53],
                floor_line: [60, 67, 78],
                shadow: [6, 8, 18],
                correct: [88, 94, 103],
                missed: [86, 180, 240],
                invented: [232, 96, 24],
                wrong_class: [246, 220, 70],
                unobserved: [60, 65, 74],
            },
        }
    }
}
