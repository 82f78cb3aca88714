// The second stage of reductions (src/layers/common.rs); one invocation a column.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

struct Parameters {
    count: u32,
    chunks: u32,
    stride: u32,
    first: u32,
    // Where the first sum goes in y.
    at: u32,
    accumulate: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "chunk_sums", "f32") }}
{{ buffer(2, "y", element[2]) }}

{{ entry_point("reduce_chunks") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.count {
        return;
    }
    var sum = 0.0;
    if p.accumulate != 0u {
        sum = load_y(p.at + i);
    }
    for (var chunk = 0u; chunk < p.chunks; chunk += 1u) {
        sum += load_chunk_sums(chunk * p.stride + p.first + i);
    }
    store_y(p.at + i, sum);
}
