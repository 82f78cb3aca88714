// Kernels of src/layers/group_norm.rs, which src/layers/batch_norm.rs runs too. x is [N, S, C]. An invocation handles one
// channel, or four (width = 4), of a run of consecutive rows of one frame, so that neighbours touch neighbouring channels; in
// the sums, `slices` invocations share it, each taking every `slices`th term.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/slices.wgsl" import shared %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};
alias Pair = {{ "mat2x4<f32>" if width == 4 else "vec2<f32>" }};

struct Parameters {
    frames: u32,      // N of this window
    rows: u32,        // of a frame in this window
    channels: u32,    // C / width
    run: u32,         // rows of a run
    runs: u32,        // of a frame in this window
    first_frame: u32, // of this window
    first_run: u32,   // of this window
    all_runs: u32,    // of a frame
    groups: u32,
    eps: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", values(element[1])) }}
// Two sums a channel, [N, runs, 2, C] of runs and [N, 2, C] of frames: mean and squared deviations from it, or sums of d_y
// and of d_y * normalised.
{{ buffer(1, "run_sums", values("f32")) }}
{{ buffer(1, "frame_sums", values("f32")) }}
{{ buffer(2, "merged_sums", values("f32")) }}
{{ buffer(2, "sums", values("f32")) }}
{{ buffer(2, "y", values(element[2])) }}
{{ buffer(2, "d_y", values(element[2])) }}
// [N, groups, 2]: mean, variance.
{{ buffer(3, "stats", "vec2<f32>") }}
{{ buffer(4, "weight", values("f32")) }}
{{ buffer(5, "bias", values("f32")) }}
{{ buffer(4, "gradient_sums", values("f32")) }}
{{ buffer(5, "d_x", values(element[5])) }}
// [N, groups, 2]: means of d_y * weight and of d_y * weight * normalised.
{{ buffer(6, "means", "vec2<f32>") }}

struct Run {
    frame: u32, // of this window
    channel: u32,
    number: u32, // of the frame's runs in this window
    first: u32, // element
    rows: u32,
}

fn run_of(i: u32) -> Run {
    let number = (i / p.channels) % p.runs;
    let frame = i / p.channels / p.runs;
    let channel = i % p.channels;
    let row = number * p.run;
    return Run(frame, channel, number, (frame * p.rows + row) * p.channels + channel, min(p.run, p.rows - row));
}

// Where the first of a run's two sums lies; the other is p.channels further on.
fn sums_at(run: Run) -> u32 {
    return ((p.first_frame + run.frame) * p.all_runs + p.first_run + run.number) * 2u * p.channels + run.channel;
}

{# The pairs that `array` has of the groups of a run's channels. #}
{% macro of_groups(array) %}
{% if width == 4 %}
pair_of(load_{{ array }}(group_of(run, 0u)), load_{{ array }}(group_of(run, 1u)), load_{{ array }}(group_of(run, 2u)), load_{{ array }}(group_of(run, 3u)))
{%- else %}
load_{{ array }}(group_of(run, 0u))
{%- endif %}
{% endmacro %}
fn group_of(run: Run, k: u32) -> u32 {
    let size = {{ width }}u * p.channels / p.groups;
    return (p.first_frame + run.frame) * p.groups + ({{ width }}u * run.channel + k) / size;
}

{% if width == 4 %}
fn pair_of(a: vec2<f32>, b: vec2<f32>, c: vec2<f32>, d: vec2<f32>) -> Pair {
    return Pair(vec4(a.x, b.x, c.x, d.x), vec4(a.y, b.y, c.y, d.y));
}
{% endif %}

// Mean and rstd.
fn stats_of(run: Run) -> Pair {
    let stat = {{ of_groups("stats") }};
    return Pair(stat[0], 1.0 / sqrt(stat[1] + p.eps));
}

{% macro kernel(entry) %}
{{ entry_point(entry) }}
{% endmacro %}
{% macro shared_kernel(entry, count, stride) %}
{{ kernel(entry) }}
    // The last workgroup's invocations without a task of their own do another's, and store nothing.
    let task = workgroup_index(workgroup, grid) * {{ 64 // slices }}u + local {{ "/ " ~ slices if stride == 1 else "% " ~ stride }}u;
    let i = min(task, {{ count }} - 1u);
    let slice = local / {{ stride }}u % {{ slices }}u;
    let stores = task < {{ count }} && slice == 0u;
{% endmacro %}
{% if entry in ["group_norm_statistics", "group_norm_backward_sums"] %}
{% set owners = 64 // slices %}
{{ shared("pair_sum", "Pair", "a + b", slices, owners) }}
// Mean and squared deviations from it of each run. Sums are taken about the run's first value, so that a mean far above the
// deviation costs no digits.
{{ shared_kernel("group_norm_statistics", "p.frames * p.runs * p.channels", owners) }}
    let run = run_of(i);
    let pivot = load_x(run.first);
    var own = Pair();
    for (var k = slice; k < run.rows; k += {{ slices }}u) {
        let deviation = load_x(run.first + k * p.channels) - pivot;
        own += Pair(deviation, deviation * deviation);
    }
    let sum = pair_sum(own, local);
    let mean = sum[0] / f32(run.rows);
    if stores {
        let at = sums_at(run);
        store_sums(at, pivot + mean);
        store_sums(at + p.channels, max(sum[1] - sum[0] * mean, Value(0.0)));
    }
}

// Sums of d_y and d_y * normalised of each run.
{{ shared_kernel("group_norm_backward_sums", "p.frames * p.runs * p.channels", owners) }}
    let run = run_of(i);
    let stat = stats_of(run);
    var own = Pair();
    for (var k = slice; k < run.rows; k += {{ slices }}u) {
        let e = run.first + k * p.channels;
        let d = load_d_y(e);
        own += Pair(d, d * (load_x(e) - stat[0]) * stat[1]);
    }
    let sum = pair_sum(own, local);
    if stores {
        let at = sums_at(run);
        store_gradient_sums(at, sum[0]);
        store_gradient_sums(at + p.channels, sum[1]);
    }
}
{% elif entry in ["group_norm_merge", "group_norm_backward_merge"] %}
{{ shared("pair_sum", "Pair", "a + b", slices, 1) }}
// Mean and squared deviations of each frame and channel from those of its runs (Chan, Golub and LeVeque 1979).
{{ shared_kernel("group_norm_merge", "p.frames * p.channels", 1) }}
    let first = i / p.channels * p.runs * 2u * p.channels + i % p.channels;
    let pivot = load_run_sums(first);
    var own = Pair();
    for (var run = slice; run < p.runs; run += {{ slices }}u) {
        own[0] += f32(min(p.run, p.rows - run * p.run)) * (load_run_sums(first + run * 2u * p.channels) - pivot);
    }
    let from_pivot = pair_sum(own, local)[0] / f32(p.rows);
    own = Pair();
    for (var run = slice; run < p.runs; run += {{ slices }}u) {
        let at = first + run * 2u * p.channels;
        let deviation = load_run_sums(at) - pivot - from_pivot;
        own[1] += load_run_sums(at + p.channels) + f32(min(p.run, p.rows - run * p.run)) * deviation * deviation;
    }
    let squares = pair_sum(own, local)[1];
    if stores {
        let at = i / p.channels * 2u * p.channels + i % p.channels;
        store_merged_sums(at, pivot + from_pivot);
        store_merged_sums(at + p.channels, squares);
    }
}

// What the runs of each frame and channel have summed.
{{ shared_kernel("group_norm_backward_merge", "p.frames * p.channels", 1) }}
    let first = i / p.channels * p.runs * 2u * p.channels + i % p.channels;
    var own = Pair();
    for (var run = slice; run < p.runs; run += {{ slices }}u) {
        let at = first + run * 2u * p.channels;
        own += Pair(load_run_sums(at), load_run_sums(at + p.channels));
    }
    let sum = pair_sum(own, local);
    if stores {
        let at = i / p.channels * 2u * p.channels + i % p.channels;
        store_merged_sums(at, sum[0]);
        store_merged_sums(at + p.channels, sum[1]);
    }
}
{% elif entry in ["group_norm_combine", "group_norm_backward_combine"] %}
{{ buffer(2, "group_stats", "vec2<f32>") }}
{{ buffer(2, "channel_weight", "f32") }}
{{ buffer(3, "group_means", "vec2<f32>") }}

// Mean and variance of each group from those of its channels.
{{ kernel("group_norm_combine") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.frames * p.groups {
        return;
    }
    let size = p.channels / p.groups;
    let first = i / p.groups * 2u * p.channels + i % p.groups * size;
    let pivot = load_frame_sums(first);
    var total = 0.0;
    for (var c = 0u; c < size; c += 1u) {
        total += load_frame_sums(first + c) - pivot;
    }
    let from_pivot = total / f32(size);
    var squares = 0.0;
    for (var c = 0u; c < size; c += 1u) {
        let deviation = load_frame_sums(first + c) - pivot - from_pivot;
        squares += load_frame_sums(first + c + p.channels) + f32(p.rows) * deviation * deviation;
    }
    store_group_stats(i, vec2(pivot + from_pivot, squares / f32(size * p.rows)));
}

// Means over each group of what its channels have summed, times their weights.
{{ kernel("group_norm_backward_combine") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.frames * p.groups {
        return;
    }
    let size = p.channels / p.groups;
    let first = i / p.groups * 2u * p.channels + i % p.groups * size;
    var total = vec2(0.0);
    for (var c = 0u; c < size; c += 1u) {
        total += load_channel_weight(i % p.groups * size + c) * vec2(load_frame_sums(first + c), load_frame_sums(first + c + p.channels));
    }
    store_group_means(i, total / f32(size * p.rows));
}
{% elif entry == "group_norm_forward" %}
{{ kernel("group_norm_forward") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.frames * p.runs * p.channels {
        return;
    }
    let run = run_of(i);
    let stat = stats_of(run);
    let factor = stat[1] * load_weight(run.channel);
    let term = load_bias(run.channel);
    var e = run.first;
    for (var k = 0u; k < run.rows; k += 1u) {
        store_y(e, fma(load_x(e) - stat[0], factor, term));
        e += p.channels;
    }
}
{% else %}
{{ kernel("group_norm_backward") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.frames * p.runs * p.channels {
        return;
    }
    let run = run_of(i);
    let stat = stats_of(run);
    let factor = load_weight(run.channel);
{% if constant_stats %}
    let mean = Pair();
{% else %}
    let mean = {{ of_groups("means") }};
{% endif %}
    var e = run.first;
    for (var k = 0u; k < run.rows; k += 1u) {
        let normalised = (load_x(e) - stat[0]) * stat[1];
        store_d_x(e, stat[1] * (factor * load_d_y(e) - mean[0] - normalised * mean[1]));
        e += p.channels;
    }
}
{% endif %}
