//! Shader assembly: WGSL templates with imports and unrolled loops.
//!
//! Every file below `shaders/` is a minijinja template: `{% include "common/index.wgsl" %}` imports, `{% for %}` unrolls, and
//! the kernel's defines are its variables, `entry` among them; `element[b]` is the element type of binding `b`, f32 or f16.
//! What a kernel is given it declares by the macros of `common/operands.wgsl`, for which `launches` has the extents of the table of
//! several launches, or is none.

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};
use minijinja::{Environment, UndefinedBehavior, Value, context};

use super::grouped::{MOST_MEMBERS, MOST_PARAMETERS};
use super::{Kernel, WORD_BYTES};
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
    let table = context! { most => MOST_MEMBERS, parameter_bytes => MOST_PARAMETERS * WORD_BYTES };
    let launches = kernel.is_grouped.then_some(table);
    let values = context! { entry => kernel.entry, element, launches, ..Value::from_serialize(&kernel.defines) };
    TEMPLATES
        .get_template(kernel.shader)
        .and_then(|template| template.render(values))
        .map(|source| enable.to_owned() + &source)
        .map_err(|why| {
            Error::Device(format!("shader {} ({}) cannot be assembled: {why:#}", kernel.shader, kernel.entry))
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kernel_of_several_launches_looks_for_its_own() {
        let alone = Kernel { half_bindings: 0b100, ..Kernel::new("reduce.wgsl", "reduce_chunks") };
        let text = render_shader(&alone).unwrap();
        assert!(
            text.contains("return (chunk_sums_elements[i]);") && text.contains("y_elements[i] = f16(value);"),
            "{text}"
        );
        assert!(text.contains("var<uniform> p: Parameters;") && !text.contains("launch_"), "{text}");
        let text = render_shader(&Kernel { is_grouped: true, ..alone }).unwrap();
        assert!(text.contains("y_elements[u32(launch_offsets[0].y / 2u) + i] = f16(value);"), "{text}");
        assert!(text.contains("let launch = launch_of_p(dispatched.x);"), "{text}");
    }
}
