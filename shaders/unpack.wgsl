// Kernel of src/layers/unpack.rs; one invocation a word.
{% include "common/index.wgsl" %}

struct Parameters {
    count: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
@group(0) @binding(2) var<storage, read_write> bytes: array<vec4<u32>>;

@compute @workgroup_size(64)
fn unpack_bytes(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    if index < p.count {
        bytes[index] = (vec4(words[index]) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u);
    }
}
