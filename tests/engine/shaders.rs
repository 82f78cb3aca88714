//! Every kernel that a plan can ask for, as naga sees it: valid WGSL within what WebGPU guarantees on any adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use naga::AddressSpace;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use sep4d::graph::plan::{Plan, Step};
use sep4d::graph::{Graph, Kernel, KernelLimits, Policy};
use sep4d::kernel::{render_shader, shader_files};
use sep4d::layers;
use sep4d::models::{BatchShape, Terms};
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session::{self, LossWeights, Precision, StepConfig};

/// What WebGPU guarantees.
const MAX_STORAGE_BUFFERS: usize = 8;
const MAX_STORAGE_IMAGES: usize = 4;
const MAX_WORKGROUP_INVOCATIONS: u32 = 256;

/// How plans use one kernel.
#[derive(Default)]
struct Use {
    /// How many operands it is given.
    operands: BTreeSet<usize>,
    /// An adapter without subgroup operations would run it.
    without_subgroups: bool,
    /// The least workgroup memory of the adapters that would run it.
    workgroup_bytes: Option<usize>,
}

type Kernels = BTreeMap<Kernel, Use>;

/// Both kernel families, with every number of lanes that kernels tell apart.
fn variants() -> Vec<KernelLimits> {
    let mut variants = vec![KernelLimits { has_f16: true, ..KernelLimits::portable() }];
    for min_subgroup_lanes in [0, 4, 8, 16, 32] {
        for for_cpu in [true, false] {
            let portable = KernelLimits::portable().for_cpu(for_cpu);
            variants.push(KernelLimits { min_subgroup_lanes, has_f16: true, ..portable });
        }
    }
    let roomy = KernelLimits { max_workgroup_bytes: 48 << 10, has_f16: true, ..KernelLimits::portable() };
    variants.push(KernelLimits { has_matrix_units: true, min_subgroup_lanes: 32, ..roomy.clone() });
    variants.push(roomy.under(Policy { emulates_matrix_units: true, ..roomy.policy.clone() }));
    variants
}

/// The kernels that `graph` runs under `limits`, whichever variants a tuner chooses.
fn collect(kernels: &mut Kernels, graph: &Graph, limits: &KernelLimits) {
    collect_chosen(kernels, graph, limits);
    for tuning in graph.forced_tunings(limits) {
        collect_chosen(kernels, graph, &limits.tuned(tuning));
    }
}

fn collect_chosen(kernels: &mut Kernels, graph: &Graph, limits: &KernelLimits) {
    for step in Plan::new(graph, limits).unwrap().steps {
        if let Step::Dispatch { kernel, bindings, .. } = step {
            let kernel = kernels.entry(kernel).or_default();
            kernel.operands.insert(bindings.len());
            kernel.without_subgroups |= limits.min_subgroup_lanes == 0;
            let least = kernel.workgroup_bytes.unwrap_or(usize::MAX).min(limits.max_workgroup_bytes);
            kernel.workgroup_bytes = Some(least);
        }
    }
}

/// The kernels of every layer's cases and of every preset's training and evaluation, collected once for all tests.
static KERNELS: LazyLock<Kernels> = LazyLock::new(all_kernels);

fn all_kernels() -> Kernels {
    let mut kernels = Kernels::new();
    for case in layers::cases() {
        for graph in std::iter::once(case.graph().unwrap()).chain(case.half_graph().unwrap()) {
            for limits in variants() {
                collect(&mut kernels, &graph, &limits);
                if let Some(max_storage_binding_bytes) = case.window_bytes {
                    collect(&mut kernels, &graph, &KernelLimits { max_storage_binding_bytes, ..limits });
                }
            }
        }
    }
    let steps = [Precision::F32, Precision::F16].map(|precision| StepConfig {
        precision,
        weights: LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::of([("kl", 0.005)]) },
        ..StepConfig::default()
    });
    // The grids of the towns, CarlaSC and Occ3D; the second one's is also taken with long clips, which need windows.
    for preset in Preset::ALL {
        let model = RunConfig::preset(preset, None).model.for_data(true).unwrap();
        for (frames, size) in [(4, [32, 32, 8]), (4, [128, 128, 8]), (32, [128, 128, 8]), (4, [200, 200, 16])] {
            let shape = BatchShape { batch: 1, frames, size };
            let [single, half] = steps.each_ref().map(|step| session::graphs(&model, &shape, step).unwrap());
            for mut limits in variants() {
                limits.max_buffer_bytes = 2 << 30;
                single.iter().chain(&half[..1]).for_each(|graph| collect(&mut kernels, graph, &limits));
            }
        }
    }
    kernels
}

/// What is wrong with one kernel, as sentences.
fn complaints(kernel: &Kernel, planned: &Use) -> Vec<String> {
    let source = match render_shader(kernel) {
        Ok(source) => source,
        Err(why) => return vec![why.to_string()],
    };
    let module = match naga::front::wgsl::parse_str(&source) {
        Ok(module) => module,
        Err(why) => return vec![why.emit_to_string(&source)],
    };
    // The packing of f16 in words is part of WebGPU.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, !planned.without_subgroups);
    capabilities.set(Capabilities::SHADER_FLOAT16, kernel.half_bindings != 0 || kernel.on_matrix_units());
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, kernel.on_matrix_units());
    let info = match Validator::new(ValidationFlags::all(), capabilities).validate(&module) {
        Ok(info) => info,
        Err(why) => return vec![why.emit_to_string(&source)],
    };
    // No software adapter compiles these, so what can go wrong before the driver sees them is tried here.
    if kernel.on_matrix_units() {
        let options = naga::back::spv::Options { lang_version: (1, 4), ..Default::default() };
        if let Err(why) = naga::back::spv::write_vec(&module, &info, &options, None) {
            return vec![why.to_string()];
        }
    }
    let Some(index) = module.entry_points.iter().position(|entry| entry.name == kernel.entry) else {
        return vec!["has no such entry point".to_owned()];
    };
    let entry = &module.entry_points[index];
    let mut complaints = Vec::new();
    let invocations: u32 = entry.workgroup_size.iter().product();
    if invocations > MAX_WORKGROUP_INVOCATIONS || invocations == 0 {
        complaints.push(format!("has workgroups of {invocations} invocations"));
    }
    let used = || module.global_variables.iter().filter(|(handle, _)| !info.get_entry_point(index)[*handle].is_empty());
    let storage = used().filter(|(_, variable)| matches!(variable.space, AddressSpace::Storage { .. })).count();
    if storage > MAX_STORAGE_BUFFERS {
        complaints.push(format!("uses {storage} storage buffers"));
    }
    let images = (kernel.read_images | kernel.written_images).count_ones() as usize;
    if images > MAX_STORAGE_IMAGES
        || images != used().filter(|(_, variable)| variable.space == AddressSpace::Handle).count()
    {
        complaints.push(format!("uses other images than the {images} that it says, or too many"));
    }
    let workgroup_bytes: u32 = used()
        .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
        .map(|(_, variable)| module.types[variable.ty].inner.size(module.to_ctx()).next_multiple_of(16))
        .sum();
    if planned.workgroup_bytes.is_some_and(|most| workgroup_bytes as usize > most) {
        complaints.push(format!("uses {workgroup_bytes} bytes of workgroup memory"));
    }
    for (_, variable) in used() {
        let Some(binding) = &variable.binding else { continue };
        let number = binding.binding as usize;
        let is_uniform = variable.space == AddressSpace::Uniform;
        let fits = |operands: &usize| number <= *operands && is_uniform == (number == 0);
        if binding.group != 0 || !planned.operands.iter().all(fits) {
            let name = variable.name.as_deref().unwrap_or_default();
            complaints.push(format!("uses {name} at {binding:?}, which the layer does not bind so"));
        }
    }
    complaints
}

#[test]
fn every_kernel_is_valid_within_what_webgpu_guarantees() {
    println!("{} kernels", KERNELS.len());
    let found: Vec<String> = KERNELS
        .iter()
        .flat_map(|(kernel, planned)| {
            complaints(kernel, planned).into_iter().map(move |why| format!("{kernel:?}: {why}"))
        })
        .collect();
    assert!(found.is_empty(), "{} complaints:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_shader_file_is_used() {
    let files: BTreeMap<String, String> = shader_files().into_iter().collect();
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut drawing = std::fs::read_to_string(sources.join("app/canvas.rs")).unwrap();
    for file in std::fs::read_dir(sources.join("view")).unwrap() {
        drawing += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    let mut used: BTreeSet<&str> = KERNELS.keys().map(|kernel| kernel.shader).collect();
    used.extend(files.keys().map(String::as_str).filter(|name| drawing.contains(&format!("shaders/{name}"))));
    let mut pending: Vec<&str> = used.iter().copied().collect();
    while let Some(name) = pending.pop() {
        let includes = ["{% include \"", "{% from \""].map(|open| files[name].split(open).skip(1));
        for include in includes.into_iter().flatten() {
            let include = include.split('"').next().unwrap();
            // A variant without a kernel yet need not exist; a kernel that includes it does not render.
            if files.contains_key(include) && used.insert(include) {
                pending.push(include);
            }
        }
    }
    let unused: Vec<&String> = files.keys().filter(|name| !used.contains(name.as_str())).collect();
    assert!(unused.is_empty(), "no kernel uses {unused:?}");
}
