// Kernels of src/layers/commitment_loss.rs; `width` elements a vector.
{% include "common/index.wgsl" %}
{% include "common/reduce.wgsl" %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    count: u32, // vectors of this launch
    vectors_per_invocation: u32,
    first_group: u32,
    groups: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> from_vectors: array<{{ values(element[1]) }}>;
@group(0) @binding(2) var<storage, read_write> to_vectors: array<{{ values(element[2]) }}>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(64)
fn commitment_loss_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, grid);
    var squares = Value(0.0);
    for (var k = 0u; k < p.vectors_per_invocation; k += 1u) {
        let i = (group * p.vectors_per_invocation + k) * 64u + local;
        if i >= p.count {
            break;
        }
        let difference = Value(from_vectors[i]) - Value(to_vectors[i]);
        squares += difference * difference;
    }
    let own = {{ "squares.x + squares.y + squares.z + squares.w" if width == 4 else "squares" }};
    let sum = workgroup_sum(vec2(own, 0.0), local);
    if local == 0u && group < p.groups {
        partials[p.first_group + group] = sum.x;
    }
}

@group(0) @binding(1) var<storage, read_write> all_partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;

@compute @workgroup_size(64)
fn commitment_loss_merge(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < p.groups; i += 64u) {
        sum += all_partials[i];
    }
    let total = workgroup_sum(vec2(sum, 0.0), local);
    if local == 0u {
        loss[0] = p.factor * total.x;
    }
}

@group(0) @binding(3) var<storage, read_write> d_loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_from: array<{{ values(element[4]) }}>;

// d_from may be what it is the gradient of.
@compute @workgroup_size(64)
fn commitment_loss_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        let difference = Value(from_vectors[i]) - Value(to_vectors[i]);
        d_from[i] = {{ values(element[4]) }}(p.factor * d_loss[0] * difference);
    }
}
