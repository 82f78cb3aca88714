// Kernels of src/layers/concat.rs: copies between all channels of narrow tensors and some of a wide one.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% if entry == "concat_forward" %}

struct Parameters {
    rows: u32,
    all: u32,                   // channels of y
    ends: array<vec4<u32>, 2>,  // the channel of y after each operand's last
}

{{ parameters("p", "Parameters") }}
{% for i in range(operands) %}
{{ buffer(i + 1, "x_" ~ i, "f32") }}
{% endfor %}
{{ buffer(operands + 1, "y", "f32") }}

// One invocation an element of y.
{{ entry_point("concat_forward") }}
    let index = invocation_index(workgroup, grid, local);
    let row = index / p.all;
    let c = index % p.all;
    if row >= p.rows {
        return;
    }
    let start_0 = 0u;
    {% for i in range(operands) %}
    let start_{{ i + 1 }} = p.ends[{{ i // 4 }}].{{ "xyzw"[i % 4] }};
    if c >= start_{{ i }} && c < start_{{ i + 1 }} {
        store_y(index, load_x_{{ i }}(row * (start_{{ i + 1 }} - start_{{ i }}) + c - start_{{ i }}));
    }
    {% endfor %}
}
{% else %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

// In vectors of `width` channels.
struct Parameters {
    rows: u32,
    // Of the narrow tensor.
    channels: u32,
    // Of the wide tensor.
    all: u32,
    // The wide tensor's channel that is the narrow one's first.
    start: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "narrow", values(element[1])) }}
{{ buffer(2, "wide", values(element[2])) }}

// One invocation a vector of a tensor with `channels` of them in a row.
{% macro kernel(entry, channels, body) %}
{{ entry_point(entry) }}
    let index = invocation_index(workgroup, grid, local);
    let row = index / {{ channels }};
    let c = index % {{ channels }};
    if row < p.rows {
        {{ body }}
    }
}
{% endmacro %}
{{ kernel("concat_slice", "p.channels", "store_narrow(index, load_wide(row * p.all + p.start + c));") }}
{% set inside = "c >= p.start && c < p.start + p.channels" %}
{% set copy = "if " ~ inside ~ " { d = load_narrow(row * p.channels + c - p.start); }" %}
{{ kernel("concat_backward_slice", "p.all", "var d = Value(0.0); " ~ copy ~ " store_wide(index, d);") }}
{% endif %}
