// Kernels of src/layers/gather.rs; neighbouring invocations have neighbouring channels, one each or (width = 4) four.
{% include "common/index.wgsl" %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    rows: u32,     // of this launch
    channels: u32, // C / width
    entries: u32,  // K
    // gather_backward only.
    first: u32,
    chunks: u32,
    rows_per_chunk: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
// One that is no entry's stands for zeros.
@group(0) @binding(1) var<storage, read_write> numbers: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ values(element[2]) }}>;
@group(0) @binding(2) var<storage, read_write> d_y: array<{{ values(element[2]) }}>;
@group(0) @binding(3) var<storage, read_write> table: array<Value>;
@group(0) @binding(3) var<storage, read_write> chunk_sums: array<Value>;

// y[row, c]: one invocation an element.
@compute @workgroup_size(64)
fn gather_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    let row = i / p.channels;
    if row >= p.rows {
        return;
    }
    let number = numbers[row];
    let is_entry = number < p.entries;
    let value = table[select(0u, number, is_entry) * p.channels + i % p.channels];
    y[i] = {{ values(element[2]) }}(select(Value(0.0), value, is_entry));
}

// One invocation per (chunk, c) adds the chunk's rows to the chunk's own table [K, C], which no other touches.
@compute @workgroup_size(64)
fn gather_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    let c = i % p.channels;
    let chunk = i / p.channels;
    if chunk >= p.chunks {
        return;
    }
    let end = min(p.rows, (chunk + 1u) * p.rows_per_chunk);
    for (var k = chunk * p.rows_per_chunk; k < end; k += 1u) {
        let row = p.first + k;
        let number = numbers[row];
        if number < p.entries {
            chunk_sums[(chunk * p.entries + number) * p.channels + c] += Value(d_y[row * p.channels + c]);
        }
    }
}
