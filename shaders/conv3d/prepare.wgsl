// What the products of the register-blocked family read, rearranged.
{% from "common/operands.wgsl" import entry_point, image %}
{% from "conv3d/winograd.wgsl" import gradient, input, taps, weighted %}
{% include "common/divide.wgsl" %}
{% if entry is endingwith("pack") %}
// The weight in the order in which the forward kernel reads it: [co / cb][kx][ky][ci / 4][kz][cb][4], then the bias, both
// padded with zeros. For Winograd's F(m, r), [co / cb][m + r - 1][kx][ci / 4][kz][cb][4]: r taps along y become m + r - 1.
{% set weight_binding, bias_binding = 1, 3 %}
{% include "conv3d/weight.wgsl" %}
{{ image(2, "packed", "write") }}

// Tap `tap` of four input channels for output `o`.
fn weights_at(o: i32, c: i32, tap: i32, taps: i32) -> vec4<f32> {
    return vec4(
        weight_at(o, 4 * c, tap, taps), weight_at(o, 4 * c + 1, tap, taps),
        weight_at(o, 4 * c + 2, tap, taps), weight_at(o, 4 * c + 3, tap, taps));
}

{{ entry_point(entry) }}
    let index = i32(invocation_index(workgroup, grid, local));
    let vectors = (p.ci + 3) / 4;
    let within = index % {{ cb }};
    let block = divided(index / {{ cb }}, vectors);
    let c = index / {{ cb }} - block * vectors;
    let o = block * {{ cb }} + within;
    if block >= p.count {
        return;
    }
    let taps = p.kx * p.ky * {{ kz }};
    {% if winograd %}
    for (var kx = 0; kx < p.kx; kx += 1) {
        for (var z = 0; z < {{ kz }}; z += 1) {
            let tap = kx * p.ky * {{ kz }} + z;
            {% for y in range(taps_y) %}
            let tap_{{ y }} = weights_at(o, c, tap + {{ y * kz }}, taps);
            {% endfor %}
            let to = (((block * {{ winograd + taps_y - 1 }} * p.kx + kx) * vectors + c) * {{ kz }} + z) * {{ cb }} + within;
            let next = p.kx * vectors * {{ kz * cb }};
            {% for factors in taps[winograd ~ "x" ~ taps_y] %}
            store_packed(to + {{ loop.index0 }} * next, {{ weighted(factors, "tap") }});
            {% endfor %}
        }
    }
    {% else %}
    for (var k = 0; k < p.kx * p.ky; k += 1) {
        for (var z = 0; z < {{ kz }}; z += 1) {
            let to = (((block * p.kx * p.ky + k) * vectors + c) * {{ kz }} + z) * {{ cb }} + within;
            store_packed(to, weights_at(o, c, k * {{ kz }} + z, taps));
        }
    }
    {% endif %}
    if c == 0 && within % 4 == 0 {
        // What changes no number where there is no bias, so that one kernel serves layers with and without.
        var b = vec4(-0.0);
        {% if bias %}
        for (var k = 0; k < 4; k += 1) {
            if o + k < p.co {
                b[k] = load_bias(o + k);
            }
        }
        {% endif %}
        store_packed(p.bias_at + o / 4, b);
    }
}
{% endif %}

{% if entry is endingwith("transform") %}
// x as Winograd's F(m, r) along y needs it: of the m + r - 1 rows around m, [N][X][Y / m][m + r - 1][Z][ci / 4][4], padded with
// zeros; or d_y as F(r, 4) needs it for the weight gradient: of four rows the same.
{% set products = winograd + taps_y - 1 %}
{% set rows, matrix = (4, gradient[taps_y ~ ""]) if of_gradient else (products, input[winograd ~ "x" ~ taps_y]) %}
{% set before = "0" if of_gradient else "p.before.y" if padded is defined else taps_y // 2 %}
{% set x_size = "p.x_size" if padded is defined else "p.size" %}
{% include "conv3d/channels.wgsl" %}
{{ image(2, "transformed", "write") }}

// One invocation: {{ winograd }} voxels along y, all channels.
{{ entry_point(entry) }}
    let index = i32(invocation_index(workgroup, grid, local));
    if index >= p.count {
        return;
    }
    let y_blocks = ({{ x_size if of_gradient else "p.size" }}.y + {{ winograd - 1 }}) / {{ winograd }};
    let column = divided(index, {{ x_size }}.z);
    let z = index - column * {{ x_size }}.z;
    let plane = divided(column, y_blocks);
    let y_block = column - plane * y_blocks;
    let ci_vectors = (p.ci + 3) / 4;
    let stride = {{ "ci_vectors" if vin else "p.ci" }};
    {% for row in range(rows) %}
    let y_{{ row }} = {{ winograd }} * y_block + {{ row }} - {{ before }};
    let inside_{{ row }} = y_{{ row }} >= 0 && y_{{ row }} < {{ x_size }}.y;
    let at_{{ row }} = ((plane * {{ x_size }}.y + select(0, y_{{ row }}, inside_{{ row }})) * {{ x_size }}.z + z) * stride;
    {% endfor %}
    let row_stride = {{ x_size }}.z * ci_vectors;
    let to = (column * {{ products }} * {{ x_size }}.z + z) * ci_vectors;
    for (var c = 0; c < ci_vectors; c += 1) {
        {% for row in range(rows) %}
        let d_{{ row }} = select(vec4(0.0), channels(at_{{ row }}{{ " + c" if vin else " + 4 * c" }}, c), inside_{{ row }});
        {% endfor %}
        {% for factors in matrix %}
        store_transformed(to + c + {{ loop.index0 }} * row_stride, {{ weighted(factors, "d") }});
        {% endfor %}
    }
}
{% endif %}
