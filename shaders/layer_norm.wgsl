// Kernels of src/layers/layer_norm.rs. x is [R, C]; `slices` invocations share a row, or (in the sums over rows) a run of
// rows, and handle one channel, or four (width = 4), at a time.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/slices.wgsl" import shared %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};
alias Pair = {{ "mat2x4<f32>" if width == 4 else "vec2<f32>" }};

struct Parameters {
    rows: u32,     // of this window
    channels: u32, // C / width
    run: u32,      // rows of a run
    eps: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", values(element[1])) }}
// [R, 2]: mean, rstd.
{{ buffer(2, "stats", "vec2<f32>") }}
{{ buffer(3, "y", values(element[3])) }}
{{ buffer(3, "d_y", values(element[3])) }}
{{ buffer(4, "weight", values("f32")) }}
// [runs, 2, C]: sums of d_y, and of d_y * normalised.
{{ buffer(4, "run_sums", values("f32")) }}
{{ buffer(5, "bias", values("f32")) }}
{{ buffer(5, "d_x", values(element[5])) }}

fn total(value: Value) -> f32 {
    return {{ "(value.x + value.y) + (value.z + value.w)" if width == 4 else "value" }};
}

{% if entry == "layer_norm_backward_sums" %}
{% set owners = 64 // slices %}
{{ shared("run_sum", "Pair", "a + b", slices, owners) }}
{{ entry_point("layer_norm_backward_sums") }}
    // The last workgroup's invocations without a task of their own do another's, and store nothing.
    let count = (p.rows + p.run - 1u) / p.run * p.channels;
    let task = workgroup_index(workgroup, grid) * {{ owners }}u + local % {{ owners }}u;
    let i = min(task, count - 1u);
    let slice = local / {{ owners }}u;
    let channel = i % p.channels;
    let first = i / p.channels * p.run;
    var own = Pair();
    for (var row = first + slice; row < min(first + p.run, p.rows); row += {{ slices }}u) {
        let e = row * p.channels + channel;
        let stat = load_stats(row);
        let d = load_d_y(e);
        own += Pair(d, d * (load_x(e) - stat.x) * stat.y);
    }
    let sums = run_sum(own, local);
    if task < count && slice == 0u {
        let at = i / p.channels * 2u * p.channels + channel;
        store_run_sums(at, sums[0]);
        store_run_sums(at + p.channels, sums[1]);
    }
}
{% else %}
{% macro kernel(entry) %}
{{ entry_point(entry) }}
    // The last workgroup's invocations without a row of their own do another's, and store nothing.
    let task = workgroup_index(workgroup, grid) * {{ 64 // slices }}u + local / {{ slices }}u;
    let row = min(task, p.rows - 1u);
    let slice = local % {{ slices }}u;
    let first = row * p.channels;
    let channels = f32({{ width }}u * p.channels);
{% endmacro %}
{{ shared("row_sum", "vec2<f32>", "a + b", slices, 1) }}
{{ kernel("layer_norm_forward") }}
    // Sums are taken about the row's first value, so that a mean far above the deviation costs no digits.
    let pivot = load_x(first){{ ".x" if width == 4 }};
    var own_sum = 0.0;
    for (var c = slice; c < p.channels; c += {{ slices }}u) {
        own_sum += total(load_x(first + c) - pivot);
    }
    let from_pivot = row_sum(vec2(own_sum, 0.0), local).x / channels;
    var own_squares = 0.0;
    for (var c = slice; c < p.channels; c += {{ slices }}u) {
        let deviation = load_x(first + c) - pivot - from_pivot;
        own_squares += total(deviation * deviation);
    }
    let rstd = 1.0 / sqrt(row_sum(vec2(own_squares, 0.0), local).x / channels + p.eps);
    if task < p.rows {
        for (var c = slice; c < p.channels; c += {{ slices }}u) {
            let normalised = (load_x(first + c) - pivot - from_pivot) * rstd;
            store_y(first + c, fma(normalised, load_weight(c), load_bias(c)));
        }
        if slice == 0u {
            store_stats(row, vec2(pivot + from_pivot, rstd));
        }
    }
}

{{ kernel("layer_norm_backward") }}
    let stat = load_stats(row);
    var own = vec2(0.0);
    for (var c = slice; c < p.channels; c += {{ slices }}u) {
        let d = load_d_y(first + c) * load_weight(c);
        own += vec2(total(d), total(d * (load_x(first + c) - stat.x) * stat.y));
    }
    let mean = row_sum(own, local) / channels;
    if task < p.rows {
        for (var c = slice; c < p.channels; c += {{ slices }}u) {
            let normalised = (load_x(first + c) - stat.x) * stat.y;
            let d = load_d_y(first + c) * load_weight(c);
            store_d_x(first + c, stat.y * (d - mean.x - normalised * mean.y));
        }
    }
}
{% endif %}
