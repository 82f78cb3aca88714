// Kernels of src/layers/label_table.rs for `classes` classes; neighbouring invocations have neighbouring channels o.
{% include "common/index.wgsl" %}

struct Parameters {
    cells: u32,
    channels: u32,
    // label_table_backward only.
    chunks: u32,
    cells_per_chunk: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
// A label that is no class contributes nothing.
@group(0) @binding(1) var<storage, read_write> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ element[2] }}>;
@group(0) @binding(2) var<storage, read_write> d_y: array<{{ element[2] }}>;
@group(0) @binding(3) var<storage, read_write> table: array<f32>;
@group(0) @binding(3) var<storage, read_write> chunk_sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> bias: array<f32>;

// y[cell, o]: one invocation an element.
@compute @workgroup_size(64)
fn label_table_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let cell = index / p.channels;
    let o = index % p.channels;
    if cell >= p.cells {
        return;
    }
    var sum = bias[o];
    {% for s in range(8) %}
    let label{{ s }} = labels[cell * 8u + {{ s }}u];
    if label{{ s }} < {{ classes }}u {
        sum += table[(label{{ s }} * 8u + {{ s }}u) * p.channels + o];
    }
    {% endfor %}
    y[index] = {{ element[2] }}(sum);
}

// One invocation per (chunk, s, o): its sums for all classes are in registers. A chunk's sums are [K, 8, O], then the
// bias's [O], which the invocations of s = 0 write.
@compute @workgroup_size(64)
fn label_table_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let o = index % p.channels;
    let s = index / p.channels % 8u;
    let chunk = index / (p.channels * 8u);
    if chunk >= p.chunks {
        return;
    }
    {% for k in range(classes) %}
    var sum{{ k }} = 0.0;
    {% endfor %}
    var total = 0.0;
    let end = min(p.cells, (chunk + 1u) * p.cells_per_chunk);
    for (var cell = chunk * p.cells_per_chunk; cell < end; cell += 1u) {
        let label = labels[cell * 8u + s];
        let d = f32(d_y[cell * p.channels + o]);
        total += d;
        {% for k in range(classes) %}
        sum{{ k }} += select(0.0, d, label == {{ k }}u);
        {% endfor %}
    }
    let base = chunk * ({{ classes }}u * 8u + 1u) * p.channels;
    {% for k in range(classes) %}
    chunk_sums[base + ({{ k }}u * 8u + s) * p.channels + o] = sum{{ k }};
    {% endfor %}
    if s == 0u {
        chunk_sums[base + {{ classes }}u * 8u * p.channels + o] = total;
    }
}
