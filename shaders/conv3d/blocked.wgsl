// Register-blocked kernels for CPU adapters. In the products a lane owns a block of voxels, in the weight gradient a few
// output channels. What all lanes need is loaded once per subgroup, a vec4 in each lane, and broadcast from there.
{% from "common/operands.wgsl" import buffer, entry_point, image, parameters %}

struct Parameters {
    size: vec3<i32>, // X, Y, Z; a linear layer has its rows along Z
    ci: i32,
    co: i32,
    kx: i32,
    ky: i32,
    count: i32,      // voxel blocks
    bias_at: i32,    // of the packed bias, in vec4
    chunk: i32,      // voxel blocks of a chunk
    co_first: i32,   // first block of output channels of this launch
    parts: i32,
    accumulate: u32,
    slope: f32,      // of the activation; 1 without one
    {% if padded is defined %}
    x_size: vec3<i32>, // X, Y, Z of x; those of y are above
    before: vec3<i32>, // voxels of padding before x
    {% endif %}
}

{{ parameters("p", "Parameters") }}

{% if entry is endingwith("pack") or entry is endingwith("transform") %}
{% include "conv3d/prepare.wgsl" %}
{% endif %}

{% if entry is endingwith("forward") or entry is endingwith("data") %}
{% from "conv3d/winograd.wgsl" import output %}
// One invocation: {{ by }} x {{ bz }} voxels along y and z, {{ cb }} output channels.
{% set products = winograd + taps_y - 1 if winograd else 1 %}
{% if winograd %}
// By Winograd's F({{ winograd }}, {{ taps_y }}), {{ winograd }} times as many voxels along y: {{ products }} sums of products with what `transform` and `pack` have made of
// x and the weight become {{ winograd }} rows.
const FACTORS = array<vec4<f32>, {{ products }}>(
    {% for factors in output[winograd ~ "x" ~ taps_y] %}
    vec4<f32>({{ factors | join(", ") }}),
    {% endfor %}
);
{{ image(1, "xs", "read") }}
{% else %}
{% include "conv3d/channels.wgsl" %}
{% endif %}
{% if direct %}
// A small layer is over before its weight could be rearranged.
{% set weight_binding, bias_binding = 2, 4 %}
{% include "conv3d/weight.wgsl" %}

fn weights_of(o: i32, c: i32) -> vec4<f32> {
    return vec4(
        weight_at(o, 4 * c, 0, 1), weight_at(o, 4 * c + 1, 0, 1), weight_at(o, 4 * c + 2, 0, 1), weight_at(o, 4 * c + 3, 0, 1));
}
{% else %}
{{ image(2, "weights", "read") }}
{% endif %}
{{ buffer(3, "ys", "vec4<" ~ element[3] ~ ">" if vout else element[3], index="i32") }}

{% set loaded = z_loaded if padded is defined else bz + 2 * halo %}
{% set before = z_before if padded is defined else kz // 2 %}
{% set x_size = "p.x_size" if padded is defined else "p.size" %}
{% set rows = winograd or by %}
{% set mask_binding = 4 %}
{% include "conv3d/mask.wgsl" %}
fn store(base: i32, c: i32, value: vec4<f32>) {
    {% if vout %}
    if 4 * c < p.co {
        store_ys(base + c, value{{ " * slopes(base + c)" if masked }});
    }
    {% else %}
    {% for k in range(4) %}
    if 4 * c + {{ k }} < p.co {
        store_ys(base + 4 * c + {{ k }}, value[{{ k }}]{{ " * slopes(base + 4 * c + " ~ k ~ ")" if masked }});
    }
    {% endfor %}
    {% endif %}
}

{{ entry_point(entry, invocations=threads, builtins={"subgroup_invocation_id": "subgroup_lane"} if lanes > 1 else {}) }}
    let index = i32(workgroup_index(workgroup, grid) * {{ threads }}u + local);
    // Lanes past the end repeat the last block, because the broadcasts need every lane.
    var rest = min(index, p.count - 1);
    let co_block = i32(workgroup.z);
    let ci_vectors = (p.ci + 3) / 4;
    let stride = {{ "ci_vectors" if vin else "p.ci" }};
    let out_stride = {{ "p.co / 4" if vout else "p.co" }};
    {% if pointwise %}
    let z0 = rest * {{ bz }};
    {% for z in range(bz) %}
    var at_0_{{ z }} = min(z0 + {{ z }}, p.size.z - 1) * stride;
    {% endfor %}
    {% else %}
    let z_blocks = (p.size.z + {{ bz - 1 }}) / {{ bz }};
    let y_blocks = (p.size.y + {{ rows - 1 }}) / {{ rows }};
    let z0 = (rest % z_blocks) * {{ bz }};
    rest = rest / z_blocks;
    let y_block = rest % y_blocks;
    let y0 = y_block * {{ rows }};
    rest = rest / y_blocks;
    let x0 = rest % p.size.x;
    {% if padded is defined %}
    let frame_number = rest / p.size.x;
    let frame = frame_number * p.x_size.x * p.x_size.y * p.x_size.z;
    let y_frame = frame_number * p.size.x * p.size.y * p.size.z;
    {% if winograd %}
    let plane = frame_number * p.x_size.x;
    {% endif %}
    {% else %}
    let plane = (rest / p.size.x) * p.size.x;
    let frame = plane * p.size.y * p.size.z;
    {% endif %}
    {% if winograd %}
    let plane_size = {{ products }} * y_blocks * {{ x_size }}.z;
    {% endif %}
    {% for z in range(loaded if zcheck else 0) %}
    let z_{{ z }} = z0 + {{ z - halo }};
    let z_inside_{{ z }} = z_{{ z }} >= 0 && z_{{ z }} < {{ x_size }}.z;
    let z_at_{{ z }} = clamp(z_{{ z }}, 0, {{ x_size }}.z - 1) * stride;
    {% endfor %}
    {% endif %}
    {% for v in range(rows * bz) %}
    {% for o in range(cb) %}
    var {{ "y" if winograd else "sum" }}_{{ v }}_{{ o }} = 0.0;
    {% endfor %}
    {% endfor %}
    {% if lanes > 1 %}
    let lane = i32(subgroup_lane) & {{ lanes - 1 }};
    {% endif %}
    {% if not direct %}
    var at = co_block * {{ cb * kz }} * p.kx * {{ products if winograd else "p.ky" }} * ci_vectors{{ " + lane" if lanes > 1 }};
    {% endif %}
    {% if winograd %}
    for (var r = 0; r < {{ products }}; r += 1) {
        {% for v in range(bz) %}
        {% for o in range(cb) %}
        var sum_{{ v }}_{{ o }} = 0.0;
        {% endfor %}
        {% endfor %}
    for (var kx = 0; kx < p.kx; kx += 1) {
        let x = x0 + kx - {{ "p.before.x" if padded is defined else "p.kx / 2" }};
        let inside_0 = x >= 0 && x < {{ x_size }}.x;
        let row = (plane + select(0, x, inside_0)) * plane_size + ({{ products }} * y_block + r) * {{ x_size }}.z;
        {% for z in range(loaded) %}
        var at_0_{{ z }} = row * stride + {{ "z_at_" ~ z if zcheck else "(z0 + " ~ z ~ ") * stride" }};
        {% endfor %}
    {% elif not pointwise %}
    for (var kx = 0; kx < p.kx; kx += 1) {
        let x = x0 + kx - {{ "p.before.x" if padded is defined else "p.kx / 2" }};
        let x_inside = x >= 0 && x < {{ x_size }}.x;
    for (var ky = 0; ky < p.ky; ky += 1) {
        {% for y in range(by) %}
        let y_{{ y }} = y0 + {{ y }} + ky - {{ "p.before.y" if padded is defined else "p.ky / 2" }};
        let inside_{{ y }} = x_inside && y_{{ y }} >= 0 && y_{{ y }} < {{ x_size }}.y;
        let row_{{ y }} = select(0, frame + (x * {{ x_size }}.y + y_{{ y }}) * {{ x_size }}.z, inside_{{ y }}) * stride;
        {% for z in range(loaded) %}
        {% if zcheck %}
        var at_{{ y }}_{{ z }} = row_{{ y }} + z_at_{{ z }};
        {% else %}
        var at_{{ y }}_{{ z }} = row_{{ y }} + (z0 + {{ z }}) * stride;
        {% endif %}
        {% endfor %}
        {% endfor %}
    {% endif %}
    for (var c = 0; c < ci_vectors; c += 1) {
        {% for y in range(by) %}
        {% for z in range(loaded) %}
        {% if pointwise %}
        let x_{{ y }}_{{ z }} = channels(at_{{ y }}_{{ z }}, c);
        {% else %}
        let x_{{ y }}_{{ z }} = select(vec4(0.0), {{ "load_xs(at_" ~ y ~ "_" ~ z ~ ")" if winograd else "channels(at_" ~ y ~ "_" ~ z ~ ", c)" }}, inside_{{ y }}{% if zcheck %} && z_inside_{{ z }}{% endif %});
        {% endif %}
        {% endfor %}
        {% endfor %}
        {% for y in range(by) %}
        {% for z in range(loaded) %}
        at_{{ y }}_{{ z }} += {{ 1 if vin else 4 }};
        {% endfor %}
        {% endfor %}
        {% for kz_tap in range(kz) %}
        {% for group in range(cb // lanes) %}
        {
            {% if direct %}
            let w = weights_of(co_block * {{ cb }} + {{ group * lanes }}{{ " + lane" if lanes > 1 }}, c);
            {% else %}
            let w = load_weights(at);
            at += {{ lanes }};
            {% endif %}
            {% for member in range(lanes) %}
            {% set o = group * lanes + member %}
            {
                let q = {% if lanes > 1 %}subgroupBroadcast(w, {{ member }}u){% else %}w{% endif %};
                {% for y in range(by) %}
                {% for z in range(bz) %}
                {% set from = z + kz_tap - before + halo %}
                {% if from >= 0 and from < loaded %}
                {% set v = "sum_" ~ (y * bz + z) ~ "_" ~ o %}
                {% set x = "x_" ~ y ~ "_" ~ from %}
                {{ v }} = fma({{ x }}.w, q.w, fma({{ x }}.z, q.z, fma({{ x }}.y, q.y, fma({{ x }}.x, q.x, {{ v }}))));
                {% endif %}
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
        {% endfor %}
        {% endfor %}
    }
    {% if winograd %}
    }
        let factors = FACTORS[r];
        {% for v in range(rows * bz) %}
        {% for o in range(cb) %}
        y_{{ v }}_{{ o }} = fma(factors.{{ "xyzw"[v // bz] }}, sum_{{ v % bz }}_{{ o }}, y_{{ v }}_{{ o }});
        {% endfor %}
        {% endfor %}
    }
    {% elif not pointwise %}
    }
    }
    {% endif %}
    if index < p.count {
        {% for k in range(cb // 4) %}
        let c_{{ k }} = co_block * {{ cb // 4 }} + {{ k }};
        {% if direct and bias %}
        let o_{{ k }} = min(4 * vec4(c_{{ k }}) + vec4(0, 1, 2, 3), vec4(p.co - 1));
        let bias_{{ k }} = vec4(load_bias(o_{{ k }}.x), load_bias(o_{{ k }}.y), load_bias(o_{{ k }}.z), load_bias(o_{{ k }}.w));
        {% elif not direct %}
        let bias_{{ k }} = load_weights(p.bias_at + c_{{ k }});
        {% endif %}
        {% endfor %}
        {% for y in range(rows) %}
        {% for z in range(bz) %}
        if {% if pointwise %}z0 + {{ z }} < p.size.z{% else %}y0 + {{ y }} < p.size.y{% if zcheck %} && z0 + {{ z }} < p.size.z{% endif %}{% endif %} {
            {% if pointwise %}
            let to = (z0 + {{ z }}) * out_stride;
            {% else %}
            let to = ({{ "y_frame" if padded is defined else "frame" }} + (x0 * p.size.y + y0 + {{ y }}) * p.size.z + z0 + {{ z }}) * out_stride;
            {% endif %}
            {% for k in range(cb // 4) %}
            {% set v = ("y_" if winograd else "sum_") ~ (y * bz + z) ~ "_" %}
            {
                var value = vec4({{ v ~ (4 * k) }}, {{ v ~ (4 * k + 1) }}, {{ v ~ (4 * k + 2) }}, {{ v ~ (4 * k + 3) }});
                {% if not direct or bias %}
                value += bias_{{ k }};
                {% endif %}
                store(to, c_{{ k }}, select(p.slope * value, value, value > vec4(0.0)));
            }
            {% endfor %}
        }
        {% endfor %}
        {% endfor %}
    }
}
{% endif %}

{% if entry is endingwith("backward_weight") or entry is endingwith("reduce_weight") %}
{% include "conv3d/gradient.wgsl" %}
{% endif %}
