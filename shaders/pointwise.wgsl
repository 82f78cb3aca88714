// Element by element kernels of src/layers/pointwise.rs; 64 invocations a workgroup, one or (width = 4) four elements each.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}
{% macro values(element) %}{{ "vec4<" ~ element ~ ">" if width == 4 else element }}{% endmacro %}
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
