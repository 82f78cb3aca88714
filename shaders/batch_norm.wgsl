// Kernels of src/layers/batch_norm.rs; one invocation a channel.
{% include "common/finite.wgsl" %}
{% include "common/index.wgsl" %}

struct Parameters {
    channels: u32,
    // Of the unbiased variance, or of the running average.
    factor: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> running: array<f32>;
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;
@group(0) @binding(2) var<storage, read_write> variance: array<f32>;
@group(0) @binding(2) var<storage, read_write> batch: array<f32>;
// [C, 2]: mean, variance.
@group(0) @binding(3) var<storage, read_write> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> average: array<f32>;

{% macro kernel(entry, body) %}
@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.channels {
        {{ body }}
    }
}
{% endmacro %}
{{ kernel("batch_norm_gather", "stats[i] = vec2(mean[i], variance[i]);") }}
{{ kernel("batch_norm_statistics", "let stat = stats[i]; mean[i] = stat[0]; variance[i] = p.factor * stat[1];") }}
// average may be running.
{{ kernel("batch_norm_average", "average[i] = select(running[i], mix(running[i], batch[i], p.factor), is_finite(batch[i]));") }}
