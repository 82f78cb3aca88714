// Kernels of src/layers/softmax.rs; `slices` invocations a row, which take one element, or four (width = 4), at a time in turn.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/slices.wgsl" import shared %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    rows: u32,
    channels: u32, // N / width
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", values(element[1])) }}
{{ buffer(1, "saved_y", values(element[1])) }}
{{ buffer(2, "y", values(element[2])) }}
{{ buffer(2, "d_y", values(element[2])) }}
{{ buffer(3, "d_x", values(element[3])) }}

const LOWEST: f32 = -3.4028234e38;

{{ shared("row_maximum", "f32", "max(a, b)", slices, 1) }}
{{ shared("row_sum", "f32", "a + b", slices, 1) }}
fn largest(value: Value) -> f32 {
    return {{ "max(max(value.x, value.y), max(value.z, value.w))" if width == 4 else "value" }};
}

fn total(value: Value) -> f32 {
    return {{ "(value.x + value.y) + (value.z + value.w)" if width == 4 else "value" }};
}

{% macro kernel(entry) %}
{{ entry_point(entry) }}
    // The last workgroup's invocations without a row of their own do another's, and store nothing.
    let task = workgroup_index(workgroup, grid) * {{ 64 // slices }}u + local / {{ slices }}u;
    let end = (min(task, p.rows - 1u) + 1u) * p.channels;
    let first = end - p.channels + local % {{ slices }}u;
{% endmacro %}
{{ kernel("softmax_forward") }}
    var own_largest = LOWEST;
    for (var e = first; e < end; e += {{ slices }}u) {
        own_largest = max(own_largest, largest(load_x(e)));
    }
    let maximum = row_maximum(own_largest, local);
    var own_sum = 0.0;
    for (var e = first; e < end; e += {{ slices }}u) {
        own_sum += total(exp(load_x(e) - maximum));
    }
    let factor = 1.0 / row_sum(own_sum, local);
    if task < p.rows {
        for (var e = first; e < end; e += {{ slices }}u) {
            store_y(e, exp(load_x(e) - maximum) * factor);
        }
    }
}

{{ kernel("softmax_backward") }}
    var own_sum = 0.0;
    for (var e = first; e < end; e += {{ slices }}u) {
        own_sum += total(load_saved_y(e) * load_d_y(e));
    }
    let mean = row_sum(own_sum, local);
    if task < p.rows {
        for (var e = first; e < end; e += {{ slices }}u) {
            store_d_x(e, load_saved_y(e) * (load_d_y(e) - mean));
        }
    }
}
