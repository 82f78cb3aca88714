// Kernels of src/layers/concat.rs: copies between all channels of narrow tensors and some of a wide one.
{% include "common/index.wgsl" %}
{% if entry == "concat_forward" %}

struct Parameters {
    rows: u32,
    all: u32,                   // channels of y
    ends: array<vec4<u32>, 2>,  // the channel of y after each operand's last
}

@group(0) @binding(0) var<uniform> p: Parameters;
{% for i in range(operands) %}
@group(0) @binding({{ i + 1 }}) var<storage, read_write> x_{{ i }}: array<f32>;
{% endfor %}
@group(0) @binding({{ operands + 1 }}) var<storage, read_write> y: array<f32>;

// One invocation an element of y.
@compute @workgroup_size(64)
fn concat_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
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
        y[index] = x_{{ i }}[row * (start_{{ i + 1 }} - start_{{ i }}) + c - start_{{ i }}];
    }
    {% endfor %}
}
{% else %}
{% from "common/values.wgsl" import values %}
alias Narrow = {{ values(element[1]) }};
alias Wide = {{ values(element[2]) }};

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

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> narrow: array<Narrow>;
@group(0) @binding(2) var<storage, read_write> wide: array<Wide>;

// One invocation a vector of a tensor with `channels` of them in a row.
{% macro kernel(entry, channels, body) %}
@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let row = index / {{ channels }};
    let c = index % {{ channels }};
    if row < p.rows {
        {{ body }}
    }
}
{% endmacro %}
{{ kernel("concat_slice", "p.channels", "narrow[index] = Narrow(wide[row * p.all + p.start + c]);") }}
{% set inside = "c >= p.start && c < p.start + p.channels" %}
{% set copy = "if " ~ inside ~ " { d = Wide(narrow[row * p.channels + c - p.start]); }" %}
{{ kernel("concat_backward_slice", "p.all", "var d = Wide(0.0); " ~ copy ~ " wide[index] = d;") }}
{% endif %}
