// What the products of the register-blocked family read, rearranged.
{% from "common/image.wgsl" import image %}
{% if entry is endingwith("pack") %}
// The weight in the order in which the forward kernel reads it: [co / cb][kx][ky][ci / 4][kz][cb][4], then the bias, both
// padded with zeros. For Winograd's F(2, 3), [co / cb][4][kx][ci / 4][kz][cb][4]: three taps along y become four.
{% set weight_binding, bias_binding = 1, 3 %}
{% include "conv3d/weight.wgsl" %}
{{ image("packed", 2, "write") }}

// Tap `tap` of four input channels for output `o`.
fn weights_at(o: i32, c: i32, tap: i32, taps: i32) -> vec4<f32> {
    return vec4(
        weight_at(o, 4 * c, tap, taps), weight_at(o, 4 * c + 1, tap, taps),
        weight_at(o, 4 * c + 2, tap, taps), weight_at(o, 4 * c + 3, tap, taps));
}

@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = i32(invocation_index(workgroup, grid, local));
    let within = index % {{ cb }};
    let vectors = (p.ci + 3) / 4;
    let c = index / {{ cb }} % vectors;
    let block = index / ({{ cb }} * vectors);
    let o = block * {{ cb }} + within;
    if block >= p.count {
        return;
    }
    let taps = p.kx * p.ky * {{ kz }};
    {% if winograd %}
    for (var kx = 0; kx < p.kx; kx += 1) {
        {% for z in range(kz) %}
        {
            let tap = kx * p.ky * {{ kz }} + {{ z }};
            let first = weights_at(o, c, tap, taps);
            let second = weights_at(o, c, tap + {{ kz }}, taps);
            let third = weights_at(o, c, tap + {{ 2 * kz }}, taps);
            let to = (((block * 4 * p.kx + kx) * vectors + c) * {{ kz }} + {{ z }}) * {{ cb }} + within;
            let next = p.kx * vectors * {{ kz * cb }};
            store_packed(to, first);
            store_packed(to + next, 0.5 * (first + second + third));
            store_packed(to + 2 * next, 0.5 * (first - second + third));
            store_packed(to + 3 * next, third);
        }
        {% endfor %}
    }
    {% else %}
    for (var k = 0; k < p.kx * p.ky; k += 1) {
        {% for z in range(kz) %}
        {
            let to = (((block * p.kx * p.ky + k) * vectors + c) * {{ kz }} + {{ z }}) * {{ cb }} + within;
            store_packed(to, weights_at(o, c, k * {{ kz }} + {{ z }}, taps));
        }
        {% endfor %}
    }
    {% endif %}
    {% if bias %}
    if c == 0 && within % 4 == 0 {
        var b = vec4(0.0);
        for (var k = 0; k < 4; k += 1) {
            if o + k < p.co {
                b[k] = bias[o + k];
            }
        }
        store_packed(p.bias_at + o / 4, b);
    }
    {% endif %}
}
{% endif %}

{% if entry is endingwith("transform") %}
// x as Winograd's F(2, 3) along y needs it: of the four rows around two, [N][X][Y / 2][4][Z][ci / 4][4], padded with zeros.
{% include "conv3d/channels.wgsl" %}
{{ image("transformed", 2, "write") }}

// One invocation: two voxels along y, all channels.
@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = i32(invocation_index(workgroup, grid, local));
    if index >= p.count {
        return;
    }
    let y_blocks = (p.size.y + 1) / 2;
    let z = index % p.size.z;
    let column = index / p.size.z;
    let y_block = column % y_blocks;
    let plane = column / y_blocks;
    let ci_vectors = (p.ci + 3) / 4;
    let stride = {{ "ci_vectors" if vin else "p.ci" }};
    {% for row in range(4) %}
    let y_{{ row }} = 2 * y_block + {{ row - 1 }};
    let inside_{{ row }} = y_{{ row }} >= 0 && y_{{ row }} < p.size.y;
    let at_{{ row }} = ((plane * p.size.y + select(0, y_{{ row }}, inside_{{ row }})) * p.size.z + z) * stride;
    {% endfor %}
    let row_stride = p.size.z * ci_vectors;
    let to = (column * 4 * p.size.z + z) * ci_vectors;
    for (var c = 0; c < ci_vectors; c += 1) {
        {% for row in range(4) %}
        let d_{{ row }} = select(vec4(0.0), channels(at_{{ row }}{{ " + c" if vin else " + 4 * c" }}, c), inside_{{ row }});
        {% endfor %}
        store_transformed(to + c, d_0 - d_2);
        store_transformed(to + c + row_stride, d_1 + d_2);
        store_transformed(to + c + 2 * row_stride, d_2 - d_1);
        store_transformed(to + c + 3 * row_stride, d_1 - d_3);
    }
}
{% endif %}
