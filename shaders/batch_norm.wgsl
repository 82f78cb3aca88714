// Kernels of src/layers/batch_norm.rs; one invocation a channel.
{% include "common/finite.wgsl" %}
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

struct Parameters {
    channels: u32,
    // Of the unbiased variance, or of the running average.
    factor: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "running", "f32") }}
{{ buffer(1, "mean", "f32") }}
{{ buffer(2, "variance", "f32") }}
{{ buffer(2, "batch", "f32") }}
// [C, 2]: mean, variance.
{{ buffer(3, "stats", "vec2<f32>") }}
{{ buffer(3, "average", "f32") }}

{% macro kernel(entry, body) %}
{{ entry_point(entry) }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.channels {
        {{ body }}
    }
}
{% endmacro %}
{{ kernel("batch_norm_gather", "store_stats(i, vec2(load_mean(i), load_variance(i)));") }}
{{ kernel("batch_norm_statistics", "let stat = load_stats(i); store_mean(i, stat[0]); store_variance(i, p.factor * stat[1]);") }}
// average may be running.
{{ kernel("batch_norm_average", "store_average(i, select(load_running(i), mix(load_running(i), load_batch(i), p.factor), is_finite(load_batch(i))));") }}
