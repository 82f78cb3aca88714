//! `sep4d devices`: the adapters and their limits.

use sep4d::Result;
use sep4d::gpu::{DeviceChoice, adapters, choose};

use super::output::put;
use super::table::table;
use sep4d::figures::bytes;

/// Prints one row an adapter, the best first.
///
/// # Errors
/// [`sep4d::Error::Device`] if there is none.
pub fn run() -> Result<()> {
    let adapters = adapters();
    choose(&adapters, &DeviceChoice::Best)?;
    let rows: Vec<Vec<String>> = adapters
        .into_iter()
        .enumerate()
        .map(|(number, adapter)| {
            vec![
                number.to_string(),
                adapter.name,
                adapter.kind.into(),
                adapter.backend,
                adapter.driver,
                bytes(adapter.limits.max_buffer_bytes as u64),
                bytes(adapter.limits.max_storage_binding_bytes as u64),
                adapter.features.join(" "),
            ]
        })
        .collect();
    let header = ["#", "name", "kind", "backend", "driver", "buffer", "binding", "features"];
    put!("{}", table(&header, &rows))?;
    Ok(())
}
