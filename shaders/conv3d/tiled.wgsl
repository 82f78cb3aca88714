// Workgroup-tiled kernels for GPUs: implicit matrix products whose inner dimension (of the forward product; the columns of the
// weight gradient) is (tap, channel) flattened in vec4: q = tap * ci / 4 + c. No division is in any inner loop: (tap, c), and
// the position of a voxel, are carried from one step to the next.
{% from "common/operands.wgsl" import buffer, entry_point %}

{{ buffer(1, "xs", "vec4<" ~ element[1] ~ ">" if vin else element[1], index="i32") }}

// Channels 4c.. of x at `voxel`, zero past the end.
fn channels(voxel: i32, c: i32) -> vec4<f32> {
    {% if vin %}
    return load_xs(voxel * (p.ci / 4) + c);
    {% else %}
    let k = vec4(4 * c) + vec4(0, 1, 2, 3);
    let at = voxel * p.ci + min(k, vec4(p.ci - 1));
    return select(vec4(0.0), vec4(load_xs(at.x), load_xs(at.y), load_xs(at.z), load_xs(at.w)), k < vec4(p.ci));
    {% endif %}
}

// One of a workgroup's threads, in an array of threads over its tile: 32 lanes that run together share few rows and columns.
{% set across = tn // rn %}
{% set lanes_across = [8, across] | min %}
fn thread_column(local: i32) -> i32 {
    return local % {{ lanes_across }} + local / 32 % {{ across // lanes_across }} * {{ lanes_across }};
}

fn thread_row(local: i32) -> i32 {
    return local % 32 / {{ lanes_across }} + local / {{ 32 * across // lanes_across }} * {{ 32 // lanes_across }};
}

{% if entry is endingwith("forward") or entry is endingwith("data") %}
// A tile of {{ tm }} voxels x {{ tn }} output channels a workgroup, {{ rm }} x {{ rn }} of them a thread, 16 of the inner
// dimension a step.
{% if winograd %}
// By Winograd's algorithm x, the weight and the results are those of {{ winograd + 2 }} products, one behind the other.
{% endif %}
{% set down = tm // rm %}
{% set threads = down * across %}
{% set loads = tm * 4 // threads %}
{% set w_loads = (tn * 4 + threads - 1) // threads %}
{% set vectors_out = rn // 4 %}
{{ buffer(2, "weights", "vec4<f32>", index="i32") }}
{% set y_binding, mask_binding = 3, 4 %}
{% include "conv3d/store.wgsl" %}

// Four vectors of channels a voxel, in an order that depends on the voxel, so that neighbours lie in different banks.
var<workgroup> tile_x: array<vec4<f32>, {{ tm * 4 }}>;
var<workgroup> tile_w: array<vec4<f32>, {{ tn * 4 }}>;

fn bank(row: i32, vector: i32) -> i32 {
    return vector ^ (row / 2 % 4);
}

{% macro load() %}
{% if not pointwise %}
let bits = tap_bits(tap);
let shift = distance(tap - half);
{% endif %}
{% for j in range(loads) %}
x_{{ j }} = vec4(0.0);
{% if pointwise %}
if c < vectors {
    x_{{ j }} = channels(voxel_{{ j }}, c);
}
{% else %}
if (taps_{{ j }} & bits) == bits {
    x_{{ j }} = channels({{ "x_voxel" if padded is defined else "voxel" }}_{{ j }} + shift, c);
}
{% endif %}
{% endfor %}
{% for j in range(w_loads) %}
{% if tn * 4 % threads == 0 %}
w_{{ j }} = load_weights(w_at + {{ j * threads // (tn // 4) }} * co_vectors);
{% else %}
if local < {{ tn * 4 }} {
    w_{{ j }} = load_weights(w_at);
}
{% endif %}
{% endfor %}
w_at += 16 * co_vectors;
c += 4;
{% if not pointwise %}
while c >= vectors {
    c -= vectors;
    tap = next_tap(tap);
}
{% endif %}
{% endmacro %}

{{ entry_point(entry, threads, local="local_index") }}
    let local = i32(local_index);
    let first = i32(workgroup_index(workgroup, grid)) * {{ tm }};
    {% if winograd %}
    let co_blocks = p.co_padded / {{ tn }};
    let co_first = i32(workgroup.z) % co_blocks * {{ tn // 4 }};
    let number = i32(workgroup.z) / co_blocks;
    {% else %}
    let co_first = i32(workgroup.z) * {{ tn // 4 }};
    {% endif %}
    let co_vectors = p.co_padded / 4;
    let vectors = (p.ci + 3) / 4;
    let column = thread_column(local);
    let row = thread_row(local);

    // What this thread loads: a vector of channels of some voxels, and of some rows of the weight.
    var c = local % 4;
    {% for j in range(loads) %}
    let load_row_{{ j }} = local / 4 + {{ j * threads // 4 }};
    let slot_{{ j }} = load_row_{{ j }} * 4 + bank(load_row_{{ j }}, local % 4);
    let voxel_{{ j }} = min(first + load_row_{{ j }}, p.count - 1){{ " + number * p.count" if winograd }};
    {% if not pointwise %}
    let taps_{{ j }} = taps_inside(position_of(voxel_{{ j }}));
    {% if padded is defined %}
    let x_voxel_{{ j }} = x_voxel(position_of(voxel_{{ j }}));
    {% endif %}
    {% endif %}
    var x_{{ j }} = vec4(0.0);
    {% endfor %}
    var w_at = local / {{ tn // 4 }} * co_vectors + co_first + local % {{ tn // 4 }}{{ " + number * p.bias_at" if winograd }};
    {% for j in range(w_loads) %}
    var w_{{ j }} = vec4(0.0);
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
    {% for r in range(rm) %}
    {% for n in range(vectors_out) %}
    var sum_{{ r }}_{{ n }} = vec4(0.0);
    {% endfor %}
    {% endfor %}

    for (var q = 0; q < inner; q += 4) {
        {{ load() }}
        {% for j in range(loads) %}
        tile_x[slot_{{ j }}] = x_{{ j }};
        {% endfor %}
        {% for j in range(w_loads) %}
        {% if tn * 4 % threads == 0 %}
        tile_w[local + {{ j * threads }}] = w_{{ j }};
        {% else %}
        if local < {{ tn * 4 }} {
            tile_w[local] = w_{{ j }};
        }
        {% endif %}
        {% endfor %}
        workgroupBarrier();
        for (var k = 0; k < 4; k += 1) {
            {% for s in range(4) %}
            {% for n in range(vectors_out) %}
            let w_{{ s }}_{{ n }} = tile_w[(4 * k + {{ s }}) * {{ tn // 4 }} + column + {{ n * across }}];
            {% endfor %}
            {% endfor %}
            // Rows {{ down }} apart, a multiple of 8, have the same order of banks.
            let at = row * 4 + bank(row, k);
            {% for r in range(rm) %}
            {
                let x = tile_x[at + {{ r * down * 4 }}];
                {% for s in range(4) %}
                {% for n in range(vectors_out) %}
                sum_{{ r }}_{{ n }} = fma(vec4(x.{{ "xyzw"[s] }}), w_{{ s }}_{{ n }}, sum_{{ r }}_{{ n }});
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
        workgroupBarrier();
    }
    {% for n in range(vectors_out) %}
    {
        let c_out = co_first + column + {{ n * across }};
        {% if winograd %}
        {% for r in range(rm) %}
        if first + row + {{ r * down }} < p.count && 4 * c_out < p.co {
            store_ys((number * p.count + first + row + {{ r * down }}) * (p.co / 4) + c_out, sum_{{ r }}_{{ n }});
        }
        {% endfor %}
        {% else %}
        let bias = load_weights(p.bias_at + c_out);
        {% for r in range(rm) %}
        store(first + row + {{ r * down }}, c_out, sum_{{ r }}_{{ n }} + bias);
        {% endfor %}
        {% endif %}
    }
    {% endfor %}
}
{% endif %}

{% if entry is endingwith("backward_weight") %}
// A tile of {{ tm }} output channels x {{ tn // 4 }} columns q a workgroup, {{ rm }} x {{ rn // 4 }} of them a thread, 16 voxels
// a step, one chunk of voxels. Partial results are [chunk][co][column], a vec4 of input channels each; the column past the last one is
// the bias, which the workgroups of the first columns sum while they load d_y.
{% if winograd %}
// By Winograd's algorithm x and d_y are the operands of {{ winograd + 2 }} products, one behind the other, and results are
// [chunk][product][co][column].
{% endif %}
{% set tq = tn // 4 %}
{% set rq = rn // 4 %}
{% set down = tm // rm %}
{% set threads = down * across %}
{% set loads = 16 * tq // threads %}
{% set d_loads = (4 * tm + threads - 1) // threads %}
{% set d_threads = [threads, 4 * tm] | min %}
{{ buffer(2, "d_ys", "vec4<" ~ element[2] ~ ">" if vout else element[2], index="i32") }}
{{ buffer(3, "partial", "vec4<f32>", index="i32") }}

var<workgroup> tile_x: array<vec4<f32>, {{ 16 * tq }}>;
var<workgroup> tile_d: array<vec4<f32>, {{ 4 * tm }}>;

// Channels 4c.. of d_y at `voxel`; what is past the end is not used.
fn d_y_channels(voxel: i32, c: i32) -> vec4<f32> {
    {% if vout %}
    return load_d_ys(voxel * (p.co / 4) + min(c, p.co / 4 - 1));
    {% else %}
    let at = voxel * p.co + min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.co - 1));
    return vec4(load_d_ys(at.x), load_d_ys(at.y), load_d_ys(at.z), load_d_ys(at.w));
    {% endif %}
}

{% macro load() %}
{% for j in range(loads) %}
x_{{ j }} = vec4(0.0);
{% if padded is defined %}
if voxel_{{ j }} < end && tap.x + half.x < p.kernel.x && inside(position_{{ j }}.xyz + tap) {
    x_{{ j }} = channels(x_voxel(position_{{ j }}) + offset, c);
}
{% else %}
if voxel_{{ j }} < end && {{ "c < vectors" if pointwise else "tap.x <= half.x && inside(position_" ~ j ~ " + tap)" }} {
    x_{{ j }} = channels(base + voxel_{{ j }}{{ " + offset" if not pointwise }}, c);
}
{% endif %}
{% endfor %}
{% for j in range(d_loads) %}
d_{{ j }} = vec4(0.0);
if d_voxel_{{ j }} < end{{ " && local < " ~ 4 * tm if 4 * tm < threads }} {
    d_{{ j }} = d_y_channels(base + d_voxel_{{ j }}, co_first + local % {{ tm // 4 }});
}
bias += d_{{ j }};
{% endfor %}
{% for j in range(loads) %}
voxel_{{ j }} += 16;
{% if not pointwise %}
position_{{ j }} = moved(position_{{ j }}, step);
{% endif %}
{% endfor %}
{% for j in range(d_loads) %}
d_voxel_{{ j }} += 16;
{% endfor %}
{% endmacro %}

{{ entry_point(entry, threads, local="local_index") }}
    let local = i32(local_index);
    let vectors = (p.ci + 3) / 4;
    let columns = p.kernel.x * p.kernel.y * p.kernel.z * vectors + 1;
    let column = thread_column(local);
    let row = thread_row(local);
    {% if winograd %}
    let co_blocks = (p.co + {{ tm - 1 }}) / {{ tm }};
    let co_first = i32(workgroup.z) % co_blocks * {{ tm // 4 }};
    let number = i32(workgroup.z) / co_blocks;
    let part = i32(workgroup.y) * {{ winograd + 2 }} + number;
    let base = number * p.count;
    {% else %}
    let co_first = i32(workgroup.z) * {{ tm // 4 }};
    let part = i32(workgroup.y);
    let base = 0;
    {% endif %}
    let start = i32(workgroup.y) * p.chunk;
    let end = min(p.count, start + p.chunk);

    // What this thread loads: one column of x at some voxels, and a vector of channels of d_y at some.
    let load_q = i32(workgroup.x) * {{ tq }} + local % {{ tq }};
    {% if pointwise %}
    let c = load_q;
    {% else %}
    let c = load_q % vectors;
    let half = {{ "p.before" if padded is defined else "p.kernel / 2" }};
    let tap = tap_of(load_q / vectors) - half;
    let offset = distance(tap);
    let step = position_of(16);
    {% endif %}
    {% for j in range(loads) %}
    var voxel_{{ j }} = start + local / {{ tq }} + {{ j * threads // tq }};
    {% if not pointwise %}
    var position_{{ j }} = position_of(voxel_{{ j }});
    {% endif %}
    var x_{{ j }} = vec4(0.0);
    {% endfor %}
    {% for j in range(d_loads) %}
    var d_voxel_{{ j }} = start + local / {{ tm // 4 }} + {{ j * threads // (tm // 4) }};
    var d_{{ j }} = vec4(0.0);
    {% endfor %}
    var bias = vec4(0.0);
    {% for r in range(rm) %}
    {% for n in range(rq) %}
    var sum_{{ r }}_{{ n }} = vec4(0.0);
    {% endfor %}
    {% endfor %}

    for (var first = start; first < end; first += 16) {
        {{ load() }}
        {% for j in range(loads) %}
        tile_x[local + {{ j * threads }}] = x_{{ j }};
        {% endfor %}
        {% for j in range(d_loads) %}
        {% if 4 * tm < threads %}
        if local < {{ 4 * tm }} {
            tile_d[local] = d_{{ j }};
        }
        {% else %}
        tile_d[local + {{ j * threads }}] = d_{{ j }};
        {% endif %}
        {% endfor %}
        workgroupBarrier();
        for (var k = 0; k < 16; k += 1) {
            {% for n in range(rq) %}
            let x_{{ n }}_k = tile_x[k * {{ tq }} + column + {{ n * across }}];
            {% endfor %}
            {% for m in range(rm // 4) %}
            {
                let d = tile_d[k * {{ tm // 4 }} + row + {{ m * down }}];
                {% for s in range(4) %}
                {% for n in range(rq) %}
                sum_{{ 4 * m + s }}_{{ n }} = fma(vec4(d.{{ "xyzw"[s] }}), x_{{ n }}_k, sum_{{ 4 * m + s }}_{{ n }});
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
        workgroupBarrier();
    }
    {% for r in range(rm) %}
    {
        let o = 4 * (co_first + row + {{ r // 4 * down }}) + {{ r % 4 }};
        {% for n in range(rq) %}
        {
            let q = i32(workgroup.x) * {{ tq }} + column + {{ n * across }};
            if o < p.co && q + 1 < columns {
                store_partial((part * p.co + o) * columns + q, sum_{{ r }}_{{ n }});
            }
        }
        {% endfor %}
    }
    {% endfor %}
    if local < {{ d_threads }} {
        tile_d[local] = bias;
    }
    workgroupBarrier();
    let c_out = co_first + local;
    if workgroup.x == 0u && local < {{ tm // 4 }} && 4 * c_out < p.co {
        for (var other = local + {{ tm // 4 }}; other < {{ d_threads }}; other += {{ tm // 4 }}) {
            bias += tile_d[other];
        }
        for (var k = 0; k < min(4, p.co - 4 * c_out); k += 1) {
            store_partial((part * p.co + 4 * c_out + k + 1) * columns - 1, vec4(bias[k], 0.0, 0.0, 0.0));
        }
    }
}
{% endif %}
