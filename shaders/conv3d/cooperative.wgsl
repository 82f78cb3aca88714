// The products of tiled.wgsl by cooperative matrices: a subgroup of 32 lanes multiplies 16 x 16 values of f16 at a time from
// workgroup memory and sums in f32. Channels come eight at a time (128 bits), so they divide by eight. Where there are no
// `matrix_units`, lanes multiply what they would, so that tests without them show the rest to be right.
{% from "common/operands.wgsl" import buffer, entry_point %}

struct Eight {
    @align(16) low: vec4<f16>,
    high: vec4<f16>,
}

const NOTHING = Eight(vec4<f16>(), vec4<f16>());

{{ buffer(1, "xs", "Eight", index="i32") }}

{% set gradient = entry is endingwith("weight") %}
{% set threads = 32 * subgroup_rows * subgroup_columns %}
{% set frag_rows = tm // (16 * subgroup_rows) %}
{% set frag_columns = tn // (16 * subgroup_columns) %}

// A row of 32 channels, or of all channels of a tile, in eights, and one more, so that neighbours lie in different banks.
{% set x_pitch = tn // 8 + 1 if gradient else 5 %}
{% set other_pitch = tm // 8 + 1 if gradient else 5 %}
{% set x_size = 32 * x_pitch if gradient else tm * x_pitch %}
// The operands of a step, x first.
var<workgroup> tile: array<vec4<f16>, {{ 2 * (x_size + (32 if gradient else tn) * other_pitch) }}>;
// 16 x 16 sums of each subgroup; in the end what the threads have of the bias.
{% set sum_size = 64 %}
var<workgroup> sums: array<vec4<f32>, {{ subgroup_rows * subgroup_columns * sum_size }}>;

fn put_eight(at: i32, eight: Eight) {
    tile[2 * at] = eight.low;
    tile[2 * at + 1] = eight.high;
}

{% if not matrix_units %}
// One of the eight values at `at`.
fn value(at: i32, k: i32) -> f32 {
    return f32(tile[2 * at + k / 4][k % 4]);
}
{% endif %}

{% macro declare_sums() %}
{% for i in range(frag_rows) %}
{% for j in range(frag_columns) %}
{% if matrix_units %}
var sum_{{ i }}_{{ j }}: coop_mat16x16<f32, C>;
{% else %}
var sum_{{ i }}_{{ j }} = array<vec4<f32>, 2>();
{% endif %}
{% endfor %}
{% endfor %}
{% endmacro %}

// Adds the product of the operands, of which `a`, at `a_at`, has a row of the product in a {{ "column" if gradient else "row" }}.
{% macro multiply(a_at, a_pitch, b_at, b_pitch) %}
for (var k = 0; k < 32; k += 16) {
    {% if matrix_units %}
    {% for j in range(frag_columns) %}
    {% if gradient %}
    let b_{{ j }} = coopLoadT<coop_mat16x16<f16, B>>(&tile[2 * ({{ b_at + 2 * j }} + k * {{ b_pitch }} + column / 8)], {{ 2 * b_pitch }}u);
    {% else %}
    let b_{{ j }} = coopLoad<coop_mat16x16<f16, B>>(&tile[2 * ({{ b_at + 16 * j * b_pitch }} + column * {{ b_pitch }} + k / 8)], {{ 2 * b_pitch }}u);
    {% endif %}
    {% endfor %}
    {% for i in range(frag_rows) %}
    {
        {% if gradient %}
        let a = coopLoad<coop_mat16x16<f16, A>>(&tile[2 * ({{ a_at + 2 * i }} + k * {{ a_pitch }} + row / 8)], {{ 2 * a_pitch }}u);
        {% else %}
        let a = coopLoadT<coop_mat16x16<f16, A>>(&tile[2 * ({{ a_at + 16 * i * a_pitch }} + row * {{ a_pitch }} + k / 8)], {{ 2 * a_pitch }}u);
        {% endif %}
        {% for j in range(frag_columns) %}
        sum_{{ i }}_{{ j }} = coopMultiplyAdd(a, b_{{ j }}, sum_{{ i }}_{{ j }});
        {% endfor %}
    }
    {% endfor %}
    {% else %}
    // A lane has half of a row of each 16 x 16 results.
    for (var s = k; s < k + 16; s += 1) {
        {% for i in range(frag_rows) %}
        {
            let m = row + {{ 16 * i }} + lane / 2;
            {% if gradient %}
            let a = value({{ a_at }} + s * {{ a_pitch }} + m / 8, m % 8);
            {% else %}
            let a = value({{ a_at }} + m * {{ a_pitch }} + s / 8, s % 8);
            {% endif %}
            {% for j in range(frag_columns) %}
            for (var n = 0; n < 8; n += 1) {
                {% if gradient %}
                let b = value({{ b_at + 2 * j }} + s * {{ b_pitch }} + column / 8 + lane % 2, n);
                {% else %}
                let b = value({{ b_at }} + (column + {{ 16 * j }} + lane % 2 * 8 + n) * {{ b_pitch }} + s / 8, s % 8);
                {% endif %}
                sum_{{ i }}_{{ j }}[n / 4][n % 4] += a * b;
            }
            {% endfor %}
        }
        {% endfor %}
    }
    {% endif %}
}
{% endmacro %}

// Lets every lane have its half of a row of 16 x 16 sums as `sums[mine]` and the next one.
{% macro spread(sum) %}
{% if matrix_units %}
coopStoreT({{ sum }}, &sums[subgroup * {{ sum_size }}], 4u);
{% else %}
sums[mine] = {{ sum }}[0];
sums[mine + 1] = {{ sum }}[1];
{% endif %}
workgroupBarrier();
{% endmacro %}

{% macro place() %}
{% if matrix_units %}
let subgroup = i32(subgroup_index);
let lane = i32(lane_index);
{% else %}
let subgroup = local / 32;
let lane = local % 32;
{% endif %}
let row = subgroup / {{ subgroup_columns }} * {{ 16 * frag_rows }};
let column = subgroup % {{ subgroup_columns }} * {{ 16 * frag_columns }};
let mine = subgroup * {{ sum_size }} + 2 * lane;
{% endmacro %}

// Copies what this thread has loaded into the tiles: x and {{ "d_y" if gradient else "the weight" }}.
{% macro put(loads, other, other_loads) %}
{% for j in range(loads) %}
put_eight(slot_{{ j }}, x_{{ j }});
{% endfor %}
{% for j in range(other_loads) %}
{% if gradient %}
{{ "if lane_in_row < " ~ tm // 8 if tm // 8 < threads // 32 }} {
{% else %}
{{ "if local < " ~ tn * 4 if tn * 4 < threads }} {
{% endif %}
    put_eight({{ other }}_slot_{{ j }}, {{ other }}_{{ j }});
}
{% endfor %}
{% endmacro %}

{% if not gradient %}
// A tile of {{ tm }} voxels x {{ tn }} output channels a workgroup, 32 of the inner dimension a step.
{% set loads = tm * 4 // threads %}
{% set w_units = tn * 4 %}
{% set w_loads = [w_units // threads, 1] | max %}
{% set w_rows = threads // 4 %}
{{ buffer(2, "weights", "Eight", index="i32") }}
{% set y_binding, mask_binding = 3, 5 %}
{% include "conv3d/store.wgsl" %}

{{ buffer(4, "biases", "vec4<f32>", index="i32") }}

{% macro load() %}
{% if not pointwise %}
let bits = tap_bits(tap);
let shift = distance(tap - half) * vectors + c;
{% endif %}
{% for j in range(loads) %}
x_{{ j }} = NOTHING;
{% if pointwise %}
if c < vectors {
    x_{{ j }} = load_xs(from_{{ j }} + c);
}
{% else %}
if (taps_{{ j }} & bits) == bits {
    x_{{ j }} = load_xs(from_{{ j }} + shift);
}
{% endif %}
{% endfor %}
{% for j in range(w_loads) %}
{{ "if local < " ~ w_units if w_units < threads }} {
    w_{{ j }} = load_weights(w_at + {{ j * w_rows }} * w_vectors);
}
{% endfor %}
w_at += 4;
c += 4;
{% if not pointwise %}
while c >= vectors {
    c -= vectors;
    tap = next_tap(tap);
}
{% endif %}
{% endmacro %}

{{ entry_point(entry, threads, local="local_index", builtins={"subgroup_id": "subgroup_index", "subgroup_invocation_id": "lane_index"} if matrix_units else {}) }}
    let local = i32(local_index);
    {{ place() }}
    let first = i32(workgroup_index(workgroup, grid)) * {{ tm }};
    let co_first = i32(workgroup.z) * {{ tn }};
    let vectors = p.ci / 8;

    // What this thread loads: eight channels of some voxels, and of some rows of the weight.
    var c = local % 4;
    {% for j in range(loads) %}
    let load_row_{{ j }} = local / 4 + {{ j * threads // 4 }};
    let slot_{{ j }} = load_row_{{ j }} * {{ x_pitch }} + local % 4;
    let voxel_{{ j }} = min(first + load_row_{{ j }}, p.count - 1);
    let from_{{ j }} = {{ "x_voxel(position_of(voxel_" ~ j ~ "))" if padded is defined else "voxel_" ~ j }} * vectors;
    {% if not pointwise %}
    let taps_{{ j }} = taps_inside(position_of(voxel_{{ j }}));
    {% endif %}
    var x_{{ j }} = NOTHING;
    {% endfor %}
    // Eights of an output channel, of which the matrix has p.bias_at in all.
    let w_vectors = p.bias_at / p.co_padded;
    var w_at = (co_first + local / 4) * w_vectors + local % 4;
    {% for j in range(w_loads) %}
    let w_slot_{{ j }} = {{ x_size }} + (local / 4 + {{ j * w_rows }}) * {{ other_pitch }} + local % 4;
    var w_{{ j }} = NOTHING;
    {% endfor %}
    {% if pointwise %}
    let inner = vectors;
    {% else %}
    let inner = p.kernel.x * p.kernel.y * p.kernel.z * vectors;
    let half = {{ "p.before" if padded is defined else "p.kernel / 2" }};
    var tap = vec3(0);
    while c >= vectors {
        c -= vectors;
        tap = next_tap(tap);
    }
    {% endif %}
    {{ declare_sums() }}

    {
        {{ load() }}
        {{ put(loads, "w", w_loads) }}
    }
    workgroupBarrier();
    for (var q = 0; q < inner; q += 4) {
        // The next step's operands come while this one's are multiplied.
        let more = q + 4 < inner;
        if more {
            {{ load() }}
        }
        {{ multiply(0, x_pitch, x_size, other_pitch) }}
        workgroupBarrier();
        if more {
            {{ put(loads, "w", w_loads) }}
        }
        workgroupBarrier();
    }
    {% for i in range(frag_rows) %}
    {% for j in range(frag_columns) %}
    {
        {{ spread("sum_" ~ i ~ "_" ~ j) }}
        let voxel = first + row + {{ 16 * i }} + lane / 2;
        let c_out = (co_first + column) / 4 + {{ 4 * j }} + lane % 2 * 2;
        store(voxel, c_out, sums[mine] + load_biases(c_out));
        store(voxel, c_out + 1, sums[mine + 1] + load_biases(c_out + 1));
        workgroupBarrier();
    }
    {% endfor %}
    {% endfor %}
}
{% else %}
// A tile of {{ tm }} output channels x {{ tn }} columns (tap, channel) a workgroup, 32 voxels a step, one chunk of voxels; the results are
// those of tiled.wgsl. A thread loads parts of one voxel.
{% set lanes = threads // 32 %}
{% set loads = tn // 8 // lanes %}
{% set d_loads = [tm // 8 // lanes, 1] | max %}
{% set d_lanes = [lanes, tm // 8] | min %}
{{ buffer(2, "d_ys", "Eight", index="i32") }}
{{ buffer(3, "partial", "vec4<f32>", index="i32") }}

{% macro load() %}
{% if not pointwise %}
let inside = select(0u, taps_inside(position), voxel < end);
{% if padded is defined %}
let under = x_voxel(position);
{% endif %}
{% endif %}
{% for j in range(loads) %}
x_{{ j }} = NOTHING;
{% if pointwise %}
if voxel < end && c_{{ j }} < vectors {
    x_{{ j }} = load_xs(voxel * vectors + c_{{ j }});
}
{% else %}
if (inside & bits_{{ j }}) == bits_{{ j }} {
    x_{{ j }} = load_xs({{ "under" if padded is defined else "voxel" }} * vectors + c_{{ j }});
}
{% endif %}
{% endfor %}
{% for j in range(d_loads) %}
d_{{ j }} = NOTHING;
if voxel < end && c_d + {{ j * lanes }} < p.co / 8{{ " && lane_in_row < " ~ tm // 8 if tm // 8 < lanes }} {
    d_{{ j }} = load_d_ys(voxel * (p.co / 8) + c_d + {{ j * lanes }});
}
if workgroup.x == 0u {
    bias_{{ j }}[0] += vec4<f32>(d_{{ j }}.low);
    bias_{{ j }}[1] += vec4<f32>(d_{{ j }}.high);
}
{% endfor %}
voxel += 32;
{% if not pointwise %}
position = moved(position, step);
{% endif %}
{% endmacro %}

{{ entry_point(entry, threads, local="local_index", builtins={"subgroup_id": "subgroup_index", "subgroup_invocation_id": "lane_index"} if matrix_units else {}) }}
    let local = i32(local_index);
    {{ place() }}
    let vectors = p.ci / 8;
    let columns = 2 * p.kernel.x * p.kernel.y * p.kernel.z * vectors + 1;
    let co_first = i32(workgroup.z) * {{ tm }};
    let start = i32(workgroup.y) * p.chunk;
    let end = min(p.count, start + p.chunk);

    // What this thread loads: some eights of columns of x, and some of channels of d_y, at one voxel.
    let load_row = local / {{ lanes }};
    let lane_in_row = local % {{ lanes }};
    var voxel = start + load_row;
    {% if not pointwise %}
    let half = {{ "p.before" if padded is defined else "p.kernel / 2" }};
    let step = position_of(32);
    var position = position_of(voxel);
    {% endif %}
    {% for j in range(loads) %}
    let q_{{ j }} = i32(workgroup.x) * {{ tn // 8 }} + lane_in_row + {{ j * lanes }};
    {% if pointwise %}
    let c_{{ j }} = q_{{ j }};
    {% else %}
    let tap_{{ j }} = tap_of(q_{{ j }} / vectors);
    let bits_{{ j }} = bits_of(tap_{{ j }});
    let c_{{ j }} = distance(tap_{{ j }} - half) * vectors + q_{{ j }} % vectors;
    {% endif %}
    let slot_{{ j }} = load_row * {{ x_pitch }} + lane_in_row + {{ j * lanes }};
    var x_{{ j }} = NOTHING;
    {% endfor %}
    let c_d = co_first / 8 + lane_in_row;
    {% for j in range(d_loads) %}
    let d_slot_{{ j }} = {{ x_size }} + load_row * {{ other_pitch }} + lane_in_row + {{ j * lanes }};
    var d_{{ j }} = NOTHING;
    var bias_{{ j }} = array<vec4<f32>, 2>();
    {% endfor %}
    {{ declare_sums() }}

    {
        {{ load() }}
        {{ put(loads, "d", d_loads) }}
    }
    workgroupBarrier();
    for (var first = start; first < end; first += 32) {
        {{ load() }}
        {{ multiply(x_size, other_pitch, 0, x_pitch) }}
        workgroupBarrier();
        {{ put(loads, "d", d_loads) }}
        workgroupBarrier();
    }
    let base = i32(workgroup.y) * p.co;
    {% for i in range(frag_rows) %}
    {% for j in range(frag_columns) %}
    {
        {{ spread("sum_" ~ i ~ "_" ~ j) }}
        let o = co_first + row + {{ 16 * i }} + lane / 2;
        let q = i32(workgroup.x) * {{ tn // 4 }} + column / 4 + {{ 4 * j }} + lane % 2 * 2;
        if o < p.co && q + 1 < columns {
            store_partial((base + o) * columns + q, sums[mine]);
            store_partial((base + o) * columns + q + 1, sums[mine + 1]);
        }
        workgroupBarrier();
    }
    {% endfor %}
    {% endfor %}
    // The threads of a row of the first columns add up what the others have of their channels.
    {% for j in range(d_loads) %}
    sums[2 * local] = bias_{{ j }}[0];
    sums[2 * local + 1] = bias_{{ j }}[1];
    workgroupBarrier();
    if workgroup.x == 0u && local < {{ d_lanes }} && c_d + {{ j * lanes }} < p.co / 8 {
        for (var other = local + {{ lanes }}; other < {{ threads }}; other += {{ lanes }}) {
            bias_{{ j }}[0] += sums[2 * other];
            bias_{{ j }}[1] += sums[2 * other + 1];
        }
        for (var k = 0; k < 8; k += 1) {
            let o = base + 8 * (c_d + {{ j * lanes }}) + k;
            store_partial((o + 1) * columns - 1, vec4(bias_{{ j }}[k / 4][k % 4], 0.0, 0.0, 0.0));
        }
    }
    workgroupBarrier();
    {% endfor %}
}
{% endif %}
