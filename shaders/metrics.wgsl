// Kernels of src/layers/metrics.rs.
{% include "common/index.wgsl" %}

const K = {{ CLASSES }}u;

struct Parameters {
    // Of the window for argmax, of one frame for confusion.
    voxels: u32,
    voxels_per_invocation: u32,
    groups_per_frame: u32,
    frames: u32,
    first_frame: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> classes: array<u32>;

@compute @workgroup_size(64)
fn argmax(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let voxel = invocation_index(workgroup, grid, local);
    if voxel < p.voxels {
        var best = 0u;
        var highest = logits[voxel * K];
        for (var c = 1u; c < K; c += 1u) {
            let logit = logits[voxel * K + c];
            if logit > highest {
                highest = logit;
                best = c;
            }
        }
        classes[voxel] = best;
    }
}

{% if CONFUSION %}
@group(0) @binding(1) var<storage, read_write> predicted: array<u32>;
@group(0) @binding(2) var<storage, read_write> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> observed: array<u32>;
@group(0) @binding(4) var<storage, read_write> counts: array<atomic<u32>>;

var<workgroup> group_counts: array<atomic<u32>, {{ CLASSES * CLASSES }}>;

// A workgroup counts a run of voxels of one frame by itself, then adds what it found.
@compute @workgroup_size(64)
fn confusion(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, grid);
    let frame = group / p.groups_per_frame;
    let first = (group % p.groups_per_frame) * p.voxels_per_invocation * 64u + local;
    for (var i = local; i < K * K; i += 64u) {
        atomicStore(&group_counts[i], 0u);
    }
    workgroupBarrier();
    if frame < p.frames {
        for (var i = 0u; i < p.voxels_per_invocation; i += 1u) {
            if first + i * 64u >= p.voxels {
                break;
            }
            let voxel = frame * p.voxels + first + i * 64u;
            let truth = labels[voxel];
            let guess = predicted[voxel];
            if observed[voxel] != 0u && truth < K && guess < K {
                atomicAdd(&group_counts[truth * K + guess], 1u);
            }
        }
    }
    workgroupBarrier();
    if frame < p.frames {
        for (var i = local; i < K * K; i += 64u) {
            let count = atomicLoad(&group_counts[i]);
            if count > 0u {
                atomicAdd(&counts[(p.first_frame + frame) * K * K + i], count);
            }
        }
    }
}
{% endif %}
