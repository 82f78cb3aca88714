// Kernels of src/layers/instance_norm.rs. x is [N, S, C]. An invocation owns one channel, or four (width = 4), of a run of
// consecutive rows of one frame, so that neighbours touch neighbouring channels. The merges own one channel. Where `slices` is
// more than one, so many invocations of a workgroup share what one owns: each adds every `slices`th term.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}
{% set gated = post and residual %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};
// Two numbers a channel, of which those of four channels are two words.
alias Pairs = {{ "vec4<f32>" if width == 4 else "vec2<f32>" }};

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

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<{{ values(element[1]) }}>;
// [N, runs, C, 2] for the sums of runs, [N, C, 2] for the means made of them.
@group(0) @binding(1) var<storage, read_write> run_sums: array<Pairs>;
@group(0) @binding(2) var<storage, read_write> sums: array<Pairs>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ values(element[2]) }}>;
// [N, C, 2] of all frames: mean, rstd.
@group(0) @binding(3) var<storage, read_write> stats: array<Pairs>;
@group(0) @binding(4) var<storage, read_write> residual: array<{{ values(element[4]) }}>;
@group(0) @binding(4) var<storage, read_write> d_y: array<{{ values(element[4]) }}>;
{% if gated %}
@group(0) @binding(5) var<storage, read_write> saved_y: array<{{ values(element[5]) }}>;
@group(0) @binding(6) var<storage, read_write> d_x: array<{{ values(element[6]) }}>;
@group(0) @binding(7) var<storage, read_write> d_residual: array<{{ values(element[7]) }}>;
{% else %}
@group(0) @binding(5) var<storage, read_write> d_x: array<{{ values(element[5]) }}>;
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
two({{ array }}[2u * ({{ at }})], {{ array }}[2u * ({{ at }}) + 1u])
{%- else %}
Two({{ array }}[{{ at }}].x, {{ array }}[{{ at }}].y)
{%- endif %}
{% endmacro %}
{% macro store_pairs(array, at, x, y) %}
{% if width == 4 %}
    {{ array }}[2u * ({{ at }})] = vec4({{ x }}.x, {{ y }}.x, {{ x }}.y, {{ y }}.y);
    {{ array }}[2u * ({{ at }}) + 1u] = vec4({{ x }}.z, {{ y }}.z, {{ x }}.w, {{ y }}.w);
{% else %}
    {{ array }}[{{ at }}] = vec2({{ x }}, {{ y }});
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
@compute @workgroup_size({{ owners * slices }})
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // The last workgroup's invocations without a task of their own do another's, and store nothing.
    let task = workgroup_index(workgroup, grid) * {{ owners }}u + local % {{ owners }}u;
    let i = min(task, {{ count }} - 1u);
    let slice = local / {{ owners }}u;
    let stores = task < {{ count }} && slice == 0u;
{% endmacro %}

{% macro kernel(entry) %}
@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
{% endmacro %}
// Mean, less the frame's first value, and sum of squared deviations of each run. Sums are taken about the run's own
// first value, so that a mean far above the deviation costs no digits.
{{ shared_kernel("instance_norm_statistics", "p.frames * p.runs * p.channels") }}
    let run = run_of(i);
    let pivot = Value(x[run.first]);
    var own = Two(Value(0.0), Value(0.0));
    for (var k = slice; k < run.rows; k += {{ slices }}u) {
        let deviation = Value(x[run.first + k * p.channels]) - pivot;
        own.x += deviation;
        own.y += deviation * deviation;
    }
    let sums_of_run = sum_of_slices(own, local);
    let mean = sums_of_run.x / f32(run.rows);
    let frame_pivot = Value(x[run.frame * p.rows * p.channels + run.channel]);
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
        total += f32(min(p.run, p.rows - run * p.run)) * sums[first + run * p.channels].x;
    }
    let mean = sum_of_slices(Two(total, 0.0), local).x / f32(p.rows);
    var squares = 0.0;
    for (var run = slice; run < p.runs; run += {{ slices }}u) {
        let part = sums[first + run * p.channels];
        let deviation = part.x - mean;
        squares += part.y + f32(min(p.run, p.rows - run * p.run)) * deviation * deviation;
    }
    squares = sum_of_slices(Two(squares, 0.0), local).x;
    let pivot = f32(x[frame * p.rows * p.channels + channel]);
    if stores {
        stats[p.first_frame * p.channels + i] = vec2(pivot + mean, 1.0 / sqrt(squares / f32(p.rows) + EPS));
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
        var value = (Value(x[e]) - stat.x) * stat.y;
{% if pre %}
        value *= slope(value);
{% endif %}
{% if residual %}
        value += Value(residual[e]);
{% endif %}
{% if post %}
        value *= slope(value);
{% endif %}
        y[e] = {{ values(element[2]) }}(value);
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
    return Value(d_y[e]) * slope(Value(saved_y[e]));
{% else %}
    return Value(d_y[e]);
{% endif %}
}

// Sums of d and d * normalised over each run.
{{ shared_kernel("instance_norm_backward_sums", "p.frames * p.runs * p.channels") }}
    let run = run_of(i);
    let stat = stats_of(run);
    var own = Two(Value(0.0), Value(0.0));
    for (var k = slice; k < run.rows; k += {{ slices }}u) {
        let e = run.first + k * p.channels;
        let normalised = (Value(x[e]) - stat.x) * stat.y;
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
        own.x += run_sums[first + run * p.channels].x;
        own.y += run_sums[first + run * p.channels].y;
    }
    let sum = sum_of_slices(own, local);
    if stores {
        sums[i] = vec2(sum.x, sum.y) / f32(p.rows);
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
        let normalised = (Value(x[e]) - stat.x) * stat.y;
        let d_sum = d_sum_of(e);
        d_x[e] = {{ values(element[6 if gated else 5]) }}(stat.y * (d_normalised(d_sum, normalised) - mean.x - normalised * mean.y));
{% if gated %}
        d_residual[e] = {{ values(element[7]) }}(d_sum);
{% endif %}
        e += p.channels;
    }
}
