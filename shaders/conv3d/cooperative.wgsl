// The products of tiled.wgsl by cooperative matrices: a subgroup of 32 lanes multiplies 16 x 16 values of f16 at a time from
// workgroup memory and sums in f32. Channels come eight at a time (128 bits), so they divide by eight. Where there are no `matrix_units`, lanes multiply what they would, so that tests without them show
// the rest to be right.

struct Eight {
    @align(16) low: vec4<f16>,
    high: vec4<f16>,
}

const NOTHING = Eight(vec4<f16>(), vec4<f16>());

@group(0) @binding(1) var<storage, read_write> xs: array<Eight>;

{% set gradient = entry is endingwith("weight") %}
{% set threads = 32 * subgroup_rows * subgroup_columns %}
{% set frag_rows = tm // (16 * subgroup_rows) %}
{% set frag_columns = tn // (16 * subgroup_columns) %}

// Both operands have a row for each row or column of the product: 32 values of the inner dimension, a step, and eight more, so that
// neighbours lie in different banks. In each stage the rows of the product come first.
{% set pitch = 10 %}
{% set stage_size = (tm + tn) * pitch %}
var<workgroup> tile: array<vec4<f16>, {{ stages * stage_size }}>;
// 16 x 16 sums of each subgroup; in the end what the threads have of the bias.
{% set sum_size = 64 %}
var<workgroup> sums: array<vec4<f32>, {{ subgroup_rows * subgroup_columns * sum_size }}>;

{% if not matrix_units %}
// Value `k` of a row.
fn value(row: i32, k: i32) -> f32 {
    return f32(tile[row * {{ pitch }} + k / 4][k % 4]);
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

// Adds the product of the operands of a stage.
{% macro multiply(stage) %}
{% set at = stage * stage_size %}
{% for k in [0, 16] %}
{
    {% if matrix_units %}
    {% for j in range(frag_columns) %}
    let b_{{ j }} = coopLoad<coop_mat16x16<f16, B>>(&tile[{{ at + k // 4 + (tm + 16 * j) * pitch }} + column * {{ pitch }}], {{ pitch }}u);
    {% endfor %}
    {% for i in range(frag_rows) %}
    {
        let a = coopLoadT<coop_mat16x16<f16, A>>(&tile[{{ at + k // 4 + 16 * i * pitch }} + row * {{ pitch }}], {{ pitch }}u);
        {% for j in range(frag_columns) %}
        sum_{{ i }}_{{ j }} = coopMultiplyAdd(a, b_{{ j }}, sum_{{ i }}_{{ j }});
        {% endfor %}
    }
    {% endfor %}
    {% else %}
    // A lane has half of a row of each 16 x 16 results.
    for (var s = {{ k }}; s < {{ k + 16 }}; s += 1) {
        {% for i in range(frag_rows) %}
        {
            let a = value({{ stage * (tm + tn) + 16 * i }} + row + lane / 2, s);
            {% for j in range(frag_columns) %}
            for (var n = 0; n < 8; n += 1) {
                let b = value({{ stage * (tm + tn) + tm + 16 * j }} + column + lane % 2 * 8 + n, s);
                sum_{{ i }}_{{ j }}[n / 4][n % 4] += a * b;
            }
            {% endfor %}
        }
        {% endfor %}
    }
    {% endif %}
}
{% endfor %}
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

{% if not gradient %}
// A tile of {{ tm }} voxels x {{ tn }} output channels a workgroup, 32 of the inner dimension a step.
{% set loads = tm * 4 // threads %}
{% set w_units = tn * 4 %}
{% set w_loads = [w_units // threads, 1] | max %}
{% set w_rows = threads // 4 %}
@group(0) @binding(2) var<storage, read_write> weights: array<Eight>;
{% include "conv3d/store.wgsl" %}

@group(0) @binding(4) var<storage, read_write> biases: array<vec4<f32>>;

{% macro put(stage) %}
{% for j in range(loads) %}
tile[{{ stage * stage_size }} + slot_{{ j }}] = x_{{ j }}.low;
tile[{{ stage * stage_size + 1 }} + slot_{{ j }}] = x_{{ j }}.high;
{% endfor %}
{% for j in range(w_loads) %}
{{ "if local < " ~ w_units if w_units < threads }} {
    tile[{{ stage * stage_size }} + w_slot_{{ j }}] = w_{{ j }}.low;
    tile[{{ stage * stage_size + 1 }} + w_slot_{{ j }}] = w_{{ j }}.high;
}
{% endfor %}
{% endmacro %}

{% macro load() %}
{% if not pointwise %}
let bits = tap_bits(tap);
let shift = distance(tap - half) * vectors + c;
{% endif %}
{% for j in range(loads) %}
x_{{ j }} = NOTHING;
{% if pointwise %}
if c < vectors {
    x_{{ j }} = xs[from_{{ j }} + c];
}
{% else %}
if (taps_{{ j }} & bits) == bits {
    x_{{ j }} = xs[from_{{ j }} + shift];
}
{% endif %}
{% endfor %}
{% for j in range(w_loads) %}
{{ "if local < " ~ w_units if w_units < threads }} {
    w_{{ j }} = weights[w_at + {{ j * w_rows }} * w_vectors];
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

@compute @workgroup_size({{ threads }})
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
    {{ place() }}
    let first = i32(workgroup_index(workgroup, grid)) * {{ tm }};
    let co_first = i32(workgroup.z) * {{ tn }};
    let vectors = p.ci / 8;

    // What this thread loads: eight channels of some voxels, and of some rows of the weight.
    var c = local % 4;
    {% for j in range(loads) %}
    let load_row_{{ j }} = local / 4 + {{ j * threads // 4 }};
    let slot_{{ j }} = load_row_{{ j }} * {{ pitch }} + local % 4 * 2;
    let voxel_{{ j }} = min(first + load_row_{{ j }}, p.count - 1);
    let from_{{ j }} = voxel_{{ j }} * vectors;
    {% if not pointwise %}
    let taps_{{ j }} = taps_inside(position_of(voxel_{{ j }}));
    {% endif %}
    var x_{{ j }} = NOTHING;
    {% endfor %}
    // Eights of an output channel, of which the matrix has p.bias_at in all.
    let w_vectors = p.bias_at / p.co_padded;
    var w_at = (co_first + local / 4) * w_vectors + local % 4;
    {% for j in range(w_loads) %}
    let w_slot_{{ j }} = ({{ tm + j * w_rows }} + local / 4) * {{ pitch }} + local % 4 * 2;
    var w_{{ j }} = NOTHING;
    {% endfor %}
    {% if pointwise %}
    let inner = vectors;
    {% else %}
    let inner = p.kernel.x * p.kernel.y * p.kernel.z * vectors;
    let half = p.kernel / 2;
    var tap = vec3(0);
    while c >= vectors {
        c -= vectors;
        tap = next_tap(tap);
    }
    {% endif %}
    {{ declare_sums() }}

    {
        {{ load() }}
        {{ put(0) }}
    }
    workgroupBarrier();
    for (var q = 0; q < inner; q += {{ 4 * stages }}) {
        {% for stage in range(stages) %}
        {% if stage %}
        if q + 4 >= inner {
            break;
        }
        {% endif %}
        {
            // The next step's operands come while this one's are multiplied.
            let more = q + {{ 4 * stage + 4 }} < inner;
            if more {
                {{ load() }}
            }
            {{ multiply(stage) }}
            {% if stages == 1 %}
            workgroupBarrier();
            {% endif %}
            if more {
                {{ put((stage + 1) % stages) }}
            }
            workgroupBarrier();
        }
        {% endfor %}
    }
    {% for i in range(frag_rows) %}
    {% for j in range(frag_columns) %}
    {
        {{ spread("sum_" ~ i ~ "_" ~ j) }}
        let voxel = first + row + {{ 16 * i }} + lane / 2;
        let c_out = (co_first + column) / 4 + {{ 4 * j }} + lane % 2 * 2;
        store(voxel, c_out, sums[mine] + biases[c_out]);
        store(voxel, c_out + 1, sums[mine + 1] + biases[c_out + 1]);
        workgroupBarrier();
    }
    {% endfor %}
    {% endfor %}
}
{% else %}
// A tile of {{ tm }} output channels x {{ tn }} columns (tap, channel) a workgroup, 32 voxels a step, one chunk of voxels; the results are
// those of tiled.wgsl.
// A thread loads eights of channels at four voxels, one below the other, and turns them.
{% set x_loads = [tn // threads, 1] | max %}
{% set d_loads = [tm // threads, 1] | max %}
{% set d_first = [threads - tm, 0] | max %}
@group(0) @binding(2) var<storage, read_write> d_ys: array<Eight>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<f32>>;

{% macro put(stage) %}
{% for j in range(x_loads) %}
{{ "if local < " ~ tn if tn < threads }} {
    {{ turn("x_" ~ j, stage * stage_size, "x_slot_" ~ j) }}
}
{% endfor %}
{% for j in range(d_loads) %}
{{ "if local >= " ~ d_first if tm < threads }} {
    {{ turn("d_" ~ j, stage * stage_size, "d_slot_" ~ j) }}
}
{% endfor %}
{% endmacro %}

// Channels of an odd eight are stored in another order, so that neighbours lie in different banks.
{% macro turn(name, at, slot) %}
{% for i in range(4) %}
{
    let low = vec4({% for k in range(4) %}{{ name }}_{{ k }}.low[{{ i }}]{{ ", " if k < 3 }}{% endfor %});
    let high = vec4({% for k in range(4) %}{{ name }}_{{ k }}.high[{{ i }}]{{ ", " if k < 3 }}{% endfor %});
    tile[{{ at + i * pitch }} + {{ slot }} + swapped] = select(low, high, is_odd);
    tile[{{ at + (4 + i) * pitch }} + {{ slot }} - swapped] = select(high, low, is_odd);
}
{% endfor %}
{% endmacro %}

{% macro load() %}
{% for k in range(4) %}
{
    let here = voxel + {{ k }};
    {% if not pointwise %}
    let inside = select(0u, taps_inside(position_{{ k }}), here < end);
    {% endif %}
    {% for j in range(x_loads) %}
    x_{{ j }}_{{ k }} = NOTHING;
    if {{ "here < end && c_" ~ j ~ " < vectors" if pointwise else "(inside & bits_" ~ j ~ ") == bits_" ~ j }}{{ " && local < " ~ tn if tn < threads }} {
        x_{{ j }}_{{ k }} = xs[here * vectors + c_{{ j }}];
    }
    {% endfor %}
    {% for j in range(d_loads) %}
    d_{{ j }}_{{ k }} = NOTHING;
    if here < end && c_d_{{ j }} < p.co / 8{{ " && local >= " ~ d_first if tm < threads }} {
        d_{{ j }}_{{ k }} = d_ys[here * (p.co / 8) + c_d_{{ j }}];
    }
    if workgroup.x == 0u {
        bias_{{ j }}[0] += vec4<f32>(d_{{ j }}_{{ k }}.low);
        bias_{{ j }}[1] += vec4<f32>(d_{{ j }}_{{ k }}.high);
    }
    {% endfor %}
    {% if not pointwise %}
    position_{{ k }} = moved(position_{{ k }}, step);
    {% endif %}
}
{% endfor %}
voxel += 32;
{% endmacro %}

@compute @workgroup_size({{ threads }})
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local_index: u32,
    {% if matrix_units %}
    @builtin(subgroup_id) subgroup_index: u32,
    @builtin(subgroup_invocation_id) lane_index: u32,
    {% endif %}
) {
    let local = i32(local_index);
    {{ place() }}
    let vectors = p.ci / 8;
    let columns = 2 * p.kernel.x * p.kernel.y * p.kernel.z * vectors + 1;
    let co_first = i32(workgroup.z) * {{ tm }};
    let start = i32(workgroup.y) * p.chunk;
    let end = min(p.count, start + p.chunk);

    // What this thread loads: eights of columns of x and of channels of d_y, at four voxels.
    let quad = local % 8;
    var voxel = start + 4 * quad;
    let is_odd = local / 8 % 2 == 1;
    let swapped = select(0, {{ 4 * pitch }}, is_odd);
    {% if not pointwise %}
    let half = p.kernel / 2;
    let step = position_of(32);
    {% for k in range(4) %}
    var position_{{ k }} = position_of(voxel + {{ k }});
    {% endfor %}
    {% endif %}
    {% for j in range(x_loads) %}
    let unit_{{ j }} = local / 8 + {{ j * threads // 8 }};
    let q_{{ j }} = i32(workgroup.x) * {{ tn // 8 }} + unit_{{ j }};
    {% if pointwise %}
    let c_{{ j }} = q_{{ j }};
    {% else %}
    let tap_{{ j }} = tap_of(q_{{ j }} / vectors);
    let bits_{{ j }} = bits_of(tap_{{ j }});
    let c_{{ j }} = distance(tap_{{ j }} - half) * vectors + q_{{ j }} % vectors;
    {% endif %}
    let x_slot_{{ j }} = ({{ tm }} + 8 * unit_{{ j }}) * {{ pitch }} + quad;
    {% for k in range(4) %}
    var x_{{ j }}_{{ k }} = NOTHING;
    {% endfor %}
    {% endfor %}
    {% for j in range(d_loads) %}
    let d_unit_{{ j }} = (local - {{ d_first }}) / 8 + {{ j * threads // 8 }};
    let c_d_{{ j }} = co_first / 8 + d_unit_{{ j }};
    let d_slot_{{ j }} = 8 * d_unit_{{ j }} * {{ pitch }} + quad;
    {% for k in range(4) %}
    var d_{{ j }}_{{ k }} = NOTHING;
    {% endfor %}
    var bias_{{ j }} = array<vec4<f32>, 2>();
    {% endfor %}
    {{ declare_sums() }}

    {
        {{ load() }}
        {{ put(0) }}
    }
    workgroupBarrier();
    for (var first = start; first < end; first += {{ 32 * stages }}) {
        {% for stage in range(stages) %}
        {% if stage %}
        if first + 32 >= end {
            break;
        }
        {% endif %}
        {
            {{ load() }}
            {{ multiply(stage) }}
            {% if stages == 1 %}
            workgroupBarrier();
            {% endif %}
            {{ put((stage + 1) % stages) }}
            workgroupBarrier();
        }
        {% endfor %}
    }
    let base = i32(workgroup.y) * p.co;
    {% for i in range(frag_rows) %}
    {% for j in range(frag_columns) %}
    {
        {{ spread("sum_" ~ i ~ "_" ~ j) }}
        let o = co_first + row + {{ 16 * i }} + lane / 2;
        let q = i32(workgroup.x) * {{ tn // 4 }} + column / 4 + {{ 4 * j }} + lane % 2 * 2;
        if o < p.co && q + 1 < columns {
            partial[(base + o) * columns + q] = sums[mine];
            partial[(base + o) * columns + q + 1] = sums[mine + 1];
        }
        workgroupBarrier();
    }
    {% endfor %}
    {% endfor %}
    // One thread of the eight that share channels adds up what they have.
    {% for j in range(d_loads) %}
    sums[2 * local] = bias_{{ j }}[0];
    sums[2 * local + 1] = bias_{{ j }}[1];
    workgroupBarrier();
    if workgroup.x == 0u && quad == 0 && c_d_{{ j }} < p.co / 8{{ " && local >= " ~ d_first if tm < threads }} {
        for (var other = local + 1; other < local + 8; other += 1) {
            bias_{{ j }}[0] += sums[2 * other];
            bias_{{ j }}[1] += sums[2 * other + 1];
        }
        for (var k = 0; k < 8; k += 1) {
            let o = base + 8 * c_d_{{ j }} + k;
            partial[(o + 1) * columns - 1] = vec4(bias_{{ j }}[k / 4][k % 4], 0.0, 0.0, 0.0);
        }
    }
    workgroupBarrier();
    {% endfor %}
}
{% endif %}
