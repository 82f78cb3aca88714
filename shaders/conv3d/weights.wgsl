// The weight before the products for GPUs, and the sum of its partial gradients after them.
{% from "common/operands.wgsl" import buffer, entry_point %}

{% if entry is endingwith("pack") %}
// The weight as a matrix {{ "[co, padded][taps * ci, padded], two values of f16 a word" if half else "[taps * ci, padded][co, padded]" }}, where ci is padded to {{ 8 if half else 4 }} and
// all taps to a whole step; then the bias in f32. Zero where padded, or without a bias.
// For Winograd's F(m, 3) along y there are m + 2 such matrices, of the taps along x and z, and no bias.
{% from "conv3d/winograd.wgsl" import taps, weighted %}
{% set weight_binding, bias_binding = 1, 3 %}
{% include "conv3d/weight.wgsl" %}
{{ buffer(2, "packed", "u32" if half else "f32", index="i32") }}

fn matrix(row: i32, o: i32) -> f32 {
    let padded = (p.ci + {{ 7 if half else 3 }}) / {{ 8 if half else 4 }} * {{ 8 if half else 4 }};
    return weight_at(o, row % padded, row / padded, p.kernel.x * p.kernel.y * p.kernel.z);
}

{{ entry_point(entry) }}
    let index = i32(invocation_index(workgroup, grid, local));
    if index >= p.count {
        return;
    }
    {% if winograd %}
    let o = index % p.co_padded;
    let padded = (p.ci + 3) / 4 * 4;
    let row = index / p.co_padded;
    // Of the first of the three taps; past the last one there are none.
    let across = row / padded;
    let tap = across / p.kernel.z * 3 * p.kernel.z + across % p.kernel.z;
    let all_taps = p.kernel.x * 3 * p.kernel.z;
    {% for y in range(3) %}
    let tap_{{ y }} = weight_at(o, row % padded, tap + {{ y }} * p.kernel.z, all_taps);
    {% endfor %}
    {% for factors in taps[winograd ~ "x3"] %}
    store_packed(index + {{ loop.index0 }} * p.count, {{ weighted(factors, "tap") }});
    {% endfor %}
    {% else %}
    if index < 4 * p.bias_at {
        {% if half %}
        let rows = 8 * p.bias_at / p.co_padded;
        let row = 2 * index % rows;
        let o = 2 * index / rows;
        store_packed(index, pack2x16float(vec2(matrix(row, o), matrix(row + 1, o))));
        {% else %}
        store_packed(index, matrix(index / p.co_padded, index % p.co_padded));
        {% endif %}
        return;
    }
    var value = 0.0;
    {% if bias %}
    let o = index - 4 * p.bias_at;
    if o < p.co {
        value = load_bias(o);
    }
    {% endif %}
    store_packed(index, {{ "bitcast<u32>(value)" if half else "value" }});
    {% endif %}
}
{% endif %}

{% if entry is endingwith("reduce_weight") %}
{% from "conv3d/winograd.wgsl" import gradient_output, weighted %}
{% set products = winograd + 2 if winograd else 1 %}
// Adds the chunks in a fixed order: a workgroup has {{ columns }} columns of four input channels, of which an invocation adds every
// {{ slices }}th chunk.
{% if winograd %}
// By Winograd's algorithm a chunk has {{ products }} products, which make three taps along y.
{% endif %}
{{ buffer(1, "partial", "vec4<f32>", index="i32") }}
{{ buffer(2, "d_weight", "f32", index="i32") }}
{% if bias %}
{{ buffer(3, "d_bias", "f32", index="i32") }}
{% endif %}

var<workgroup> sums: array<vec4<f32>, {{ columns * slices }}>;

{{ entry_point(entry, columns * slices, local="local_index") }}
    let local = i32(local_index);
    let index = i32(workgroup_index(workgroup, grid)) * {{ columns }} + local % {{ columns }};
    {% for product in range(products) %}
    var sum_{{ product }} = vec4(0.0);
    {% endfor %}
    if index < p.count {
        for (var part = local / {{ columns }}; part < p.parts; part += {{ slices }}) {
            {% for product in range(products) %}
            sum_{{ product }} += load_partial((part * {{ products }} + {{ product }}) * p.count + index);
            {% endfor %}
        }
    }
    {% for product in range(products) %}
    sums[local] = sum_{{ product }};
    workgroupBarrier();
    if local < {{ columns }} {
        for (var slice = 1; slice < {{ slices }}; slice += 1) {
            sum_{{ product }} += sums[slice * {{ columns }} + local];
        }
    }
    workgroupBarrier();
    {% endfor %}
    if local >= {{ columns }} || index >= p.count {
        return;
    }
    let vectors = (p.ci + 3) / 4;
    let taps = p.kernel.x * p.kernel.y * p.kernel.z;
    {% if winograd %}
    let row = taps / 3 * vectors + 1;
    {% else %}
    let row = taps * vectors + 1;
    {% endif %}
    let o = index / row;
    let q = index % row;
    if o >= p.co {
        return;
    }
    if q == row - 1 {
        {% if bias %}
        // The second product of Winograd's algorithm has the sum of four rows of d_y, divided by -6.
        store_d_bias(o, {{ "-6.0 * sum_1.x" if winograd else "sum_0.x" }} + select(0.0, load_d_bias(o), p.accumulate == 1u));
        {% endif %}
        return;
    }
    {% if winograd %}
    {% for factors in gradient_output["3"] %}
    let tap_{{ loop.index0 }} = {{ weighted(factors, "sum") }};
    {% endfor %}
    let across = q / vectors;
    let first = across / p.kernel.z * 3 * p.kernel.z + across % p.kernel.z;
    {% else %}
    let tap_0 = sum_0;
    let first = q / vectors;
    {% endif %}
    for (var k = 0; k < 4; k += 1) {
        let i = q % vectors * 4 + k;
        if i < p.ci {
            let at = (o * p.ci + i) * taps + first;
            {% for y in range(3 if winograd else 1) %}
            store_d_weight(at + {{ y }} * p.kernel.z, tap_{{ y }}[k] + select(0.0, load_d_weight(at + {{ y }} * p.kernel.z), p.accumulate == 1u));
            {% endfor %}
        }
    }
}
{% endif %}
