// Kernels of src/layers/axis_pool.rs. Values and scores are [B, T, X, Y, Z, P*C]; a launch handles one pool, that is C of
// the channels, and some frames of one or all batches. A pool's cells are (kept cell, reduced cell) pairs, counted row-major.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

struct Parameters {
    kept: vec4<u32>,      // extents of t, x, y, z; 1 where reduced
    reduced: vec4<u32>,   // extents of t, x, y, z; 1 where kept
    strides: vec4<u32>,   // cells between neighbours along t, x, y, z
    batch_stride: u32,
    first_cell: u32,      // of this launch, in the window
    cell_channels: u32,   // P*C
    first_channel: u32,   // of this pool
    channels: u32,        // C
    kept_count: u32,      // all batches included
    reduced_count: u32,
    first_reduced: u32,   // of this launch, in the bias
    bias_count: u32,      // rows of the bias
    first_output: u32,    // element of o and lse
    run: u32,             // cells that one invocation handles
    runs: u32,            // runs of this launch, or of all launches where their results are merged
    first_run: u32,       // of this launch, among those of all; above 0, o and lse hold what came before
}

{{ parameters("p", "Parameters") }}

{{ buffer(1, "v", element[1]) }}
{{ buffer(2, "s", element[2]) }}
{{ buffer(3, "bias", "f32") }}

// axis_pool_forward, axis_pool_merge: largest score, sum of exponentials and weighted sum of each run, [runs, 3, kept, C].
{{ buffer(4, "o", "f32") }}
{{ buffer(5, "lse", "f32") }}
{{ buffer(4, "run_results", "f32") }}
{{ buffer(1, "merged_results", "f32") }}
{{ buffer(2, "merged_o", "f32") }}
{{ buffer(3, "merged_lse", "f32") }}

// axis_pool_pack: o, lse and d_o side by side, [3, kept, C], because a kernel binds few buffers.
{{ buffer(1, "saved_o", "f32") }}
{{ buffer(2, "saved_lse", "f32") }}
{{ buffer(3, "d_o", "f32") }}
{{ buffer(4, "packed", "f32") }}

// axis_pool_backward, axis_pool_backward_bias: [runs, bias rows, C].
{{ buffer(5, "d_v", element[5]) }}
{{ buffer(6, "d_s", element[6]) }}
{{ buffer(7, "run_d_bias", "f32") }}
{{ buffer(1, "merged_d_bias", "f32") }}
{{ buffer(2, "d_bias", "f32") }}

struct Cell {
    batch: u32,
    t: u32,
    x: u32,
    y: u32,
    z: u32,
}

fn cell_at(index: u32, extents: vec4<u32>) -> Cell {
    let column = index / extents.w;
    let plane = column / extents.z;
    let volume = plane / extents.y;
    return Cell(volume / extents.x, volume % extents.x, plane % extents.y, column % extents.z, index % extents.w);
}

// The next cell in row-major order, without divisions.
fn next_cell(cell: Cell, extents: vec4<u32>) -> Cell {
    var next = cell;
    next.z += 1u;
    let wraps_z = next.z == extents.w;
    next.z = select(next.z, 0u, wraps_z);
    next.y += u32(wraps_z);
    let wraps_y = next.y == extents.z;
    next.y = select(next.y, 0u, wraps_y);
    next.x += u32(wraps_y);
    let wraps_x = next.x == extents.y;
    next.x = select(next.x, 0u, wraps_x);
    next.t += u32(wraps_x);
    let wraps_t = next.t == extents.x;
    next.t = select(next.t, 0u, wraps_t);
    next.batch += u32(wraps_t);
    return next;
}

// Cells from the first of the launch; those of a kept and a reduced cell add up.
fn offset(cell: Cell) -> u32 {
    return cell.batch * p.batch_stride + cell.t * p.strides.x + cell.x * p.strides.y + cell.y * p.strides.z
        + cell.z * p.strides.w;
}

{% macro kernel(entry) %}
{{ entry_point(entry) }}
    let i = invocation_index(workgroup, grid, local);
{% endmacro %}
// One invocation a channel of a kept cell and a run of reduced cells: softmax with a running maximum.
{{ kernel("axis_pool_forward") }}
    let outputs = p.kept_count * p.channels;
    if i >= outputs * p.runs {
        return;
    }
    let channel = i % p.channels;
    let run = i / outputs;
    let first = run * p.run;
    let end = min(first + p.run, p.reduced_count);
    let base = p.first_cell + offset(cell_at((i / p.channels) % p.kept_count, p.kept));
    var cell = cell_at(first, p.reduced);
    var largest = -1e30;
    var total = 0.0;
    var weighted = 0.0;
    for (var a = first; a < end; a += 1u) {
        let e = (base + offset(cell)) * p.cell_channels + p.first_channel + channel;
        let score = load_s(e) + load_bias((p.first_reduced + a) * p.channels + channel);
        if score > largest {
            let scale = exp(largest - score);
            total *= scale;
            weighted *= scale;
            largest = score;
        }
        let weight = exp(score - largest);
        total += weight;
        weighted += weight * load_v(e);
        cell = next_cell(cell, p.reduced);
    }
{% if direct %}
    store_o(p.first_output + i, weighted / total);
    store_lse(p.first_output + i, largest + log(total));
{% else %}
    let result = run * 3u * outputs + i % outputs;
    store_run_results(result, largest);
    store_run_results(result + outputs, total);
    store_run_results(result + 2u * outputs, weighted);
{% endif %}
}

// One invocation an element of o: the runs of one launch and, from a second window on, those of the frames before.
{{ kernel("axis_pool_merge") }}
    let outputs = p.kept_count * p.channels;
    if i >= outputs {
        return;
    }
    var largest = load_merged_results(i);
    for (var run = 1u; run < p.runs; run += 1u) {
        largest = max(largest, load_merged_results(run * 3u * outputs + i));
    }
    let output = p.first_output + i;
    var total = 0.0;
    var weighted = 0.0;
    if p.first_run > 0u {
        // The frames before, seen as one run whose exponentials sum to exp(lse).
        let before = load_merged_lse(output);
        largest = max(largest, before);
        total = exp(before - largest);
        weighted = total * load_merged_o(output);
    }
    for (var run = 0u; run < p.runs; run += 1u) {
        let result = run * 3u * outputs + i;
        let scale = exp(load_merged_results(result) - largest);
        total += scale * load_merged_results(result + outputs);
        weighted += scale * load_merged_results(result + 2u * outputs);
    }
    store_merged_o(output, weighted / total);
    store_merged_lse(output, largest + log(total));
}

{{ kernel("axis_pool_pack") }}
    let outputs = p.kept_count * p.channels;
    if i >= outputs {
        return;
    }
    store_packed(i, load_saved_o(p.first_output + i));
    store_packed(outputs + i, load_saved_lse(p.first_output + i));
    store_packed(2u * outputs + i, load_d_o(p.first_output + i));
}

// One invocation a channel of a reduced cell and a run of kept cells, so that it can add up its share of d_bias.
{{ kernel("axis_pool_backward") }}
    let terms = p.reduced_count * p.channels;
    if i >= terms * p.runs {
        return;
    }
    let channel = i % p.channels;
    let run = i / terms;
    let first = run * p.run;
    let end = min(first + p.run, p.kept_count);
    let outputs = p.kept_count * p.channels;
    let a = (i / p.channels) % p.reduced_count;
    let base = p.first_cell + offset(cell_at(a, p.reduced));
    let bias_row = p.first_reduced + a;
    let bias_value = load_bias(bias_row * p.channels + channel);
    var cell = cell_at(first, p.kept);
    var sum = 0.0;
    for (var k = first; k < end; k += 1u) {
        let e = (base + offset(cell)) * p.cell_channels + p.first_channel + channel;
        let q = k * p.channels + channel;
        let weighted_d = exp(load_s(e) + bias_value - load_packed(outputs + q)) * load_packed(2u * outputs + q);
        let d_score = weighted_d * (load_v(e) - load_packed(q));
        store_d_v(e, weighted_d);
        store_d_s(e, d_score);
        sum += d_score;
        cell = next_cell(cell, p.kept);
    }
    store_run_d_bias(((p.first_run + run) * p.bias_count + bias_row) * p.channels + channel, sum);
}

// One invocation an element of d_bias.
{{ kernel("axis_pool_backward_bias") }}
    let terms = p.bias_count * p.channels;
    if i >= terms {
        return;
    }
    var sum = 0.0;
    for (var run = 0u; run < p.runs; run += 1u) {
        sum += load_merged_d_bias(run * terms + i);
    }
    store_d_bias(i, sum);
}
