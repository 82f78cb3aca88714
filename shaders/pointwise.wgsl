// Element by element kernels of src/layers/pointwise.rs; 64 invocations a workgroup, one or (width = 4) four elements each.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    count: u32,
    constant: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "first", values(element[1])) }}
{{ buffer(2, "second", values(element[2])) }}
// Kernels with one operand write to binding 2, those with two to binding 3.
{{ buffer(3, "third", values(element[3])) }}

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
{{ entry_point(entry) }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        let a = load_first(i);
{% if operands == 2 %}
        let b = load_second(i);
        store_third(i, {{ value }});
{% else %}
        store_second(i, {{ value }});
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

{{ parameters("w", "Weights") }}
{% for i in range(terms) %}
{{ buffer(i + 1, "term_" ~ i, "f32") }}
{% endfor %}
{{ buffer(terms + 1, "sum", "f32") }}

{{ entry_point("weighted_sum", 1, parameters="w") }}
    var total = 0.0;
{% for i in range(terms) %}
    total += w.weights[{{ i // 4 }}].{{ "xyzw"[i % 4] }} * load_term_{{ i }}(0);
{% endfor %}
    store_sum(0, total);
}
{% endif %}
