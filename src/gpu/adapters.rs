//! Adapters: listing and choice, limits, and why there is none.

use crate::kernel::{Grouping, KernelLimits, LAYER_BYTES, Policy, Tuning};
use crate::{Error, Result};

/// Which adapter to use.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum DeviceChoice {
    /// A discrete GPU before an integrated one before a software adapter.
    #[default]
    Best,
    /// Row `i` of [`adapters`]; where there are not that many, the first adapter with that number of two digits or more in
    /// its name, such as 4090.
    Index(usize),
    /// The first adapter whose name contains this text, upper and lower case alike.
    Name(String),
}

impl std::str::FromStr for DeviceChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(index) => DeviceChoice::Index(index),
            Err(_) if text.is_empty() || text == "best" => DeviceChoice::Best,
            Err(_) => DeviceChoice::Name(text.to_owned()),
        })
    }
}

/// One adapter as `sep4d devices` lists it.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    /// The driver's name for it.
    pub name: String,
    /// Discrete, integrated, virtual, software or other.
    pub kind: &'static str,
    /// Vulkan, Metal, D3D12...
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Limits that matter to kernels.
    pub limits: KernelLimits,
    /// Optional features that sep4d can use.
    pub features: Vec<&'static str>,
}

/// Features that are used where they are.
pub(super) const OPTIONAL_FEATURES: [(wgpu::Features, &str); 5] = [
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative-matrix"),
    (wgpu::Features::TIMESTAMP_QUERY, "timestamp-query"),
    (wgpu::Features::SUBGROUP, "subgroup"),
    (wgpu::Features::SHADER_F16, "shader-f16"),
    (wgpu::Features::PIPELINE_CACHE, "pipeline-cache"),
];

/// The backends that are built in and that `WGPU_BACKEND` leaves, if it is set.
pub fn backends() -> wgpu::Backends {
    backends_left(variable("WGPU_BACKEND").as_deref())
}

fn backends_left(wanted: Option<&str>) -> wgpu::Backends {
    wanted.map_or(wgpu::Backends::PRIMARY, wgpu::Backends::from_comma_list) & built_in()
}

fn built_in() -> wgpu::Backends {
    wgpu::Instance::enabled_backend_features() & wgpu::Backends::PRIMARY
}

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: backends(),
        // In a debug build wgpu would write the lines of every kernel's source into it, which drivers take long to read.
        flags: (wgpu::InstanceFlags::default() - wgpu::InstanceFlags::DEBUG).with_env(),
        ..wgpu::InstanceDescriptor::new_without_display_handle_from_env()
    })
}

/// All adapters, the best first.
pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    let mut adapters = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters.sort_by_key(rank);
    adapters
}

/// The better an adapter, the lower.
fn rank(adapter: &wgpu::Adapter) -> u8 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

/// The best of `adapters` that can draw to `surface`.
///
/// # Errors
/// [`Error::Device`] if there is no adapter, or none that can.
pub fn best_for(adapters: &[wgpu::Adapter], surface: Option<&wgpu::Surface<'_>>) -> Result<wgpu::Adapter> {
    let summaries: Vec<AdapterSummary> = adapters.iter().map(summary).collect();
    choose(&summaries, &DeviceChoice::Best)?;
    let fits = |adapter: &&wgpu::Adapter| surface.is_none_or(|surface| adapter.is_surface_supported(surface));
    adapters.iter().filter(fits).min_by_key(|adapter| rank(adapter)).cloned().ok_or_else(|| {
        let names: Vec<&str> = summaries.iter().map(|adapter| adapter.name.as_str()).collect();
        Error::Device(format!(
            "none of the adapters can draw to this display: {}; update their drivers",
            names.join(", ")
        ))
    })
}

/// Whether the adapter has the matrices for which there are kernels.
fn has_matrix_units(adapter: &wgpu::Adapter) -> bool {
    let info = adapter.get_info();
    let needed =
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    let fits = |matrix: &wgpu::CooperativeMatrixProperties| {
        [matrix.m_size, matrix.n_size, matrix.k_size] == [16; 3]
            && matrix.ab_type == wgpu::CooperativeScalarType::F16
            && matrix.cr_type == wgpu::CooperativeScalarType::F32
    };
    adapter.features().contains(needed)
        && [info.subgroup_min_size, info.subgroup_max_size] == [32; 2]
        && adapter.cooperative_matrix_properties().iter().any(fits)
}

fn kernel_limits(adapter: &wgpu::Adapter) -> KernelLimits {
    let limits = adapter.limits();
    let is_software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    KernelLimits {
        max_storage_binding_bytes: limits.max_storage_buffer_binding_size as usize,
        max_buffer_bytes: limits.max_buffer_size as usize,
        max_image_bytes: limits.max_texture_array_layers as usize * LAYER_BYTES,
        offset_alignment_bytes: 256
            .max(limits.min_storage_buffer_offset_alignment as usize)
            .max(limits.min_uniform_buffer_offset_alignment as usize),
        max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension as usize,
        max_workgroup_bytes: limits.max_compute_workgroup_storage_size as usize,
        min_subgroup_lanes: if adapter.features().contains(wgpu::Features::SUBGROUP) {
            adapter.get_info().subgroup_min_size as usize
        } else {
            0
        },
        has_f16: adapter.features().contains(wgpu::Features::SHADER_F16),
        has_matrix_units: has_matrix_units(adapter),
        forbids_aliasing: adapter.get_info().backend == wgpu::Backend::BrowserWebGpu,
        is_software,
        policy: Policy {
            for_cpu: is_software,
            emulates_matrix_units: false,
            tuning: Tuning::new(),
            // Drivers of GPUs are many; what they make of kernels for several launches is tried before it is used.
            grouping: if is_software { Grouping::Small } else { Grouping::Tried },
        },
    }
}

/// What is known of an adapter.
pub(super) fn summary(adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let features = adapter.features();
    AdapterSummary {
        name: info.name.clone(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        },
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info),
        limits: kernel_limits(adapter),
        features: OPTIONAL_FEATURES.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| *name).collect(),
    }
}

/// All adapters, the best first; their places are what `--device N` counts.
pub fn adapters() -> Vec<AdapterSummary> {
    enumerate().iter().map(summary).collect()
}

/// The place of the chosen one among `adapters`.
///
/// # Errors
/// [`Error::Device`] if there is no adapter, or none of that name or number.
pub fn choose(adapters: &[AdapterSummary], choice: &DeviceChoice) -> Result<usize> {
    if adapters.is_empty() {
        return Err(no_adapter(variable));
    }
    let rows: Vec<String> = adapters.iter().enumerate().map(|(i, adapter)| format!("{i}: {}", adapter.name)).collect();
    let missing = |why: String| {
        Error::Device(format!("--device {why}; choose one of these: {} (`sep4d devices`)", rows.join(", ")))
    };
    let first = |fits: &dyn Fn(&str) -> bool| adapters.iter().position(|adapter| fits(&adapter.name.to_lowercase()));
    match choice {
        DeviceChoice::Best => Ok(0),
        DeviceChoice::Index(index) if *index < adapters.len() => Ok(*index),
        DeviceChoice::Index(index) => first(&|name| holds_number(name, *index))
            .ok_or_else(|| missing(format!("{index}: no adapter has that number, nor has it in its name"))),
        DeviceChoice::Name(name) => first(&|other| other.contains(&name.to_lowercase()))
            .ok_or_else(|| missing(format!("{name}: no adapter has that in its name"))),
    }
}

/// Whether `name` has the number in it, such as 4090: the whole of it, and not in a version, such as 15.0.6. One digit is never
/// meant so.
fn holds_number(name: &str, number: usize) -> bool {
    let goes_on = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit() || c == '.');
    number > 9
        && name.match_indices(&number.to_string()).any(|(at, digits)| {
            !goes_on(name[..at].chars().next_back()) && !goes_on(name[at + digits.len()..].chars().next())
        })
}

/// Why there is no adapter, as far as the environment tells, and what to do.
fn no_adapter(variable: impl Fn(&str) -> Option<String>) -> Error {
    if let Some(wanted) = variable("WGPU_BACKEND")
        && backends_left(Some(&wanted)).is_empty()
    {
        let names: Vec<String> = built_in().iter_names().map(|(name, _)| name.to_lowercase()).collect();
        return Error::Device(format!(
            "WGPU_BACKEND={wanted} leaves none of the backends that sep4d can use here; unset it, or set it to {}",
            names.join(" or ")
        ));
    }
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(files) = variable(name) {
            return Error::Device(format!(
                "no adapter was found, and {name}={files} hides all other Vulkan drivers; unset it, or name the file of a \
                 driver that is installed"
            ));
        }
    }
    Error::Device(
        "no Vulkan, Metal or D3D12 adapter was found; install a GPU driver, or Mesa's software driver \
         (Debian: apt-get install mesa-vulkan-drivers libvulkan1)"
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapters() -> Vec<AdapterSummary> {
        let named = |name: &str| AdapterSummary {
            name: name.into(),
            kind: "discrete",
            backend: "vulkan".into(),
            driver: String::new(),
            limits: KernelLimits::portable(),
            features: Vec::new(),
        };
        vec![named("NVIDIA GeForce RTX 4090"), named("llvmpipe (LLVM 15.0.6, 256 bits)")]
    }

    #[test]
    fn digits_are_a_number_or_a_part_of_a_name() {
        for (device, row) in [("0", 0), ("1", 1), ("4090", 0), ("256", 1), ("rtx 4090", 0), ("LLVM", 1), ("best", 0)] {
            let Ok(choice) = device.parse();
            assert_eq!(choose(&adapters(), &choice).unwrap(), row, "{device}");
        }
        for device in ["2", "6", "15", "409", "3090", "99999999999999999999999"] {
            let Ok(choice) = device.parse();
            let why = choose(&adapters(), &choice).unwrap_err();
            let message = why.to_string();
            assert!(message.contains("0: NVIDIA GeForce RTX 4090, 1: llvmpipe") && why.exit_code() == 4, "{message}");
        }
    }

    #[test]
    fn without_an_adapter_the_environment_is_named_if_it_is_the_cause() {
        let told = |name: &'static str, value: &'static str| {
            no_adapter(move |asked| (asked == name).then(|| value.to_owned())).to_string()
        };
        for backend in ["gl", "foo", "vulcan, gl"] {
            let message = told("WGPU_BACKEND", backend);
            assert!(message.contains(&format!("WGPU_BACKEND={backend} leaves none")), "{message}");
            assert!(!message.contains("install"), "{message}");
        }
        assert!(told("VK_DRIVER_FILES", "/nowhere").contains("VK_DRIVER_FILES=/nowhere"));
        assert!(told("VK_ICD_FILENAMES", "/nowhere").contains("VK_ICD_FILENAMES=/nowhere"));
        assert!(told("WGPU_ADAPTER_NAME", "foo").contains("mesa-vulkan-drivers"));
        #[cfg(target_os = "linux")]
        assert!(told("WGPU_BACKEND", "vulkan").contains("mesa-vulkan-drivers"));
    }

    #[test]
    fn a_backend_that_is_not_built_in_is_not_used() {
        assert_eq!(backends_left(None), built_in());
        assert!(backends_left(Some("gl")).is_empty());
        assert!(built_in().contains(backends_left(Some("vulkan, gl"))));
    }
}
