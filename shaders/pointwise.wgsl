// Element by element kernels of src/layers/pointwise.rs; 64 invocations a workgroup, one element each.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}

struct Parameters {
    count: u32,
    scale: f32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
// Kernels with one operand write to binding 2, those with two to binding 3.
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

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
{{ kernel("lrelu_forward", "b", "lrelu(a[i])") }}
{{ kernel("lrelu_backward", "y", "a[i] * lrelu_slope(b[i])") }}
{{ kernel("sigmoid_forward", "b", "p.scale / (1.0 + exp(-a[i]))") }}
{{ kernel("sigmoid_backward", "y", "a[i] * b[i] * (1.0 - b[i] / p.scale)") }}
{{ kernel("scale", "b", "p.scale * a[i]") }}
{{ kernel("weighted_sum", "b", "select(0.0, b[i], p.accumulate != 0u) + p.scale * a[i]") }}
