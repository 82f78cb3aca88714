//! The house rules that a compiler does not enforce: module edges, shader names and imports, file sizes.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the file is readable")
}

/// The code of a module's files without comments and tests.
fn code(module: &str) -> Vec<(PathBuf, String)> {
    let dir = root().join("src").join(module);
    let strip = |text: String| -> String {
        // Only tests have a file with such an attribute of its own, and of a file's items the last one, a module in braces.
        let is_module = |(at, _): &(usize, &str)| {
            let next = text[*at..].lines().nth(1).unwrap_or_default();
            text[..*at].ends_with("#![") || next.contains("mod ") && next.ends_with('{')
        };
        let marks = text.match_indices("cfg(test)]").chain(text.match_indices("cfg(all(test,"));
        let tests = marks.filter(is_module).map(|(at, _)| at).min();
        let body = text[..tests.unwrap_or(text.len())].to_owned();
        body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let is_test = |path: &PathBuf| {
        let below = path.strip_prefix(root()).unwrap_or(path);
        path.ends_with("tests.rs") || below.components().any(|part| part.as_os_str() == "tests")
    };
    files(&dir, "rs").into_iter().filter(|path| !is_test(path)).map(|path| (path.clone(), strip(read(&path)))).collect()
}

#[test]
fn no_model_and_no_data_set_is_known_outside_its_own_file() {
    for module in ["train", "app", "cli"] {
        for path in files(&root().join("src").join(module), "rs") {
            let text = read(&path).to_lowercase();
            for name in ["planes", "models::sep4d", "carla"] {
                assert!(
                    !text.contains(name),
                    "{} speaks of {name}: go by the lists of models and data",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn modules_know_only_what_they_may() {
    let forbidden: [(&str, &[&str]); 7] = [
        (
            "kernel",
            &[
                "wgpu",
                "crate::gpu",
                "crate::graph",
                "crate::layers",
                "crate::models",
                "crate::train",
                "crate::data",
                "crate::view",
            ],
        ),
        (
            "data",
            &["wgpu", "crate::gpu", "crate::graph", "crate::layers", "crate::models", "crate::train", "crate::view"],
        ),
        ("graph", &["crate::layers", "crate::models", "crate::train", "crate::data", "crate::view"]),
        (
            "layers",
            &["wgpu::", "crate::gpu", "crate::selftest", "crate::models", "crate::train", "crate::data", "crate::view"],
        ),
        ("models", &["wgpu::", "crate::gpu", "crate::train", "crate::data", "crate::view"]),
        ("gpu", &["crate::graph", "crate::layers", "crate::models", "crate::train", "crate::data", "crate::view"]),
        ("view", &["crate::layers", "crate::models", "crate::train", "crate::graph"]),
    ];
    for (module, names) in forbidden {
        for (path, text) in code(module) {
            for name in names {
                assert!(!text.contains(name), "{} uses {name}, which {module} must not know", path.display());
            }
        }
    }
    for module in forbidden.map(|(module, _)| module).into_iter().chain(["train"]) {
        for (path, text) in code(module) {
            assert!(!text.contains("crate::app"), "{} uses the window, which only the program may", path.display());
        }
    }
    for (path, text) in code("graph") {
        let speaks_to_gpu =
            path.ends_with("execute.rs") || path.parent().is_some_and(|folder| folder.ends_with("execute"));
        assert!(speaks_to_gpu || !text.contains("wgpu::"), "{} names wgpu", path.display());
        let measures = path.ends_with("tune.rs") || path.parent().is_some_and(|folder| folder.ends_with("tune"));
        assert!(speaks_to_gpu || measures || !text.contains("crate::gpu"), "{} uses the device", path.display());
    }
}

#[test]
fn the_library_neither_prints_nor_exits() {
    for module in ["app", "data", "gpu", "graph", "kernel", "layers", "models", "train", "view"] {
        for (path, text) in code(module) {
            for call in ["println!", "eprintln!", "print!(", "process::exit", ".unwrap()", "panic!("] {
                assert!(!text.contains(call), "{} calls {call}", path.display());
            }
        }
    }
}

#[test]
fn shaders_stand_beside_their_layers() {
    for path in files(&root().join("shaders"), "wgsl") {
        let parent = path.parent().unwrap().file_name().unwrap().to_owned();
        if parent != "shaders" {
            continue;
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let layer = root().join("src/layers").join(format!("{stem}.rs"));
        assert!(layer.exists(), "{} has no layer {}", path.display(), layer.display());
        let text = std::fs::read_to_string(&layer).unwrap();
        // The second stage of other layers' reductions is tested with them.
        let tested = stem == "reduce" || text.contains("pub fn cases()");
        assert!(tested, "{} has no cases for the self-test", layer.display());
    }
}

#[test]
fn shared_shader_code_is_imported_not_pasted() {
    let functions = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.strip_prefix("fn "))
            .filter_map(|rest| rest.split('(').next())
            .map(str::to_owned)
            .collect()
    };
    let shaders = root().join("shaders");
    let shared: Vec<String> =
        files(&shaders.join("common"), "wgsl").iter().flat_map(|path| functions(&read(path))).collect();
    assert!(!shared.is_empty());
    for path in files(&shaders, "wgsl").iter().filter(|path| !path.starts_with(shaders.join("common"))) {
        for function in functions(&read(path)) {
            assert!(!shared.contains(&function), "{} defines {function} again; include common/", path.display());
            let last = function.chars().last().unwrap();
            assert!(!last.is_ascii_digit(), "{}: {function} looks like a version number", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_to_find_ones_way_in() {
    let all = files(&root().join("src"), "rs").into_iter().chain(files(&root().join("shaders"), "wgsl"));
    for path in all.chain(files(&root().join("tests"), "rs")) {
        let lines = read(&path).lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
    }
}
