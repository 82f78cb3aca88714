// The second stage of reductions (src/layers/common.rs); one invocation a column.
{% include "common/index.wgsl" %}

struct Parameters {
    count: u32,
    chunks: u32,
    stride: u32,
    first: u32,
    // Where the first sum goes in y.
    at: u32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> chunk_sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ element[2] }}>;

@compute @workgroup_size(64)
fn reduce_chunks(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i >= p.count {
        return;
    }
    var sum = 0.0;
    if p.accumulate != 0u {
        sum = f32(y[p.at + i]);
    }
    for (var chunk = 0u; chunk < p.chunks; chunk += 1u) {
        sum += chunk_sums[chunk * p.stride + p.first + i];
    }
    y[p.at + i] = {{ element[2] }}(sum);
}
