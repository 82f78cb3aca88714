//! The house rules that a compiler does not enforce: module edges, shader names and imports, file sizes.

use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Meta, UseName, UseRename, UseTree};

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
            for name in ["planes", "models::sep4d", "sora", "carla"] {
                assert!(
                    !text.contains(name),
                    "{} speaks of {name}: go by the lists of models and data",
                    path.display()
                );
            }
        }
    }
}

/// What each module may use of the others: a module below it in this list, and no other. Whatever is not named here is no module.
const FLOORS: [(&str, &[&str]); 19] = [
    ("figures", &[]),
    ("error", &["figures"]),
    ("hash", &[]),
    ("rng", &[]),
    ("signals", &[]),
    ("files", &["error"]),
    ("kernel", &["error"]),
    ("data", &["error", "files", "figures", "hash", "rng"]),
    ("gpu", &["error", "files", "hash", "kernel"]),
    ("graph", &["error", "gpu", "kernel", "rng"]),
    ("layers", &["error", "graph", "rng"]),
    ("models", &["error", "graph", "layers"]),
    ("view", &["data", "error", "files", "gpu"]),
    ("roofline", &["error", "gpu", "graph", "layers"]),
    ("selftest", &["error", "gpu", "graph", "kernel", "layers", "rng"]),
    ("train", &["data", "error", "files", "figures", "gpu", "graph", "kernel", "layers", "models"]),
    ("reproduce", &["data", "error", "figures", "files", "gpu", "models", "train", "view"]),
    (
        "app",
        &[
            "data",
            "error",
            "files",
            "figures",
            "gpu",
            "graph",
            "models",
            "reproduce",
            "rng",
            "signals",
            "train",
            "view",
        ],
    ),
    ("lib", &["error"]),
];

/// The parts of the library that talk to the device, of a module that otherwise must not.
const AT_THE_DEVICE: [&str; 2] = ["execute", "tune"];

/// The first names of all paths in a file, but for those in tests: `crate::gpu::Context` is `["crate", "gpu"]`.
#[derive(Default)]
struct Paths(Vec<[String; 2]>);

impl Paths {
    fn of(file: &Path) -> Paths {
        let parsed = syn::parse_file(&read(file)).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
        let mut paths = Paths::default();
        paths.visit_file(&parsed);
        paths
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                let names = [before, &[path.ident.to_string()]].concat();
                self.tree(&names, &path.tree);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
            UseTree::Name(UseName { ident }) | UseTree::Rename(UseRename { ident, .. }) => {
                self.found([before, &[ident.to_string()]].concat());
            }
            UseTree::Glob(_) => self.found(before.to_vec()),
        }
    }

    fn found(&mut self, mut names: Vec<String>) {
        names.resize(2.max(names.len()), String::new());
        if let Ok(first) = names[..2].to_vec().try_into() {
            self.0.push(first);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else { return attribute.path().is_ident("test") };
        list.path.is_ident("cfg") && list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|w| w == "test")
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// The files of a module that are no tests, with the paths in them.
fn paths(module: &str) -> Vec<(PathBuf, Vec<[String; 2]>)> {
    let source = root().join("src");
    let (folder, file) = (source.join(module), source.join(format!("{module}.rs")));
    let below = if folder.is_dir() { files(&folder, "rs") } else { Vec::new() };
    let all = below.into_iter().chain(file.is_file().then_some(file));
    let is_test = |path: &PathBuf| {
        let below = path.strip_prefix(root()).unwrap_or(path);
        below
            .components()
            .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "toy.rs" | "faults.rs")))
    };
    all.filter(|path| !is_test(path)).map(|path| (path.clone(), Paths::of(&path).0)).collect()
}

#[test]
fn modules_know_only_what_lies_below_them() {
    let (mut below, mut wrong): (Vec<&str>, Vec<String>) = Default::default();
    for (module, allowed) in FLOORS {
        assert!(allowed.iter().all(|other| below.contains(other)), "{module} is on no floor above {allowed:?}");
        below.push(module);
        for (path, paths) in paths(module) {
            let at_root = path.ends_with(format!("src/{module}.rs")) || path.ends_with(format!("src/{module}/mod.rs"));
            for [first, second] in &paths {
                // At the root stand the error type and its result.
                let other = match (first.as_str(), second.as_str()) {
                    ("crate", "Error" | "Result") => "error",
                    // A visibility.
                    ("crate", "") => continue,
                    ("crate", other) => other,
                    ("super", other) if at_root => other,
                    _ => continue,
                };
                let known = other == module || allowed.contains(&other) || module == "lib";
                if !known {
                    wrong.push(format!("{} uses crate::{other}, which {module} must not know", path.display()));
                }
            }
            let names =
                |name: &str| paths.iter().any(|[first, second]| first == name || first == "crate" && second == name);
            let at_device = path.components().any(|part| {
                AT_THE_DEVICE
                    .iter()
                    .any(|name| part.as_os_str().to_str().is_some_and(|part| part.trim_end_matches(".rs") == *name))
            });
            let free = ["gpu", "view", "app", "roofline", "selftest", "train", "reproduce"].contains(&module);
            if !free && !at_device && names("gpu") {
                wrong.push(format!("{} uses the device", path.display()));
            }
            let draws = ["gpu", "view", "app"].contains(&module);
            if !draws && !at_device && names("wgpu") {
                wrong.push(format!("{} names wgpu", path.display()));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for path in std::fs::read_dir(root().join("src")).expect("the folder is readable") {
        let path = path.expect("the folder is readable").path();
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        assert!(["main", "cli"].contains(&name.as_str()) || below.contains(&name.as_str()), "{name} is on no floor");
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
