// Kernels of src/layers/permute.rs; one invocation an element of the result.
{% include "common/index.wgsl" %}

struct Permutation {
    // Of the result's axes, padded in front to six.
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
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

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
    {% for axis in [5, 4, 3, 2, 1, 0] %}
    source += rest % p.extents[{{ axis // 4 }}][{{ axis % 4 }}] * p.strides[{{ axis // 4 }}][{{ axis % 4 }}];
    rest /= p.extents[{{ axis // 4 }}][{{ axis % 4 }}];
    {% endfor %}
    y[index] = x[source];
}

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
