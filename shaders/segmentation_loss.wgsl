// Kernels of src/layers/segmentation_loss.rs. CLASSES is K, BINS the error bins of a class. A row of a histogram or of
// slopes is [foreground, background].
{% include "common/index.wgsl" %}
{% include "common/reduce.wgsl" %}
{% from "common/operands.wgsl" import buffer, counters, entry_point, parameters %}

const K = {{ CLASSES }}u;
const BINS = {{ BINS }}u;

struct Parameters {
    voxels: u32,
    voxels_per_invocation: u32,
    first_group: u32,
    groups: u32,
}

{{ parameters("p", "Parameters") }}

fn error_bin(error: f32) -> u32 {
    return min(u32(max(error, 0.0) * f32(BINS)), BINS - 1u);
}

// Defines x0, x1, ... as softmax(logits) of the voxel, `highest` as the largest logit, `total` as the sum of
// exp(logit - highest), and `missing` as 1 - the label's probability, exact also where that is nearly 1.
{% macro softmax(logits) %}
        let row = voxel * K;
{% for c in range(CLASSES) %}
        let logit{{ c }} = load_{{ logits }}(row + {{ c }}u);
{% endfor %}
        var highest = logit0;
{% for c in range(1, CLASSES) %}
        highest = max(highest, logit{{ c }});
{% endfor %}
{% for c in range(CLASSES) %}
        let exp{{ c }} = exp(logit{{ c }} - highest);
{% endfor %}
        let total = {% for c in range(CLASSES) %}{% if c %} + {% endif %}exp{{ c }}{% endfor %};
{% for c in range(CLASSES) %}
        let x{{ c }} = exp{{ c }} / total;
{% endfor %}
        let missing = ({% for c in range(CLASSES) %}{% if c %} + {% endif %}select(exp{{ c }}, 0.0, label == {{ c }}u){% endfor %}) / total;
{% endmacro %}

// segmentation_loss_count: a workgroup's weighted negative log likelihood and weight, and the histogram of errors.
{{ buffer(1, "logits", element[1]) }}
{{ buffer(2, "labels", "u32") }}
{{ buffer(3, "class_weights", "f32") }}
{{ counters(4, "histogram") }}
{{ buffer(5, "partials", "vec2<f32>") }}

// Bin 0 holds nearly everything once the model has learnt something, so a workgroup counts it by itself: background in
// the lower half of the word, foreground in the upper.
var<workgroup> lowest_bin: array<atomic<u32>, K>;

{{ entry_point("segmentation_loss_count") }}
    let group = workgroup_index(workgroup, grid);
    for (var c = local; c < K; c += 64u) {
        atomicStore(&lowest_bin[c], 0u);
    }
    workgroupBarrier();
    var sum = vec2(0.0);
{% for c in range(CLASSES) %}
    var lowest{{ c }} = 0u;
{% endfor %}
    for (var i = 0u; i < p.voxels_per_invocation; i += 1u) {
        let voxel = (group * p.voxels_per_invocation + i) * 64u + local;
        if voxel >= p.voxels {
            break;
        }
        let label = load_labels(voxel);
        if label >= K {
            continue;
        }
{{ softmax("logits") }}
        var logit = logit0;
{% for c in range(1, CLASSES) %}
        logit = select(logit, logit{{ c }}, label == {{ c }}u);
{% endfor %}
        let weight = load_class_weights(label);
        // -log(1 - missing), by its series where that is small.
        let series = missing * (1.0 + missing * (0.5 + missing / 3.0));
        sum += vec2(weight * select(log(total) - (logit - highest), series, missing < 0.01), weight);
{% for c in range(CLASSES) %}
        {
            let foreground = label == {{ c }}u;
            let bin = error_bin(select(x{{ c }}, missing, foreground));
            if bin == 0u {
                lowest{{ c }} += select(1u, 0x10000u, foreground);
            } else {
                add_to_histogram(({{ c }}u * BINS + bin) * 2u + select(1u, 0u, foreground), 1u);
            }
        }
{% endfor %}
    }
{% for c in range(CLASSES) %}
    atomicAdd(&lowest_bin[{{ c }}], lowest{{ c }});
{% endfor %}
    // Its barriers also complete `lowest_bin`.
    let group_sum = workgroup_sum(sum, local);
    if group < p.groups {
        for (var c = local; c < K; c += 64u) {
            let count = atomicLoad(&lowest_bin[c]);
            add_to_histogram(c * BINS * 2u, count >> 16u);
            add_to_histogram(c * BINS * 2u + 1u, count & 0xffffu);
        }
        if local == 0u {
            store_partials(p.first_group + group, group_sum);
        }
    }
}

// segmentation_loss_slopes: one workgroup a class; each invocation has BINS / 64 bins, in order of falling error.
{{ buffer(1, "counts", "vec2<u32>") }}
{{ buffer(2, "slopes", "vec2<f32>") }}
{{ buffer(3, "class_losses", "vec2<f32>") }}

const BINS_EACH = BINS / 64u;
var<workgroup> lane_counts: array<vec2<u32>, 64>;

{{ entry_point("segmentation_loss_slopes") }}
    let first = workgroup.x * BINS;
    let highest = BINS - 1u - local * BINS_EACH;
    var own = vec2(0u);
    for (var i = 0u; i < BINS_EACH; i += 1u) {
        own += load_counts(first + highest - i);
    }
    lane_counts[local] = own;
    workgroupBarrier();
    var before = vec2(0u);
    var all_foreground = 0u;
    for (var lane = 0u; lane < 64u; lane += 1u) {
        let lane_count = lane_counts[lane];
        before += select(vec2(0u), lane_count, lane < local);
        all_foreground += lane_count.x;
    }
    let present = all_foreground > 0u;
    var loss = 0.0;
    for (var i = 0u; i < BINS_EACH; i += 1u) {
        let bin = highest - i;
        let n = load_counts(first + bin);
        var slope = vec2(0.0);
        if present && n.x + n.y > 0u {
            // J(F, B) = 1 - (G - F) / (G + B); all terms are positive, so nothing cancels.
            let missed = all_foreground - before.x;
            let joined = all_foreground + before.y;
            let count = vec2<f32>(n);
            let increment = (f32(missed) * (count.y / f32(joined)) + count.x) / f32(joined + n.y);
            let middle = 0.5 * f32(2u * joined + n.y);
            slope = vec2(1.0 / middle, 0.5 * f32(2u * missed - n.x) / middle / middle);
            let midpoint_increment = dot(count, slope);
            slope *= select(0.0, increment / midpoint_increment, midpoint_increment > 0.0);
            loss += (f32(bin) + 0.5) / f32(BINS) * increment;
        }
        store_slopes(first + bin, slope);
        before += n;
    }
    let sum = workgroup_sum(vec2(loss, 0.0), local);
    if local == 0u {
        store_class_losses(workgroup.x, vec2(sum.x, select(0.0, 1.0, present)));
    }
}

// segmentation_loss_finish: one workgroup; the means.
{{ buffer(1, "all_partials", "vec2<f32>") }}
{{ buffer(2, "all_class_losses", "vec2<f32>") }}
{{ buffer(3, "ce", "f32") }}
{{ buffer(4, "lovasz", "f32") }}
{{ buffer(5, "totals", "f32") }}

{{ entry_point("segmentation_loss_finish") }}
    var sum = vec2(0.0);
    for (var i = local; i < p.groups; i += 64u) {
        sum += load_all_partials(i);
    }
    let total = workgroup_sum(sum, local);
    var class_sum = vec2(0.0);
    for (var c = local; c < K; c += 64u) {
        class_sum += load_all_class_losses(c);
    }
    let class_total = workgroup_sum(class_sum, local);
    if local == 0u {
        store_ce(0, select(0.0, total.x / total.y, total.y > 0.0));
        store_lovasz(0, class_total.x / max(class_total.y, 1.0));
        store_totals(0, total.y);
        store_totals(1, class_total.y);
    }
}

// segmentation_loss_backward_scale: slopes and class weights times what the incoming gradients make of them, as one
// table: [K, BINS, 2] slopes, then K weights.
{{ buffer(1, "saved_slopes", "f32") }}
{{ buffer(2, "saved_weights", "f32") }}
{{ buffer(3, "saved_totals", "f32") }}
{{ buffer(4, "d_ce", "f32") }}
{{ buffer(5, "d_lovasz", "f32") }}
{{ buffer(6, "scaled", "f32") }}

{{ entry_point("segmentation_loss_backward_scale") }}
    let i = invocation_index(workgroup, grid, local);
    let slope_count = K * BINS * 2u;
    if i < slope_count {
        store_scaled(i, load_saved_slopes(i) * load_d_lovasz(0) / max(load_saved_totals(1), 1.0));
    } else if i < slope_count + K {
        let weight = load_saved_totals(0);
        store_scaled(i, select(0.0, load_saved_weights(i - slope_count) * load_d_ce(0) / weight, weight > 0.0));
    }
}

// segmentation_loss_backward: one voxel an invocation.
{{ buffer(3, "table", "f32") }}
{{ buffer(4, "d_logits", element[4]) }}

{{ entry_point("segmentation_loss_backward") }}
    let voxel = invocation_index(workgroup, grid, local);
    if voxel < p.voxels {
        let label = load_labels(voxel);
{{ softmax("logits") }}
        if label < K {
            let weight = load_table(K * BINS * 2u + label);
            let own_slope = load_table((label * BINS + error_bin(missing)) * 2u);
            // Gradients by the probabilities relative to the label's, so that nothing cancels where that is nearly 1.
{% for c in range(CLASSES) %}
            let slope{{ c }} = load_table(({{ c }}u * BINS + error_bin(x{{ c }})) * 2u + 1u);
            let d_x{{ c }} = select(slope{{ c }} + own_slope, 0.0, label == {{ c }}u);
{% endfor %}
            let mean = {% for c in range(CLASSES) %}{% if c %} + {% endif %}x{{ c }} * d_x{{ c }}{% endfor %};
{% for c in range(CLASSES) %}
            store_d_logits(row + {{ c }}u, x{{ c }} * (d_x{{ c }} - mean) + weight * select(x{{ c }}, -missing, label == {{ c }}u));
{% endfor %}
        } else {
{% for c in range(CLASSES) %}
            store_d_logits(row + {{ c }}u, 0.0);
{% endfor %}
        }
    }
}
