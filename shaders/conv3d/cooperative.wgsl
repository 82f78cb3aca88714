// The products of tiled.wgsl by cooperative matrices: a subgroup of 32 lanes multiplies 16 x 16 values of f16 at a time from
// workgroup memory and sums in f32. Channels come eight at a time (128 bits), so they divide by eight. Where there are no
// `matrix_units`, lanes multiply what they would (a row's half of each 16 x 16 results), so that tests without them show the
// rest to be right.

struct Eight {
    @align(16) low: vec4<f16>,
    high: vec4<f16>,
}

@group(0) @binding(1) var<storage, read_write> xs: array<Eight>;

const NOTHING = Eight(vec4<f16>(), vec4<f16>());

// The results of a subgroup, 16 x 16 of them at a time: a lane has half of a row.
var<workgroup> tile_y: array<vec4<f32>, 512>;

{% set gradient = entry is endingwith("weight") %}
{% set step = 32 %}
{% set frag_rows = tm // (16 * subgroup_rows) %}
{% set frag_columns = tn // (16 * subgroup_columns) %}

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

// Adds the product of the operands' tiles, of which `a` has a row of the product in a {{ "column" if gradient else "row" }}.
{% macro multiply(a, a_pitch, b, b_pitch) %}
for (var k = 0; k < {{ step }}; k += 16) {
    {% if matrix_units %}
    {% for j in range(frag_columns) %}
    let b_{{ j }} = coopLoadT<coop_mat16x16<f16, B>>(&{{ b }}[k * {{ b_pitch }} + column / 4 + {{ 4 * j }}], {{ b_pitch }}u);
    {% endfor %}
    {% for i in range(frag_rows) %}
    {
        {% if gradient %}
        let a = coopLoad<coop_mat16x16<f16, A>>(&{{ a }}[k * {{ a_pitch }} + row / 4 + {{ 4 * i }}], {{ a_pitch }}u);
        {% else %}
        let a = coopLoadT<coop_mat16x16<f16, A>>(&{{ a }}[(row + {{ 16 * i }}) * {{ a_pitch }} + k / 4], {{ a_pitch }}u);
        {% endif %}
        {% for j in range(frag_columns) %}
        sum_{{ i }}_{{ j }} = coopMultiplyAdd(a, b_{{ j }}, sum_{{ i }}_{{ j }});
        {% endfor %}
    }
    {% endfor %}
    {% else %}
    for (var s = k; s < k + 16; s += 1) {
        {% for i in range(frag_rows) %}
        {
            {% if gradient %}
            let m = row + {{ 16 * i }} + lane / 2;
            let a = f32({{ a }}[s * {{ a_pitch }} + m / 4][m % 4]);
            {% else %}
            let a = f32({{ a }}[(row + {{ 16 * i }} + lane / 2) * {{ a_pitch }} + s / 4][s % 4]);
            {% endif %}
            {% for j in range(frag_columns) %}
            for (var half = 0; half < 2; half += 1) {
                let b = {{ b }}[s * {{ b_pitch }} + column / 4 + {{ 4 * j }} + lane % 2 * 2 + half];
                sum_{{ i }}_{{ j }}[half] += a * vec4<f32>(b);
            }
            {% endfor %}
        }
        {% endfor %}
    }
    {% endif %}
}
{% endmacro %}

// Lets every lane have its half of a row of the sums as `tile_y[mine]` and the next one.
{% macro spread(sum) %}
{% if matrix_units %}
coopStoreT({{ sum }}, &tile_y[subgroup * 64], 4u);
{% else %}
tile_y[mine] = {{ sum }}[0];
tile_y[mine + 1] = {{ sum }}[1];
{% endif %}
workgroupBarrier();
{% endmacro %}

{% if not gradient %}
// A tile of {{ tm }} voxels x {{ tn }} output channels a workgroup, 32 of the inner dimension a step.
{% set loads = tm * 4 // 256 %}
{% set w_loads = (tn * 4 + 255) // 256 %}
@group(0) @binding(2) var<storage, read_write> weights: array<Eight>;
{% include "conv3d/store.wgsl" %}

@group(0) @binding(4) var<storage, read_write> biases: array<vec4<f32>>;

// Rows of 32 channels, or of output channels, and eight of padding, so that neighbours lie in different banks.
{% set x_pitch = 10 %}
{% set w_pitch = tn // 4 + 2 %}
var<workgroup> tile_x: array<vec4<f16>, {{ tm * x_pitch }}>;
var<workgroup> tile_w: array<vec4<f16>, {{ 32 * w_pitch }}>;

{% macro load() %}
{% for j in range(loads) %}
x_{{ j }} = NOTHING;
{% if pointwise %}
if c < vectors {
    x_{{ j }} = xs[voxel_{{ j }} * vectors + c];
}
{% else %}
if tap.x <= half.x && inside(position_{{ j }} + tap) {
    x_{{ j }} = xs[(voxel_{{ j }} + distance(tap)) * vectors + c];
}
{% endif %}
{% endfor %}
{% for j in range(w_loads) %}
{% if tn < 64 %}
if local < {{ tn * 4 }} {
    w_{{ j }} = weights[w_at];
}
{% else %}
w_{{ j }} = weights[w_at + {{ j * 256 // (tn // 8) }} * co_vectors];
{% endif %}
{% endfor %}
{% endmacro %}

@compute @workgroup_size(256)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local_index: u32,
    {% if matrix_units %}
    @builtin(subgroup_id) subgroup_index: u32,
    @builtin(subgroup_invocation_id) lane_index: u32,
    {% endif %}
) {
    let local = i32(local_index);
    {% if matrix_units %}
    let subgroup = i32(subgroup_index);
    let lane = i32(lane_index);
    {% else %}
    let subgroup = local / 32;
    let lane = local % 32;
    {% endif %}
    let row = subgroup / {{ subgroup_columns }} * {{ 16 * frag_rows }};
    let column = subgroup % {{ subgroup_columns }} * {{ 16 * frag_columns }};
    let mine = subgroup * 64 + 2 * lane;
    let first = i32(workgroup_index(workgroup, grid)) * {{ tm }};
    let co_first = i32(workgroup.z) * {{ tn }};
    let co_vectors = p.co_padded / 8;
    let vectors = p.ci / 8;

    // What this thread loads: eight channels of some voxels, and of some rows of the weight.
    var c = local % 4;
    {% for j in range(loads) %}
    let load_row_{{ j }} = local / 4 + {{ j * 64 }};
    let slot_{{ j }} = load_row_{{ j }} * {{ x_pitch }} + 2 * (local % 4);
    let voxel_{{ j }} = min(first + load_row_{{ j }}, p.count - 1);
    {% if not pointwise %}
    let position_{{ j }} = position_of(voxel_{{ j }});
    {% endif %}
    var x_{{ j }} = NOTHING;
    {% endfor %}
    var w_at = local / {{ tn // 8 }} * co_vectors + co_first / 8 + local % {{ tn // 8 }};
    {% for j in range(w_loads) %}
    let w_slot_{{ j }} = (local / {{ tn // 8 }} + {{ j * 256 // (tn // 8) }}) * {{ w_pitch }} + 2 * (local % {{ tn // 8 }});
    var w_{{ j }} = NOTHING;
    {% endfor %}
    {% if pointwise %}
    let inner = vectors;
    {% else %}
    let inner = p.kernel.x * p.kernel.y * p.kernel.z * vectors;
    let half = p.kernel / 2;
    var tap = -half;
    while c >= vectors {
        c -= vectors;
        tap = next_tap(tap, half);
    }
    {% endif %}
    {{ declare_sums() }}

    {{ load() }}
    for (var q = 0; q < inner; q += 4) {
        {% for j in range(loads) %}
        tile_x[slot_{{ j }}] = x_{{ j }}.low;
        tile_x[slot_{{ j }} + 1] = x_{{ j }}.high;
        {% endfor %}
        {% for j in range(w_loads) %}
        {{ "if local < " ~ tn * 4 if tn < 64 }} {
            tile_w[w_slot_{{ j }}] = w_{{ j }}.low;
            tile_w[w_slot_{{ j }} + 1] = w_{{ j }}.high;
        }
        {% endfor %}
        workgroupBarrier();
        // The next step's operands come while this one's are multiplied.
        if q + 4 < inner {
            w_at += 32 * co_vectors;
            c += 4;
            {% if not pointwise %}
            while c >= vectors {
                c -= vectors;
                tap = next_tap(tap, half);
            }
            {% endif %}
            {{ load() }}
        }
        {{ multiply("tile_x", x_pitch, "tile_w", w_pitch) }}
        workgroupBarrier();
    }
    {% for i in range(frag_rows) %}
    {% for j in range(frag_columns) %}
    {
        {{ spread("sum_" ~ i ~ "_" ~ j) }}
        let voxel = first + row + {{ 16 * i }} + lane / 2;
        let c_out = (co_first + column) / 4 + {{ 4 * j }} + lane % 2 * 2;
        store(voxel, c_out, tile_y[mine] + biases[c_out]);
        store(voxel, c_out + 1, tile_y[mine + 1] + biases[c_out + 1]);
        workgroupBarrier();
    }
    {% endfor %}
    {% endfor %}
}
{% else %}
// A tile of {{ tm }} output channels x {{ tn }} columns (tap, channel) a workgroup, 32 voxels a step, one chunk of voxels; the results are
// those of tiled.wgsl.
{% set loads = tn * 4 // 256 %}
{% set d_loads = (tm * 4 + 255) // 256 %}
{% set d_threads = [256, 4 * tm] | min %}
@group(0) @binding(2) var<storage, read_write> d_ys: array<Eight>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<f32>>;

{% set x_pitch = tn // 4 + 2 %}
{% set d_pitch = tm // 4 + 2 %}
var<workgroup> tile_x: array<vec4<f16>, {{ 32 * x_pitch }}>;
var<workgroup> tile_d: array<vec4<f16>, {{ 32 * d_pitch }}>;

{% macro load() %}
{% for j in range(loads) %}
x_{{ j }} = NOTHING;
if voxel_{{ j }} < end && {{ "c < vectors" if pointwise else "tap.x <= half.x && inside(position_" ~ j ~ " + tap)" }} {
    x_{{ j }} = xs[(voxel_{{ j }}{{ " + offset" if not pointwise }}) * vectors + c];
}
{% endfor %}
{% for j in range(d_loads) %}
d_{{ j }} = NOTHING;
if d_voxel_{{ j }} < end && c_d < p.co / 8{{ " && local < " ~ 4 * tm if tm < 64 }} {
    d_{{ j }} = d_ys[d_voxel_{{ j }} * (p.co / 8) + c_d];
}
bias_low += vec4<f32>(d_{{ j }}.low);
bias_high += vec4<f32>(d_{{ j }}.high);
{% endfor %}
{% endmacro %}

@compute @workgroup_size(256)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local_index: u32,
    {% if matrix_units %}
    @builtin(subgroup_id) subgroup_index: u32,
    @builtin(subgroup_invocation_id) lane_index: u32,
    {% endif %}
) {
    let local = i32(local_index);
    {% if matrix_units %}
    let subgroup = i32(subgroup_index);
    let lane = i32(lane_index);
    {% else %}
    let subgroup = local / 32;
    let lane = local % 32;
    {% endif %}
    let row = subgroup / {{ subgroup_columns }} * {{ 16 * frag_rows }};
    let column = subgroup % {{ subgroup_columns }} * {{ 16 * frag_columns }};
    let mine = subgroup * 64 + 2 * lane;
    let vectors = p.ci / 8;
    let columns = 2 * p.kernel.x * p.kernel.y * p.kernel.z * vectors + 1;
    let co_first = i32(workgroup.z) * {{ tm }};
    let start = i32(workgroup.y) * p.chunk;
    let end = min(p.count, start + p.chunk);

    // What this thread loads: eight columns of x at some voxels, and eight channels of d_y at some.
    let load_q = i32(workgroup.x) * {{ tn // 8 }} + local % {{ tn // 8 }};
    let c_d = co_first / 8 + local % {{ tm // 8 }};
    {% if pointwise %}
    let c = load_q;
    {% else %}
    let c = load_q % vectors;
    let half = p.kernel / 2;
    let tap_number = load_q / vectors;
    let tap = vec3(
        tap_number / (p.kernel.y * p.kernel.z), tap_number / p.kernel.z % p.kernel.y, tap_number % p.kernel.z
    ) - half;
    let offset = distance(tap);
    let step = position_of(32);
    {% endif %}
    {% for j in range(loads) %}
    let load_row_{{ j }} = local / {{ tn // 8 }} + {{ j * 256 // (tn // 8) }};
    let slot_{{ j }} = load_row_{{ j }} * {{ x_pitch }} + 2 * (local % {{ tn // 8 }});
    var voxel_{{ j }} = start + load_row_{{ j }};
    {% if not pointwise %}
    var position_{{ j }} = position_of(voxel_{{ j }});
    {% endif %}
    var x_{{ j }} = NOTHING;
    {% endfor %}
    {% for j in range(d_loads) %}
    let d_row_{{ j }} = local / {{ tm // 8 }} + {{ j * 256 // (tm // 8) }};
    let d_slot_{{ j }} = d_row_{{ j }} * {{ d_pitch }} + 2 * (local % {{ tm // 8 }});
    var d_voxel_{{ j }} = start + d_row_{{ j }};
    var d_{{ j }} = NOTHING;
    {% endfor %}
    var bias_low = vec4(0.0);
    var bias_high = vec4(0.0);
    {{ declare_sums() }}

    {{ load() }}
    for (var first = start; first < end; first += 32) {
        {% for j in range(loads) %}
        tile_x[slot_{{ j }}] = x_{{ j }}.low;
        tile_x[slot_{{ j }} + 1] = x_{{ j }}.high;
        voxel_{{ j }} += 32;
        {% if not pointwise %}
        position_{{ j }} = moved(position_{{ j }}, step);
        {% endif %}
        {% endfor %}
        {% for j in range(d_loads) %}
        {{ "if local < " ~ tm * 4 if tm < 64 }} {
            tile_d[d_slot_{{ j }}] = d_{{ j }}.low;
            tile_d[d_slot_{{ j }} + 1] = d_{{ j }}.high;
        }
        d_voxel_{{ j }} += 32;
        {% endfor %}
        workgroupBarrier();
        {{ load() }}
        {{ multiply("tile_d", d_pitch, "tile_x", x_pitch) }}
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
            partial[(base + o) * columns + q] = tile_y[mine];
            partial[(base + o) * columns + q + 1] = tile_y[mine + 1];
        }
        workgroupBarrier();
    }
    {% endfor %}
    {% endfor %}
    tile_y[2 * local] = bias_low;
    tile_y[2 * local + 1] = bias_high;
    workgroupBarrier();
    if workgroup.x == 0u && local < {{ tm // 8 }} && c_d < p.co / 8 {
        for (var other = local + {{ tm // 8 }}; other < {{ d_threads }}; other += {{ tm // 8 }}) {
            bias_low += tile_y[2 * other];
            bias_high += tile_y[2 * other + 1];
        }
        for (var k = 0; k < 4; k += 1) {
            let o = base + 8 * c_d + k;
            partial[(o + 1) * columns - 1] = vec4(bias_low[k], 0.0, 0.0, 0.0);
            partial[(o + 5) * columns - 1] = vec4(bias_high[k], 0.0, 0.0, 0.0);
        }
    }
}
{% endif %}
