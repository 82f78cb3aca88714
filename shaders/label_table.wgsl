// Kernels of src/layers/label_table.rs for `classes` classes; neighbouring invocations have neighbouring channels o, one
// each or (width = 4) four.
{% include "common/index.wgsl" %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    cells: u32,
    channels: u32, // O / width
    // label_table_backward only.
    chunks: u32,
    cells_per_chunk: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
// A label that is no class contributes nothing.
@group(0) @binding(1) var<storage, read_write> labels: array<u32>;
@group(0) @binding(1) var<storage, read_write> label_fours: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ values(element[2]) }}>;
@group(0) @binding(2) var<storage, read_write> d_y: array<{{ values(element[2]) }}>;
@group(0) @binding(3) var<storage, read_write> table: array<Value>;
@group(0) @binding(3) var<storage, read_write> chunk_sums: array<Value>;
@group(0) @binding(4) var<storage, read_write> bias: array<Value>;

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
    let labels_0 = label_fours[cell * 2u];
    let labels_1 = label_fours[cell * 2u + 1u];
    {% for s in range(8) %}
    {
        let label = labels_{{ s // 4 }}.{{ "xyzw"[s % 4] }};
        let is_class = label < {{ classes }}u;
        let entry = table[(select(0u, label, is_class) * 8u + {{ s }}u) * p.channels + o];
        sum += select(Value(0.0), entry, is_class);
    }
    {% endfor %}
    y[index] = {{ values(element[2]) }}(sum);
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
    var sum{{ k }} = Value(0.0);
    {% endfor %}
    var total = Value(0.0);
    let end = min(p.cells, (chunk + 1u) * p.cells_per_chunk);
    for (var cell = chunk * p.cells_per_chunk; cell < end; cell += 1u) {
        let label = labels[cell * 8u + s];
        let d = Value(d_y[cell * p.channels + o]);
        total += d;
        {% for k in range(classes) %}
        sum{{ k }} += select(Value(0.0), d, label == {{ k }}u);
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
