// Kernels of src/layers/instance_norm.rs. x is [N, S, C]. An invocation owns one channel, or four (width = 4), of a run of
// consecutive rows of one frame, so that neighbours touch neighbouring channels. The merges own one channel. Where `slices` is
// more than one, so many invocations of a workgroup share what one owns: each adds every `slices`th term.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% set gated = post and residual %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};
{# Two numbers a channel, of which those of four channels are two words. #}
{% set pairs_type = "vec4<f32>" if width == 4 else "vec2<f32>" %}

// As in src/layers/instance_norm.rs.
const EPS: f32 = 1e-5;

struct Parameters {
    frames: u32,      // N of this window
    rows: u32,        // S
    channels: u32,    // C / width
    run: u32,         // rows of a run
    runs: u32,        // runs of a frame
    first_frame: u32, // of this window
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", values(element[1])) }}
// [N, runs, C, 2] for the sums of runs, [N, C, 2] for the means made of them.
{{ buffer(1, "run_sums", pairs_type) }}
{{ buffer(2, "sums", pairs_type) }}
{{ buffer(2, "y", values(element[2])) }}
// [N, C, 2] of all frames: mean, rstd.
{{ buffer(3, "stats", pairs_type) }}
{{ buffer(4, "residual", values(element[4])) }}
{{ buffer(4, "d_y", values(element[4])) }}
{% if gated %}
{{ buffer(5, "saved_y", values(element[5])) }}
{{ buffer(6, "d_x", values(element[6])) }}
{{ buffer(7, "d_residual", values(element[7])) }}
{% else %}
{{ buffer(5, "d_x", values(element[5])) }}
{% endif %}

struct Run {
    frame: u32,
    channel: u32,
    first: u32, // element
    rows: u32,
}

fn run_of(i: u32) -> Run {
    let channel = i % p.channels;
    let run = (i / p.channels) % p.runs;
    let frame = i / p.channels / p.runs;
    let row = run * p.run;
    return Run(frame, channel, (frame * p.rows + row) * p.channels + channel, min(p.run, p.rows - row));
}

struct Two {
    x: Value,
    y: Value,
}

{# The pairs of the channels that an invocation owns. #}
{% macro pairs(array, at) %}
{% if width == 4 %}
two(load_{{ array }}(2u * ({{ at }})), load_{{ array }}(2u * ({{ at }}) + 1u))
{%- else %}
Two(load_{{ array }}({{ at }}).x, load_{{ array }}({{ at }}).y)
{%- endif %}
{% endmacro %}
{% macro store_pairs(array, at, x, y) %}
{% if width == 4 %}
    store_{{ array }}(2u * ({{ at }}), vec4({{ x }}.x, {{ y }}.x, {{ x }}.y, {{ y }}.y));
    store_{{ array }}(2u * ({{ at }}) + 1u, vec4({{ x }}.z, {{ y }}.z, {{ x }}.w, {{ y }}.w));
{% else %}
    store_{{ array }}({{ at }}, vec2({{ x }}, {{ y }}));
{% endif %}
{% endmacro %}
{% if width == 4 %}
fn two(first: vec4<f32>, second: vec4<f32>) -> Two {
    return Two(vec4(first.xz, second.xz), vec4(first.yw, second.yw));
}
{% endif %}

fn slope(x: Value) -> Value {
    return select(Value(LRELU_SLOPE), Value(1.0), x > Value(0.0));
}

fn stats_of(run: Run) -> Two {
    return {{ pairs("stats", "(p.first_frame + run.frame) * p.channels + run.channel") }};
}

var<workgroup> shared_sums: array<Two, {{ owners * slices }}>;

// What the invocations that share add up to; all of a workgroup call it.
fn sum_of_slices(sum: Two, local: u32) -> Two {
{% if slices == 1 %}
    return sum;
{% else %}
    workgroupBarrier();
    shared_sums[local] = sum;
    workgroupBarrier();
    var total = shared_sums[local % {{ owners }}u];
    for (var slice = 1u; slice < {{ slices }}u; slice += 1u) {
        total.x += shared_sums[local % {{ owners }}u + slice * {{ owners }}u].x;
        total.y += shared_sums[local % {{ owners }}u + slice * {{ owners }}u].y;
    }
    return total;
{% endif %}
}

{% macro shared_kernel(entry, count) %}
{{ entry_point(entry, owners * slices) }}
    // The last workgroup's invocations without a task of their own do another's, and store nothing.
    let task = workgroup_index(workgroup, grid) * {{ owners }}u + local % {{ owners }}u;
    let i = min(task, {{ count }} - 1u);
    let slice = local / {{ owners }}u;
    let stores = task < {{ count }} && slice == 0u;
{% endmacro %}

{% macro kernel(entry) %}
{{ entry_point(entry) }}
    let i = invocation_index(workgroup, grid, local);
{% endmacro %}
// Mean, less the frame's first value, and sum of squared deviations of each run. Sums are taken about the run's own
// first value, so that a mean far above the deviation costs no digits.
{{ shared_kernel("instance_norm_statistics", "p.frames * p.runs * p.channels") }}
    let run = run_of(i);
    let pivot = load_x(run.first);
    var own = Two(Value(0.0), Value(0.0));
    for (var k = slice; k < run.rows; k += {{ slices }}u) {
        let deviation = load_x(run.first + k * p.channels) - pivot;
        own.x += deviation;
        own.y += deviation * deviation;
    }
    let sums_of_run = sum_of_slices(own, local);
    let mean = sums_of_run.x / f32(run.rows);
    let frame_pivot = load_x(run.frame * p.rows * p.channels + run.channel);
    let from_pivot = (pivot - frame_pivot) + mean;
    let deviations = max(sums_of_run.y - sums_of_run.x * mean, Value(0.0));
    if stores {
{{ store_pairs("sums", "i", "from_pivot", "deviations") }}
    }
}

{% if width == 1 %}
// Mean and rstd of each frame and channel from those of its runs (Chan, Golub and LeVeque 1979).
{{ shared_kernel("instance_norm_merge", "p.frames * p.channels") }}
    let channel = i % p.channels;
    let frame = i / p.channels;
    let first = frame * p.runs * p.channels + channel;
    var total = 0.0;
    for (var run = slice; run < p.runs; run += {{ slices }}u) {
        total += f32(min(p.run, p.rows - run * p.run)) * load_sums(first + run * p.channels).x;
    }
    let mean = sum_of_slices(Two(total, 0.0), local).x / f32(p.rows);
    var squares = 0.0;
    for (var run = slice; run < p.runs; run += {{ slices }}u) {
        let part = load_sums(first + run * p.channels);
        let deviation = part.x - mean;
        squares += part.y + f32(min(p.run, p.rows - run * p.run)) * deviation * deviation;
    }
    squares = sum_of_slices(Two(squares, 0.0), local).x;
    let pivot = load_x(frame * p.rows * p.channels + channel);
    if stores {
        store_stats(p.first_frame * p.channels + i, vec2(pivot + mean, 1.0 / sqrt(squares / f32(p.rows) + EPS)));
    }
}
{% endif %}

{{ kernel("instance_norm_forward") }}
    if i >= p.frames * p.runs * p.channels {
        return;
    }
    let run = run_of(i);
    let stat = stats_of(run);
    var e = run.first;
    for (var k = 0u; k < run.rows; k += 1u) {
        var value = (load_x(e) - stat.x) * stat.y;
{% if pre %}
        value *= slope(value);
{% endif %}
{% if residual %}
        value += load_residual(e);
{% endif %}
{% if post %}
        value *= slope(value);
{% endif %}
        store_y(e, value);
        e += p.channels;
    }
}

// The gradient of the normalised value from that of the sum of branch and residual.
fn d_normalised(d_sum: Value, normalised: Value) -> Value {
    var d = d_sum;
{% if pre %}
    d *= slope(normalised);
{% endif %}
{% if post and not residual %}
    d *= slope(normalised);
{% endif %}
    return d;
}

fn d_sum_of(e: u32) -> Value {
{% if gated %}
    return load_d_y(e) * slope(load_saved_y(e));
{% else %}
    return load_d_y(e);
{% endif %}
}

// Sums of d and d * normalised over each run.
{{ shared_kernel("instance_norm_backward_sums", "p.frames * p.runs * p.channels") }}
    let run = run_of(i);
    let stat = stats_of(run);
    var own = Two(Value(0.0), Value(0.0));
    for (var k = slice; k < run.rows; k += {{ slices }}u) {
        let e = run.first + k * p.channels;
        let normalised = (load_x(e) - stat.x) * stat.y;
        let d = d_normalised(d_sum_of(e), normalised);
        own.x += d;
        own.y += d * normalised;
    }
    let sums_of_run = sum_of_slices(own, local);
    if stores {
{{ store_pairs("sums", "i", "sums_of_run.x", "sums_of_run.y") }}
    }
}

{% if width == 1 %}
// Means over each frame and channel of what the runs have summed.
{{ shared_kernel("instance_norm_backward_merge", "p.frames * p.channels") }}
    let first = (i / p.channels) * p.runs * p.channels + i % p.channels;
    var own = Two(0.0, 0.0);
    for (var run = slice; run < p.runs; run += {{ slices }}u) {
        own.x += load_run_sums(first + run * p.channels).x;
        own.y += load_run_sums(first + run * p.channels).y;
    }
    let sum = sum_of_slices(own, local);
    if stores {
        store_sums(i, vec2(sum.x, sum.y) / f32(p.rows));
    }
}
{% endif %}

{{ kernel("instance_norm_backward") }}
    if i >= p.frames * p.runs * p.channels {
        return;
    }
    let run = run_of(i);
    let stat = stats_of(run);
    let mean = {{ pairs("sums", "run.frame * p.channels + run.channel") }};
    var e = run.first;
    for (var k = 0u; k < run.rows; k += 1u) {
        let normalised = (load_x(e) - stat.x) * stat.y;
        let d_sum = d_sum_of(e);
        store_d_x(e, stat.y * (d_normalised(d_sum, normalised) - mean.x - normalised * mean.y));
{% if gated %}
        store_d_residual(e, d_sum);
{% endif %}
        e += p.channels;
    }
}
