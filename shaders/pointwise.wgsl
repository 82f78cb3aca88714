// Element by element kernels of src/layers/pointwise.rs; 64 invocations a workgroup, one or (width = 4) four elements each.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    count: u32,
    constant: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> first: array<{{ values(element[1]) }}>;
@group(0) @binding(2) var<storage, read_write> second: array<{{ values(element[2]) }}>;
// Kernels with one operand write to binding 2, those with two to binding 3.
@group(0) @binding(3) var<storage, read_write> third: array<{{ values(element[3]) }}>;

// Abramowitz and Stegun 7.1.26: within 1.5e-7 of erf.
fn erf(v: Value) -> Value {
    let t = 1.0 / (1.0 + 0.3275911 * abs(v));
    let series = 0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)));
    return sign(v) * (1.0 - t * series * exp(-v * v));
}

fn normal_cdf(v: Value) -> Value {
    return 0.5 + 0.5 * erf(0.7071067811865476 * v);
}

fn gelu_slope(v: Value) -> Value {
    return normal_cdf(v) + v * 0.3989422804014327 * exp(-0.5 * v * v);
}

fn silu_slope(v: Value) -> Value {
    let s = 1.0 / (1.0 + exp(-v));
    return s * (1.0 + v * (1.0 - s));
}

{% macro kernel(entry, operands, value) %}
@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        let a = Value(first[i]);
{% if operands == 2 %}
        let b = Value(second[i]);
        third[i] = {{ values(element[3]) }}({{ value }});
{% else %}
        second[i] = {{ values(element[2]) }}({{ value }});
{% endif %}
    }
}
{% endmacro %}
{{ kernel("add", 2, "a + b") }}
{{ kernel("lrelu_forward", 1, "a * select(Value(LRELU_SLOPE), Value(1.0), a > Value(0.0))") }}
{{ kernel("lrelu_backward", 2, "a * select(Value(LRELU_SLOPE), Value(1.0), b > Value(0.0))") }}
{{ kernel("relu_forward", 1, "select(a, Value(0.0), a <= Value(0.0))") }}
{{ kernel("relu_backward", 2, "select(Value(0.0), a, b > Value(0.0))") }}
{{ kernel("silu_forward", 1, "a / (1.0 + exp(-a))") }}
{{ kernel("silu_backward", 2, "a * silu_slope(b)") }}
{{ kernel("gelu_forward", 1, "a * normal_cdf(a)") }}
{{ kernel("gelu_backward", 2, "a * gelu_slope(b)") }}
{# Beyond 10 it is 1 in f32, and some drivers divide exponentials. #}
{{ kernel("tanh_forward", 1, "tanh(clamp(a, Value(-10.0), Value(10.0)))") }}
{{ kernel("tanh_backward", 2, "a * (1.0 - b * b)") }}
{{ kernel("sigmoid_forward", 1, "p.constant / (1.0 + exp(-a))") }}
{{ kernel("sigmoid_backward", 2, "a * b * (1.0 - b / p.constant)") }}
{{ kernel("scale", 1, "p.constant * a") }}
{% if entry == "weighted_sum" %}

struct Weights {
    weights: array<vec4<f32>, 2>,
}

@group(0) @binding(0) var<uniform> w: Weights;
{% for i in range(terms) %}
@group(0) @binding({{ i + 1 }}) var<storage, read_write> term_{{ i }}: array<f32>;
{% endfor %}
@group(0) @binding({{ terms + 1 }}) var<storage, read_write> sum: array<f32>;

@compute @workgroup_size(1)
fn weighted_sum() {
    var total = 0.0;
{% for i in range(terms) %}
    total += w.weights[{{ i // 4 }}].{{ "xyzw"[i % 4] }} * term_{{ i }}[0];
{% endfor %}
    sum[0] = total;
}
{% endif %}
