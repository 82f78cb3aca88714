// Winograd's F(m, 3) along y for GPUs: what the products are of, and what they make. An invocation has {{ winograd }} voxels along
// y, four channels.
{% from "conv3d/winograd.wgsl" import gradient, input, output, weighted %}
{% set inverse = entry is endingwith("inverse_transform") %}
{% if inverse %}
// The products, [m + 2][N][X][Y / m][Z][co / 4][4], to y.
@group(0) @binding(1) var<storage, read_write> products: array<vec4<f32>>;
{% set y_binding, mask_binding = 2, 3 %}
{% include "conv3d/store.wgsl" %}
{% if bias %}
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
{% endif %}
{% else %}
// x to [m + 2][N][X][Y / m][Z][ci / 4][4], padded with zeros; or d_y, as F(3, 4) needs it for the weight gradient.
{% set before, rows, matrix = (0, 4, gradient["3"]) if of_gradient else (1, winograd + 2, input[winograd ~ "x3"]) %}
{% include "conv3d/channels.wgsl" %}
@group(0) @binding(2) var<storage, read_write> transformed: array<vec4<f32>>;
{% endif %}

@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
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
    let product_{{ loop.index0 }} = products[index + {{ loop.index0 }} * each];
    {% endfor %}
    {% if bias %}
    let o = min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.co - 1));
    let added = vec4(bias[o.x], bias[o.y], bias[o.z], bias[o.w]);
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
    transformed[index + {{ loop.index0 }} * each] = {{ weighted(factors, "d") }};
    {% endfor %}
    {% endif %}
}
