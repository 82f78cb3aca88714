//! `sep4d devices`: the adapters and their limits.

use sep4d::gpu::adapters;
use sep4d::{Error, Result};

use super::table::{bytes, table};

/// Prints one row an adapter, the best first.
///
/// # Errors
/// [`Error::Device`] if there is none.
pub fn run() -> Result<()> {
    let rows: Vec<Vec<String>> = adapters()
        .into_iter()
        .enumerate()
        .map(|(number, adapter)| {
            vec![
                number.to_string(),
                adapter.name,
                adapter.kind.into(),
                adapter.backend,
                adapter.driver,
                bytes(adapter.limits.max_buffer_bytes),
                bytes(adapter.limits.max_storage_binding_bytes),
                adapter.features.join(" "),
            ]
        })
        .collect();
    if rows.is_empty() {
        return Err(Error::Device(
            "no Vulkan, Metal or D3D12 adapter was found; install a GPU driver, or Mesa's software driver \
             (Debian: apt-get install mesa-vulkan-drivers libvulkan1)"
                .into(),
        ));
    }
    let header = ["#", "name", "kind", "backend", "driver", "buffer", "binding", "features"];
    print!("{}", table(&header, &rows));
    Ok(())
}
