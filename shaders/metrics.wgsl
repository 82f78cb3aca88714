// Kernels of src/layers/metrics.rs.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, counters, entry_point, parameters %}

const K = {{ CLASSES }}u;

struct Parameters {
    // Of the window for argmax, of one frame for confusion.
    voxels: u32,
    voxels_per_invocation: u32,
    groups_per_frame: u32,
    frames: u32,
    first_frame: u32,
}

{{ parameters("p", "Parameters") }}

{{ buffer(1, "logits", "f32") }}
{{ buffer(2, "classes", "u32") }}

{{ entry_point("argmax") }}
    let voxel = invocation_index(workgroup, grid, local);
    if voxel < p.voxels {
        var best = 0u;
        var highest = load_logits(voxel * K);
        for (var c = 1u; c < K; c += 1u) {
            let logit = load_logits(voxel * K + c);
            if logit > highest {
                highest = logit;
                best = c;
            }
        }
        store_classes(voxel, best);
    }
}

{% if CONFUSION %}
{{ buffer(1, "predicted", "u32") }}
{{ buffer(2, "labels", "u32") }}
{{ buffer(3, "observed", "u32") }}
{{ counters(4, "counts") }}

var<workgroup> group_counts: array<atomic<u32>, {{ CLASSES * CLASSES }}>;

// A workgroup counts a run of voxels of one frame by itself, then adds what it found.
{{ entry_point("confusion") }}
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
            let truth = load_labels(voxel);
            let guess = load_predicted(voxel);
            if load_observed(voxel) != 0u && truth < K && guess < K {
                atomicAdd(&group_counts[truth * K + guess], 1u);
            }
        }
    }
    workgroupBarrier();
    if frame < p.frames {
        for (var i = local; i < K * K; i += 64u) {
            let count = atomicLoad(&group_counts[i]);
            if count > 0u {
                add_to_counts((p.first_frame + frame) * K * K + i, count);
            }
        }
    }
}
{% endif %}
