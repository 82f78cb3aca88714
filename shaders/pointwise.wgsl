// Element by element kernels of src/layers/pointwise.rs; 64 invocations a workgroup, one or (width = 4) four elements each.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}
alias Value = {{ "vec4<f32>" if width == 4 else "f32" }};

struct Parameters {
    count: u32,
    constant: f32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> a: array<Value>;
@group(0) @binding(2) var<storage, read_write> b: array<Value>;
// Kernels with one operand write to binding 2, those with two to binding 3.
@group(0) @binding(3) var<storage, read_write> y: array<Value>;

{% macro kernel(entry, target, value) %}
@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        {{ target }}[i] = {{ value }};
    }
}
{% endmacro %}
{{ kernel("add", "y", "a[i] + b[i]") }}
{{ kernel("lrelu_forward", "b", "a[i] * select(Value(LRELU_SLOPE), Value(1.0), a[i] > Value(0.0))") }}
{{ kernel("lrelu_backward", "y", "a[i] * select(Value(LRELU_SLOPE), Value(1.0), b[i] > Value(0.0))") }}
{{ kernel("sigmoid_forward", "b", "p.constant / (1.0 + exp(-a[i]))") }}
{{ kernel("sigmoid_backward", "y", "a[i] * b[i] * (1.0 - b[i] / p.constant)") }}
{{ kernel("scale", "b", "p.constant * a[i]") }}
{% if width == 1 %}
{{ kernel("weighted_sum", "b", "select(0.0, b[i], p.accumulate != 0u) + p.constant * a[i]") }}
{% endif %}
