// Kernels of src/layers/axis_mean.rs. x is [B, A1, A2, D] seen as [outer, extent, inner], y is [outer, inner].
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

struct Parameters {
    outer: u32,
    extent: u32,
    inner: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", "f32") }}
{{ buffer(2, "y", "f32") }}
{{ buffer(1, "d_y", "f32") }}
{{ buffer(2, "d_x", "f32") }}

// One invocation an element of y.
{{ entry_point("axis_mean_forward") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.outer * p.inner {
        return;
    }
    let first = (i / p.inner) * p.extent * p.inner + i % p.inner;
    var sum = 0.0;
    for (var k = 0u; k < p.extent; k += 1u) {
        sum += load_x(first + k * p.inner);
    }
    store_y(i, sum / f32(p.extent));
}

// One invocation an element of d_x.
{{ entry_point("axis_mean_backward") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.outer * p.extent * p.inner {
        return;
    }
    store_d_x(i, load_d_y(i / (p.extent * p.inner) * p.inner + i % p.inner) / f32(p.extent));
}
