// Kernels of src/layers/gather.rs; neighbouring invocations have neighbouring channels, one each or (width = 4) four.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
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

{{ parameters("p", "Parameters") }}
// One that is no entry's stands for zeros.
{{ buffer(1, "numbers", "u32") }}
{{ buffer(2, "y", values(element[2])) }}
{{ buffer(2, "d_y", values(element[2])) }}
{{ buffer(3, "table", values("f32")) }}
{{ buffer(3, "chunk_sums", values("f32")) }}

// y[row, c]: one invocation an element.
{{ entry_point("gather_forward") }}
    let i = invocation_index(workgroup, grid, local);
    let row = i / p.channels;
    if row >= p.rows {
        return;
    }
    let number = load_numbers(row);
    let is_entry = number < p.entries;
    let value = load_table(select(0u, number, is_entry) * p.channels + i % p.channels);
    store_y(i, select(Value(0.0), value, is_entry));
}

// One invocation per (chunk, c) adds the chunk's rows to the chunk's own table [K, C], which no other touches.
{{ entry_point("gather_backward") }}
    let i = invocation_index(workgroup, grid, local);
    let c = i % p.channels;
    let chunk = i / p.channels;
    if chunk >= p.chunks {
        return;
    }
    let end = min(p.rows, (chunk + 1u) * p.rows_per_chunk);
    for (var k = chunk * p.rows_per_chunk; k < end; k += 1u) {
        let row = p.first + k;
        let number = load_numbers(row);
        if number < p.entries {
            let at = (chunk * p.entries + number) * p.channels + c;
            store_chunk_sums(at, load_chunk_sums(at) + load_d_y(row * p.channels + c));
        }
    }
}
