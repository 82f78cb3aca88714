//! Shader assembly: WGSL templates with imports and unrolled loops.
//!
//! Every file below `shaders/` is a minijinja template: `{% include "common/index.wgsl" %}` imports, `{% for %}` unrolls, and
//! the kernel's defines are its variables, `entry` among them; `element[b]` is the element type of binding `b`, f32 or f16.

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};
use minijinja::{Environment, UndefinedBehavior, Value, context};

use super::Kernel;
use super::grouped::grouped_source;
use crate::{Error, Result};

static FILES: Dir = include_dir!("$CARGO_MANIFEST_DIR/shaders");

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_loader(|name| Ok(FILES.get_file(name).and_then(|file| file.contents_utf8()).map(str::to_owned)));
    environment
});

/// The WGSL text of a kernel's shader under its defines.
///
/// # Errors
/// [`Error::Device`] if the template is missing or does not render.
pub fn render_shader(kernel: &Kernel) -> Result<String> {
    let element: Vec<&str> =
        (0..u32::BITS).map(|binding| if kernel.half_bindings >> binding & 1 == 1 { "f16" } else { "f32" }).collect();
    let enable = if kernel.half_bindings == 0 { "" } else { "enable f16;\n" };
    TEMPLATES
        .get_template(kernel.shader)
        .and_then(|template| {
            template.render(context! { entry => kernel.entry, element, ..Value::from_serialize(&kernel.defines) })
        })
        .map_err(|why| format!("{why:#}"))
        .and_then(|source| if kernel.is_grouped { grouped_source(&source, kernel.entry) } else { Ok(source) })
        .map(|source| enable.to_owned() + &source)
        .map_err(|why| Error::Device(format!("shader {} ({}) cannot be assembled: {why}", kernel.shader, kernel.entry)))
}

/// Paths and texts of all shader files, for the tests that check imports and names.
pub fn shader_files() -> Vec<(String, String)> {
    fn collect(dir: &Dir, files: &mut Vec<(String, String)>) {
        for file in dir.files() {
            let text = file.contents_utf8().unwrap_or_default().to_owned();
            files.push((file.path().to_string_lossy().into_owned(), text));
        }
        dir.dirs().for_each(|dir| collect(dir, files));
    }
    let mut files = Vec::new();
    collect(&FILES, &mut files);
    files
}
