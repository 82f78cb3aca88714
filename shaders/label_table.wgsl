// Kernels of src/layers/label_table.rs for `classes` classes; neighbouring invocations have neighbouring channels o, one
// each or (width = 4) four.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    cells: u32,
    channels: u32, // O / width
    // label_table_backward only.
    chunks: u32,
    cells_per_chunk: u32,
}

{{ parameters("p", "Parameters") }}
// A label that is no class contributes nothing.
{{ buffer(1, "labels", "u32") }}
{{ buffer(1, "label_fours", "vec4<u32>") }}
{{ buffer(2, "y", values(element[2])) }}
{{ buffer(2, "d_y", values(element[2])) }}
{{ buffer(3, "table", values("f32")) }}
{{ buffer(3, "chunk_sums", values("f32")) }}
{{ buffer(4, "bias", values("f32")) }}

// y[cell, o]: one invocation an element.
{{ entry_point("label_table_forward") }}
    let index = invocation_index(workgroup, grid, local);
    let cell = index / p.channels;
    let o = index % p.channels;
    if cell >= p.cells {
        return;
    }
    var sum = load_bias(o);
    let labels_0 = load_label_fours(cell * 2u);
    let labels_1 = load_label_fours(cell * 2u + 1u);
    {% for s in range(8) %}
    {
        let label = labels_{{ s // 4 }}.{{ "xyzw"[s % 4] }};
        let is_class = label < {{ classes }}u;
        let entry = load_table((select(0u, label, is_class) * 8u + {{ s }}u) * p.channels + o);
        sum += select(Value(0.0), entry, is_class);
    }
    {% endfor %}
    store_y(index, sum);
}

// One invocation per (chunk, s, o): its sums for all classes are in registers. A chunk's sums are [K, 8, O], then the
// bias's [O], which the invocations of s = 0 write.
{{ entry_point("label_table_backward") }}
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
        let label = load_labels(cell * 8u + s);
        let d = load_d_y(cell * p.channels + o);
        total += d;
        {% for k in range(classes) %}
        sum{{ k }} += select(Value(0.0), d, label == {{ k }}u);
        {% endfor %}
    }
    let base = chunk * ({{ classes }}u * 8u + 1u) * p.channels;
    {% for k in range(classes) %}
    store_chunk_sums(base + ({{ k }}u * 8u + s) * p.channels + o, sum{{ k }});
    {% endfor %}
    if s == 0u {
        store_chunk_sums(base + {{ classes }}u * 8u * p.channels + o, total);
    }
}
