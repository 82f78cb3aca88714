// Winograd's F(m, 3) along y for GPUs: what the products are of, and what they make. An invocation has {{ winograd }} voxels along
// y, four channels.
{% from "common/operands.wgsl" import buffer, entry_point %}
{% from "conv3d/winograd.wgsl" import gradient, input, output, weighted %}
{% set inverse = entry is endingwith("inverse_transform") %}
{% if inverse %}
// The products, [m + 2][N][X][Y / m][Z][co / 4][4], to y.
{{ buffer(1, "products", "vec4<f32>", index="i32") }}
{% set y_binding, mask_binding = 2, 3 %}
{% include "conv3d/store.wgsl" %}
{% if bias %}
{{ buffer(3, "bias", "f32", index="i32") }}
{% endif %}
{% else %}
// x to [m + 2][N][X][Y / m][Z][ci / 4][4], padded with zeros; or d_y, as F(3, 4) needs it for the weight gradient.
{% set before, rows, matrix = (0, 4, gradient["3"]) if of_gradient else (1, winograd + 2, input[winograd ~ "x3"]) %}
{% include "conv3d/channels.wgsl" %}
{{ buffer(2, "transformed", "vec4<f32>", index="i32") }}
{% endif %}

{{ entry_point(entry) }}
    let index = i32(invocation_index(workgroup, grid, local));
    let vectors = (p.{{ "co" if inverse else "ci" }} + 3) / 4;
    let y_tiles = (p.size.y + {{ winograd - 1 }}) / {{ winograd }};
    let each = p.count / p.size.y * y_tiles * vectors;
    if index >= each {
        return;
    }
    let c = index % vectors;
    let z = index / vectors % p.size.z;
    let column = index / (vectors * p.size.z);
    let y = column % y_tiles * {{ winograd }};
    let first = (column / y_tiles * p.size.y + y) * p.size.z + z;
    {% if inverse %}
    {% for factors in output[winograd ~ "x3"] %}
    let product_{{ loop.index0 }} = load_products(index + {{ loop.index0 }} * each);
    {% endfor %}
    {% if bias %}
    let o = min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.co - 1));
    let added = vec4(load_bias(o.x), load_bias(o.y), load_bias(o.z), load_bias(o.w));
    {% endif %}
    {% for row in range(winograd) %}
    if y + {{ row }} < p.size.y {
        store(first + {{ row }} * p.size.z, c, {{ weighted(output[winograd ~ "x3"] | map(attribute=row) | list, "product") }}{{ " + added" if bias }});
    }
    {% endfor %}
    {% else %}
    {% for row in range(rows) %}
    let y_{{ row }} = y + {{ row - before }};
    var d_{{ row }} = vec4(0.0);
    if y_{{ row }} >= 0 && y_{{ row }} < p.size.y {
        let voxel = first + {{ row - before }} * p.size.z;
        d_{{ row }} = channels({{ "voxel * vectors + c" if vin else "voxel * p.ci + 4 * c" }}, c);
    }
    {% endfor %}
    {% for factors in matrix %}
    store_transformed(index + {{ loop.index0 }} * each, {{ weighted(factors, "d") }});
    {% endfor %}
    {% endif %}
}
