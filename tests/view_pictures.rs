//! Renders small scenes on whatever adapter there is and checks what the pictures show.

#![allow(clippy::unwrap_used)]

use image::{Rgba, RgbaImage};
use sep4d::view::{
    Camera, ClassStyle, ComparedFrame, Geometry, Handedness, Headless, Look, Mesh, Ornaments, Palette, PictureInput,
    Projection, Theme, Visible, VoxelOutcome, gif, save_png, sheet,
};

const SIZE: [usize; 3] = [8, 8, 4];
const VOXEL_SIZE_M: [f32; 3] = [0.4, 0.4, 0.375];
const COLORS: [[u8; 3]; 4] = [[255, 255, 255], [200, 60, 60], [60, 160, 80], [60, 90, 200]];

/// A device on the first adapter there is; software adapters count.
fn device() -> Option<(wgpu::Device, wgpu::Queue)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let Some(adapter) = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all())).into_iter().next()
    else {
        println!("skipped: no graphics adapter");
        return None;
    };
    let opened = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()));
    Some(opened.expect("an adapter opens with WebGPU's default limits"))
}

fn geometry() -> Geometry {
    Geometry::new(SIZE, VOXEL_SIZE_M)
}

fn mesh(labels: &[u8]) -> Mesh {
    Mesh::new(labels, &geometry(), &Visible::all()).unwrap()
}

fn at(x: usize, y: usize, z: usize) -> usize {
    (x * SIZE[1] + y) * SIZE[2] + z
}

/// A floor of class 1 with a tower of class 2 and a block of class 3.
fn scene() -> Vec<u8> {
    let mut labels = vec![0; SIZE.iter().product()];
    for x in 0..SIZE[0] {
        for y in 0..SIZE[1] {
            labels[at(x, y, 0)] = 1;
        }
    }
    for z in 1..SIZE[2] {
        labels[at(6, 2, z)] = 2;
    }
    labels[at(2, 5, 1)] = 3;
    labels
}

fn classes() -> Vec<ClassStyle> {
    let names = ["Free", "Road", "Vegetation", "Vehicle"];
    names.iter().zip(COLORS).map(|(name, color)| ClassStyle { name: (*name).into(), color }).collect()
}

fn frames(n: usize) -> Vec<ComparedFrame> {
    (0..n)
        .map(|i| {
            let mut reconstruction = scene();
            reconstruction[at(i % SIZE[0], 0, 1)] = 3;
            reconstruction[at(6, 2, 3)] = 0;
            reconstruction[at(0, 7, 0)] = 2;
            ComparedFrame { original: scene(), reconstructions: vec![reconstruction], observed: None }
        })
        .collect()
}

fn close(pixel: &Rgba<u8>, color: [u8; 3], tolerance: u8) -> bool {
    pixel.0.iter().zip(color).all(|(a, b)| a.abs_diff(b) <= tolerance)
}

fn count(image: &RgbaImage, color: [u8; 3]) -> usize {
    image.pixels().filter(|p| close(p, color, 2)).count()
}

fn look<'a>(camera: &'a Camera, palette: &'a Palette, theme: Theme) -> Look<'a> {
    const NONE: Ornaments = Ornaments { selected: None, hovered: None, crop: None, ego: None, axes: false };
    Look { camera, geometry: geometry(), palette, theme, ornaments: &NONE, pixels_per_point: 1.0 }
}

#[test]
fn a_panel_shows_sky_and_every_class_in_its_own_colour() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let palette = Palette::from_colors(COLORS);
    let mesh = mesh(&scene());
    for projection in [Projection::Perspective, Projection::Orthographic] {
        let camera = Camera::three_quarter(geometry().extent_m(), 1.5, projection);
        for theme in [Theme::Light, Theme::Dark] {
            let picture = renderer.render(mesh.clone(), &look(&camera, &palette, theme), 300, 200).unwrap();
            assert_eq!(picture.dimensions(), (300, 200));
            assert!(picture.pixels().all(|p| p.0[3] == 255), "opaque");
            for (x, y, sky) in [(0, 0, theme.colors().sky_top), (299, 199, theme.colors().sky_bottom)] {
                assert!(close(picture.get_pixel(x, y), sky, 4), "{theme:?} corner {:?}", picture.get_pixel(x, y));
            }
            for color in &COLORS[1..] {
                assert!(count(&picture, *color) > 20, "{projection:?} {theme:?}: no top face of {color:?}");
            }
        }
    }
}

#[test]
fn a_symmetric_scene_gives_a_symmetric_silhouette_and_fills_the_panel() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let full = vec![1; SIZE.iter().product()];
    let mesh = mesh(&full);
    let extent = geometry().extent_m();
    let mut camera = Camera::three_quarter(extent, 1.0, Projection::Orthographic);
    camera.yaw_rad = std::f32::consts::FRAC_PI_4;
    camera.fit(glam::Vec3::ZERO, extent, 1.0, 0.04);
    let palette = Palette::from_colors(COLORS);
    let picture = renderer.render(mesh.clone(), &look(&camera, &palette, Theme::Light), 201, 201).unwrap();
    let is_voxel = |x: u32, y: u32| {
        let [r, g, b, _] = picture.get_pixel(x, y).0.map(i32::from);
        r - g.max(b) > 40
    };
    let cells = || (0..201).flat_map(|y| (0..100).map(move |x| (x, y)));
    let asymmetric = cells().filter(|&(x, y)| is_voxel(x, y) != is_voxel(200 - x, y)).count();
    assert!(asymmetric < 40, "{asymmetric} pixels differ between the halves");
    let left = (0..201).find(|&x| (0..201).any(|y| is_voxel(x, y))).unwrap();
    assert!((3..=6).contains(&left), "the scene begins at {left}, the margin is 4 pixels");
}

#[test]
fn nearer_voxels_hide_farther_ones_from_all_six_sides() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let palette = Palette::from_colors(COLORS);
    let extent = geometry().extent_m();
    let quarter = std::f32::consts::FRAC_PI_2;
    // Looking along +x, -x, +y, -y, +z, -z: the first slab met is class 1 along the positive axes, class 2 otherwise.
    let views = [(0.0, 0.0), (2.0, 0.0), (1.0, 0.0), (3.0, 0.0), (0.0, -1.0), (0.0, 1.0)];
    for (side, (yaw, pitch)) in views.into_iter().enumerate() {
        let axis = side / 2;
        let mut labels = vec![0; SIZE.iter().product()];
        for x in 0..SIZE[0] {
            for y in 0..SIZE[1] {
                for z in 0..SIZE[2] {
                    let along = [x, y, z][axis];
                    labels[at(x, y, z)] = u8::from(along == 0) + 2 * u8::from(along == SIZE[axis] - 1);
                }
            }
        }
        let mesh = mesh(&labels);
        let mut camera = Camera::three_quarter(extent, 1.0, Projection::Orthographic);
        (camera.yaw_rad, camera.pitch_rad) = (yaw * quarter, pitch * quarter);
        camera.fit(glam::Vec3::ZERO, extent, 1.0, 0.04);
        let picture = renderer.render(mesh.clone(), &look(&camera, &palette, Theme::Light), 100, 100).unwrap();
        let stronger = |p: &Rgba<u8>, a: usize, b: usize| p.0[a] > p.0[b].max(p.0[2]).saturating_add(30);
        let red = picture.pixels().filter(|p| stronger(p, 0, 1)).count();
        let green = picture.pixels().filter(|p| stronger(p, 1, 0)).count();
        let (near, far) = if side % 2 == 0 { (red, green) } else { (green, red) };
        assert!(near > 2000 && far == 0, "side {side}: {near} pixels of the near slab, {far} of the far one");
    }
}

#[test]
fn corners_are_darker_beside_walls() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    // A floor with a wall along +x, seen from above: the floor darkens towards the wall and nowhere else.
    let mut labels = vec![0; SIZE.iter().product()];
    for x in 0..SIZE[0] {
        for y in 0..SIZE[1] {
            labels[at(x, y, 0)] = 1;
        }
    }
    (0..SIZE[1]).for_each(|y| labels[at(7, y, 1)] = 2);
    let extent = geometry().extent_m();
    let mut camera = Camera::three_quarter(extent, 1.0, Projection::Orthographic);
    (camera.yaw_rad, camera.pitch_rad) = (0.0, std::f32::consts::FRAC_PI_2);
    camera.fit(glam::Vec3::ZERO, extent, 1.0, 0.0);
    let mesh = mesh(&labels);
    let palette = Palette::from_colors(COLORS);
    let picture = renderer.render(mesh.clone(), &look(&camera, &palette, Theme::Light), 160, 160).unwrap();
    // +x is up in the picture and a voxel covers 20 pixels: the wall is rows 0..20, the floor's first voxel 20..40.
    let red = |row: u32| picture.get_pixel(90, row).0[0];
    assert!(close(picture.get_pixel(90, 10), COLORS[2], 2), "the wall's top is fully lit");
    assert!(red(24) + 15 < red(36), "{} beside the wall, {} further off", red(24), red(36));
    assert_eq!(red(50), COLORS[1][0], "the next voxel is open");
}

#[test]
fn a_left_handed_grid_looks_as_its_mirrored_labels_do() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let palette = Palette::from_colors(COLORS);
    let left = Geometry { handedness: Handedness::Left, ..geometry() };
    let mirrored: Vec<u8> =
        scene().chunks(SIZE[1] * SIZE[2]).flat_map(|x| x.chunks(SIZE[2]).rev().flatten().copied()).collect();
    let camera = Camera::three_quarter(left.extent_m(), 1.2, Projection::Perspective);
    let look = look(&camera, &palette, Theme::Light);
    let mesh_left = Mesh::new(&scene(), &left, &Visible::all()).unwrap();
    let a = renderer.render(mesh_left, &Look { geometry: left, ..look.clone() }, 240, 200).unwrap();
    let b = renderer.render(mesh(&mirrored), &look, 240, 200).unwrap();
    assert!(a == b, "the same picture without a copy");
    assert!(a != renderer.render(mesh(&scene()), &look, 240, 200).unwrap(), "the scene is not symmetric");
}

#[test]
fn merged_faces_leave_no_cracks() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    // A hilly ground of two reds in patches of all sizes, so that many corners lie on others' edges.
    let size = [64, 64, 4];
    let geometry = Geometry::new(size, VOXEL_SIZE_M);
    let noise = |x: usize, y: usize| (x / 3 * 7919 + y / 5 * 104_729 + x * y * 31) % 97;
    let mut labels = vec![0; size.iter().product()];
    for x in 0..size[0] {
        for y in 0..size[1] {
            let height = 1 + usize::from(noise(x / 7, y / 4) % 5 == 0) * 2;
            (0..height).for_each(|z| labels[geometry.index([x, y, z])] = 1 + u8::from(noise(x, y) % 3 == 0));
        }
    }
    let palette = Palette::from_colors([[255, 255, 255], [250, 0, 0], [190, 0, 0]]);
    let extent = geometry.extent_m();
    for step in 0..12 {
        let mut camera = Camera::three_quarter(extent, 1.0, Projection::Perspective);
        camera.orbit(step as f32 * 0.61, -0.04 * step as f32);
        camera.fit(glam::Vec3::ZERO, extent, 1.0, 0.04);
        let mesh = Mesh::new(&labels, &geometry, &Visible::all()).unwrap();
        let look = Look { geometry, ..look(&camera, &palette, Theme::Light) };
        let picture = renderer.render(mesh, &look, 500, 500).unwrap();
        let is_ground = |x: u32, y: u32| picture.get_pixel(x, y).0[1] < 60;
        let cracks: Vec<(u32, u32)> = (1..499)
            .flat_map(|y| (1..499).map(move |x| (x, y)))
            .filter(|&(x, y)| {
                let is_hole = picture.get_pixel(x, y).0[1] > 70;
                is_hole && is_ground(x - 1, y) && is_ground(x + 1, y) && is_ground(x, y - 1) && is_ground(x, y + 1)
            })
            .collect();
        assert!(cracks.is_empty(), "view {step}: the background shows through at {cracks:?}");
    }
}

#[test]
fn outlines_show_on_and_through_voxels() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let palette = Palette::from_colors(COLORS);
    let camera = Camera::three_quarter(geometry().extent_m(), 1.2, Projection::Perspective);
    let plain = look(&camera, &palette, Theme::Light);
    let mut render = |ornaments: &Ornaments| {
        renderer.render(mesh(&scene()), &Look { ornaments, ..plain.clone() }, 360, 300).unwrap()
    };
    let none = render(&Ornaments::default());
    let ink = |picture: &RgbaImage| count(picture, Theme::Light.colors().ink);
    let changed = |picture: &RgbaImage| picture.pixels().zip(none.pixels()).filter(|(a, b)| a != b).count();
    let mut selected = |voxel| render(&Ornaments { selected: Some(voxel), ..Default::default() });

    let shown = selected([2, 5, 1]);
    assert!(ink(&shown) > ink(&none) + 100, "{} pixels of ink", ink(&shown));
    let hidden = selected([2, 2, 0]);
    let buried = selected([7, 2, 0]);
    assert!(changed(&hidden) > 200 && ink(&buried) < ink(&shown), "what lies behind is fainter");
    let hovered = render(&Ornaments { hovered: Some([2, 5, 1]), ..Default::default() });
    assert!(changed(&hovered) > 100 && changed(&hovered) < changed(&shown), "hovering is lighter than selecting");
    let crop = render(&Ornaments { crop: Some([1..5, 2..8, 0..4]), ..Default::default() });
    assert!(changed(&crop) > 300);
    let axes = render(&Ornaments { axes: true, ..Default::default() });
    for color in sep4d::view::ornament::AXES_COLORS {
        assert!(count(&axes, color) > count(&none, color) + 15, "no axis of {color:?}");
    }
}

#[test]
fn unobserved_voxels_are_not_shown_as_errors() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let classes = classes();
    let mut pair = frames(1).remove(0);
    let panel = [240, 180];
    let invented = VoxelOutcome::Invented.color(Theme::Light);
    let mut pixels = |pair: &ComparedFrame| {
        let frames = [pair.clone()];
        let input = PictureInput { panel_px: panel, ..PictureInput::new(geometry(), &frames, &classes) };
        count(&sheet(&mut renderer, &input).unwrap(), invented)
    };
    let judged = pixels(&pair);
    pair.observed = Some(pair.original.iter().zip(&pair.reconstructions[0]).map(|(a, b)| a == b).collect());
    let unjudged = pixels(&pair);
    assert!(judged > unjudged + 20, "{judged} pixels of invented voxels against {unjudged} of the legend alone");
}

#[test]
fn a_sheet_has_a_row_a_frame_and_shows_every_error() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let (frames, classes) = (frames(7), classes());
    let input = |rows, theme| PictureInput {
        title: "Reconstruction",
        caption: "step 2500, mIoU 53.1 %",
        frame_interval_s: Some(0.1),
        panel_px: [240, 180],
        max_rows: rows,
        theme,
        ..PictureInput::new(geometry(), &frames, &classes)
    };
    for theme in [Theme::Light, Theme::Dark] {
        let one = sheet(&mut renderer, &input(1, theme)).unwrap();
        let three = sheet(&mut renderer, &input(3, theme)).unwrap();
        assert_eq!(one.width(), three.width());
        assert!(three.height() - one.height() >= 360, "two more rows of 180 pixels");
        assert!(close(three.get_pixel(1, 1), theme.colors().page, 0));
        for outcome in VoxelOutcome::JUDGED {
            let swatch_and_voxels = count(&three, outcome.color(theme));
            assert!(swatch_and_voxels > 100, "{theme:?} {outcome:?}: {swatch_and_voxels} pixels");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sheet.png");
    let picture = sheet(&mut renderer, &input(2, Theme::Light)).unwrap();
    save_png(&picture, &path).unwrap();
    assert_eq!(image::open(&path).unwrap().to_rgba8(), picture);
}

#[test]
fn several_models_stand_beside_the_original_with_their_errors_below() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let classes = classes();
    let one = frames(2);
    let models = ["right".to_owned(), "wrong".to_owned()];
    let both: Vec<ComparedFrame> = one
        .iter()
        .map(|frame| ComparedFrame {
            reconstructions: vec![frame.original.clone(), frame.reconstructions[0].clone()],
            ..frame.clone()
        })
        .collect();
    let size = PictureInput { panel_px: [240, 180], max_rows: 2, ..PictureInput::new(geometry(), &one, &classes) };
    let compared = PictureInput { frames: &both, models: &models, ..size.clone() };
    let (single, double) = (sheet(&mut renderer, &size).unwrap(), sheet(&mut renderer, &compared).unwrap());
    assert_eq!(single.width(), double.width(), "three columns either way");
    let shorter = sheet(&mut renderer, &PictureInput { max_rows: 1, ..compared }).unwrap();
    assert!(double.height() - shorter.height() >= 360, "two rows of 180 pixels for a frame");
    // Of the right one no error is drawn: its column differs from the other's.
    let invented = VoxelOutcome::Invented.color(Theme::Light);
    let middle = double.width() / 2;
    let column = |from: u32, to: u32| {
        (from..to)
            .flat_map(|x| (0..double.height() - 100).map(move |y| (x, y)))
            .filter(|&(x, y)| double.get_pixel(x, y).0[..3] == invented)
            .count()
    };
    assert!(column(middle + 130, double.width()) > column(middle - 100, middle + 100) + 20);
}

#[test]
fn a_gif_holds_every_frame_in_the_size_of_its_page_and_loops() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let (frames, classes) = (frames(5), classes());
    let input = PictureInput {
        frame_interval_s: Some(0.1),
        panel_px: [160, 120],
        max_rows: 1,
        ..PictureInput::new(geometry(), &frames, &classes)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("frames.gif");
    gif(&mut renderer, &input, &path).unwrap();
    let page = sheet(&mut renderer, &input).unwrap();

    let mut options = ::gif::DecodeOptions::new();
    options.set_color_output(::gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(std::fs::File::open(&path).unwrap()).unwrap();
    assert_eq!((u32::from(decoder.width()), u32::from(decoder.height())), page.dimensions());
    assert_eq!(decoder.repeat(), ::gif::Repeat::Infinite);
    let first = decoder.read_next_frame().unwrap().unwrap();
    assert_eq!((first.delay, first.width), (10, page.width() as u16));
    let far_off =
        first.buffer.chunks_exact(4).zip(page.pixels()).filter(|(a, b)| !close(b, [a[0], a[1], a[2]], 24)).count();
    assert!(far_off * 200 < page.pixels().len(), "{far_off} pixels of the GIF differ from the sheet");
    let mut n = 1;
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        n += 1;
        assert!(frame.width < page.width() as u16, "later frames hold only what changed");
    }
    assert_eq!(n, 5);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_panel_larger_than_the_adapter_draws_is_refused() {
    let Some((device, queue)) = device() else { return };
    let mut renderer = Headless::new(&device, &queue).unwrap();
    let camera = Camera::three_quarter(geometry().extent_m(), 1.0, Projection::Perspective);
    let palette = Palette::default();
    for (width, height) in [(0, 10), (1 << 20, 10)] {
        let error =
            renderer.render(Mesh::default(), &look(&camera, &palette, Theme::Light), width, height).unwrap_err();
        assert!(matches!(error, sep4d::Error::Usage(_)), "{error}");
    }
}
