// Kernels of src/layers/permute.rs; one invocation an element of the result, or four, which are a vector of the operand too (width = 4)
// or gathered from it.
{% include "common/divide.wgsl" %}
{% include "common/index.wgsl" %}
{% from "common/values.wgsl" import values %}

struct Permutation {
    // Of the result's axes, the last in vectors.
    extents: array<vec4<u32>, 2>,
    // From one index of that axis to the next in the operand.
    strides: array<vec4<u32>, 2>,
    // Where gathered elements lie from the first one on.
    steps: vec4<u32>,
    count: u32,
}

struct Tiling {
    count: u32,
    length: u32,
}

@group(0) @binding(0) var<uniform> p: Permutation;
@group(0) @binding(0) var<uniform> tiling: Tiling;
@group(0) @binding(1) var<storage, read_write> x: array<{{ values(element[1]) }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ "vec4<" ~ element[2] ~ ">" if gathers else values(element[2]) }}>;

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
    {
        let extent = p.extents[{{ axis // 4 }}][{{ axis % 4 }}];
        let quotient = u32(divided(i32(rest), i32(extent)));
        source += (rest - quotient * extent) * p.strides[{{ axis // 4 }}][{{ axis % 4 }}];
        rest = quotient;
    }
    {% endfor %}
    source += rest * p.strides[0][0];
    {% if gathers %}
    y[index] = vec4<{{ element[2] }}>(vec4(x[source], x[source + p.steps.y], x[source + p.steps.z], x[source + p.steps.w]));
    {% else %}
    y[index] = {{ values(element[2]) }}(x[source]);
    {% endif %}
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
