// Kernels of src/layers/permute.rs; one invocation an element of the result, or (width = 4) four.
{% include "common/index.wgsl" %}
{% from "common/values.wgsl" import values %}

struct Permutation {
    // Of the result's axes, the last in vectors.
    extents: array<vec4<u32>, 2>,
    // From one index of that axis to the next in the operand.
    strides: array<vec4<u32>, 2>,
    count: u32,
}

struct Tiling {
    count: u32,
    length: u32,
}

@group(0) @binding(0) var<uniform> p: Permutation;
@group(0) @binding(0) var<uniform> tiling: Tiling;
@group(0) @binding(1) var<storage, read_write> x: array<{{ values(element[1]) }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ values(element[2]) }}>;

{% if entry == "permute" %}
@compute @workgroup_size(64)
fn permute(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    if index >= p.count {
        return;
    }
    var rest = index;
    var source = 0u;
    {% for axis in range(1, rank) | reverse %}
    source += rest % p.extents[{{ axis // 4 }}][{{ axis % 4 }}] * p.strides[{{ axis // 4 }}][{{ axis % 4 }}];
    rest /= p.extents[{{ axis // 4 }}][{{ axis % 4 }}];
    {% endfor %}
    y[index] = {{ values(element[2]) }}(x[source + rest * p.strides[0][0]]);
}
{% else %}
@compute @workgroup_size(64)
fn tile_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    if index < tiling.count {
        y[index] = x[index % tiling.length];
    }
}
{% endif %}
