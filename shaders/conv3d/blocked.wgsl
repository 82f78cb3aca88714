// Register-blocked kernels for CPU adapters. In the products a lane owns a block of voxels, in the weight gradient a few
// output channels. What all lanes need is loaded once per subgroup, a vec4 in each lane, and broadcast from there.

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
}

@group(0) @binding(0) var<uniform> p: Parameters;

{% if entry is endingwith("pack") or entry is endingwith("transform") %}
{% include "conv3d/prepare.wgsl" %}
{% endif %}

{% if entry is endingwith("forward") or entry is endingwith("data") %}
{% from "common/image.wgsl" import image %}
// One invocation: {{ by }} x {{ bz }} voxels along y and z, {{ cb }} output channels.
{% if winograd %}
// By Winograd's F(2, 3), twice as many voxels along y: four sums of products with what `transform` and `pack` have made of x and
// the weight, r = 0..3, become two rows.
{% endif %}
{% if winograd %}
{{ image("xs", 1, "read") }}
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
{{ image("weights", 2, "read") }}
{% endif %}
@group(0) @binding(3) var<storage, read_write> ys: array<{{ "vec4<" ~ element[3] ~ ">" if vout else element[3] }}>;

{% set loaded = bz + 2 * halo %}
{% set rows = 2 if winograd else by %}
{% set mask_binding = 4 %}
{% include "conv3d/mask.wgsl" %}
fn store(base: i32, c: i32, value: vec4<f32>) {
    {% if vout %}
    if 4 * c < p.co {
        ys[base + c] = vec4<{{ element[3] }}>(value{{ " * slopes(base + c)" if masked }});
    }
    {% else %}
    {% for k in range(4) %}
    if 4 * c + {{ k }} < p.co {
        ys[base + 4 * c + {{ k }}] = {{ element[3] }}(value[{{ k }}]{{ " * slopes(base + 4 * c + " ~ k ~ ")" if masked }});
    }
    {% endfor %}
    {% endif %}
}

@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    {% if lanes > 1 %}
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    {% endif %}
) {
    let index = i32(invocation_index(workgroup, grid, local));
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
    let plane = (rest / p.size.x) * p.size.x;
    let frame = plane * p.size.y * p.size.z;
    {% if winograd %}
    let plane_size = 4 * y_blocks * p.size.z;
    {% endif %}
    {% for z in range(loaded if zcheck else 0) %}
    let z_{{ z }} = z0 + {{ z - halo }};
    let z_inside_{{ z }} = z_{{ z }} >= 0 && z_{{ z }} < p.size.z;
    let z_at_{{ z }} = clamp(z_{{ z }}, 0, p.size.z - 1) * stride;
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
    var at = co_block * {{ cb * kz }} * p.kx * {{ "4" if winograd else "p.ky" }} * ci_vectors{{ " + lane" if lanes > 1 }};
    {% endif %}
    {% if winograd %}
    for (var r = 0; r < 4; r += 1) {
        {% for v in range(bz) %}
        {% for o in range(cb) %}
        var sum_{{ v }}_{{ o }} = 0.0;
        {% endfor %}
        {% endfor %}
    for (var kx = 0; kx < p.kx; kx += 1) {
        let x = x0 + kx - p.kx / 2;
        let inside_0 = x >= 0 && x < p.size.x;
        let row = (plane + select(0, x, inside_0)) * plane_size + (4 * y_block + r) * p.size.z;
        {% for z in range(loaded) %}
        var at_0_{{ z }} = row * stride + {{ "z_at_" ~ z if zcheck else "(z0 + " ~ z ~ ") * stride" }};
        {% endfor %}
    {% elif not pointwise %}
    for (var kx = 0; kx < p.kx; kx += 1) {
        let x = x0 + kx - p.kx / 2;
        let x_inside = x >= 0 && x < p.size.x;
    for (var ky = 0; ky < p.ky; ky += 1) {
        {% for y in range(by) %}
        let y_{{ y }} = y0 + {{ y }} + ky - p.ky / 2;
        let inside_{{ y }} = x_inside && y_{{ y }} >= 0 && y_{{ y }} < p.size.y;
        let row_{{ y }} = select(0, frame + (x * p.size.y + y_{{ y }}) * p.size.z, inside_{{ y }}) * stride;
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
                {% set from = z + kz_tap - kz // 2 + halo %}
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
        let first = select(1.0, 0.0, r == 3);
        let second = select(select(1.0, 0.0, r == 0), -1.0, r >= 2);
        {% for v in range(bz) %}
        {% for o in range(cb) %}
        y_{{ v }}_{{ o }} = fma(first, sum_{{ v }}_{{ o }}, y_{{ v }}_{{ o }});
        y_{{ bz + v }}_{{ o }} = fma(second, sum_{{ v }}_{{ o }}, y_{{ bz + v }}_{{ o }});
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
        {% if bias %}
        {% if direct %}
        let o_{{ k }} = min(4 * vec4(c_{{ k }}) + vec4(0, 1, 2, 3), vec4(p.co - 1));
        let bias_{{ k }} = vec4(bias[o_{{ k }}.x], bias[o_{{ k }}.y], bias[o_{{ k }}.z], bias[o_{{ k }}.w]);
        {% else %}
        let bias_{{ k }} = load_weights(p.bias_at + c_{{ k }});
        {% endif %}
        {% endif %}
        {% endfor %}
        {% for y in range(rows) %}
        {% for z in range(bz) %}
        if {% if pointwise %}z0 + {{ z }} < p.size.z{% else %}y0 + {{ y }} < p.size.y{% if zcheck %} && z0 + {{ z }} < p.size.z{% endif %}{% endif %} {
            {% if pointwise %}
            let to = (z0 + {{ z }}) * out_stride;
            {% else %}
            let to = (frame + (x0 * p.size.y + y0 + {{ y }}) * p.size.z + z0 + {{ z }}) * out_stride;
            {% endif %}
            {% for k in range(cb // 4) %}
            {% set v = ("y_" if winograd else "sum_") ~ (y * bz + z) ~ "_" %}
            {
                var value = vec4({{ v ~ (4 * k) }}, {{ v ~ (4 * k + 1) }}, {{ v ~ (4 * k + 2) }}, {{ v ~ (4 * k + 3) }});
                {% if bias %}
                value += bias_{{ k }};
                {% endif %}
                {% if activation %}
                value = vec4(lrelu(value.x), lrelu(value.y), lrelu(value.z), lrelu(value.w));
                {% endif %}
                store(to, c_{{ k }}, value);
            }
            {% endfor %}
        }
        {% endfor %}
        {% endfor %}
    }
}
{% endif %}

{% if entry is endingwith("backward_weight") or entry is endingwith("reduce_weight") %}
{% set outputs = {"1": "f32", "2": "vec2<f32>", "4": "vec4<f32>"}[width ~ ""] %}
{# Inputs of one tap, and the bias after the last tap. #}
{% set members = ky * kz * civ * 4 + 1 %}
{% endif %}

{% if entry is endingwith("backward_weight") %}
// One workgroup of eight lanes: {{ 4 * civ }} input x {{ 8 * width }} output channels, {{ width }} of these a lane, and the ky x kz
// taps of one kx, summed over the voxel blocks of one chunk. x is loaded once by all lanes together and broadcast. Partial
// results are [chunk][co block][ci block][kx][tap, input][lane].
@group(0) @binding(1) var<storage, read_write> xs: array<{{ "vec4<" ~ element[1] ~ ">" if vin else element[1] }}>;
@group(0) @binding(2) var<storage, read_write> d_ys: array<{{ outputs | replace("f32", element[2]) if vout else element[2] }}>;
{% if direct %}
@group(0) @binding(3) var<storage, read_write> d_weight: array<f32>;
{% if bias %}
@group(0) @binding(4) var<storage, read_write> d_bias: array<f32>;
{% endif %}
{% else %}
@group(0) @binding(3) var<storage, read_write> partial: array<{{ outputs }}>;
{% endif %}

{% set loaded = bz + 2 * halo %}
{% set rows = by + ky - 1 %}
{% set vectors = rows * loaded * civ %}

// Four channels of x at `voxel`; those past the end repeat the last and are never read.
fn x_channels(voxel: i32, c: i32) -> vec4<f32> {
    {% if vin %}
    return vec4<f32>(xs[voxel * (p.ci / 4) + min(c, p.ci / 4 - 1)]);
    {% else %}
    let at = voxel * p.ci + min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.ci - 1));
    return vec4<f32>(vec4(xs[at.x], xs[at.y], xs[at.z], xs[at.w]));
    {% endif %}
}

// This lane's channels of d_y.
fn d_y_channels(voxel: i32, c: i32) -> {{ outputs }} {
    {% if vout %}
    return {{ outputs }}(d_ys[voxel * (p.co / {{ width }}) + min(c, p.co / {{ width }} - 1)]);
    {% else %}
    let base = voxel * p.co;
    return {{ outputs }}({% for k in range(width) %}f32(d_ys[base + min({{ width }} * c + {{ k }}, p.co - 1)]){{ ", " if not loop.last }}{% endfor %});
    {% endif %}
}

@compute @workgroup_size(8)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
) {
    let lane = i32(subgroup_lane);
    let kx = i32(workgroup.x) % p.kx;
    let ci_block = i32(workgroup.x) / p.kx;
    let co_block = i32(workgroup.z);
    let chunk = i32(workgroup.y);
    let d_c = (co_block + p.co_first) * 8 + lane;
    {% for t in range(ky * kz) %}
    {% for i in range(4 * civ) %}
    var sum_{{ t }}_{{ i }} = {{ outputs }}(0.0);
    {% endfor %}
    {% endfor %}
    var sum_bias = {{ outputs }}(0.0);
    // Which vector of x this lane loads, in each of the common loads.
    {% for load in range((vectors + 7) // 8) %}
    let vector_{{ load }} = min(lane + {{ 8 * load }}, {{ vectors - 1 }});
    let load_c_{{ load }} = ci_block * {{ civ }} + vector_{{ load }} % {{ civ }};
    let load_z_{{ load }} = vector_{{ load }} / {{ civ }} % {{ loaded }} - {{ halo }};
    let load_y_{{ load }} = vector_{{ load }} / {{ civ * loaded }} - {{ ky // 2 }};
    {% endfor %}
    // Positions are counted up, because a division costs as much as ten products.
    let end = min(p.count, (chunk + 1) * p.chunk);
    {% if pointwise %}
    var z0 = chunk * p.chunk * {{ bz }};
    {% else %}
    let z_blocks = (p.size.z + {{ bz - 1 }}) / {{ bz }};
    let y_blocks = (p.size.y + {{ by - 1 }}) / {{ by }};
    let volume = p.size.x * p.size.y * p.size.z;
    let columns = chunk * p.chunk / z_blocks;
    let planes = columns / y_blocks;
    var z0 = (chunk * p.chunk - columns * z_blocks) * {{ bz }};
    var y0 = (columns - planes * y_blocks) * {{ by }};
    var frame = planes / p.size.x;
    var x0 = planes - frame * p.size.x;
    frame *= volume;
    {% endif %}
    for (var item = chunk * p.chunk; item < end; item += 1) {
        {% if not pointwise %}
        let x = x0 + kx - p.kx / 2;
        let x_inside = x >= 0 && x < p.size.x;
        {% endif %}
        {% for load in range((vectors + 7) // 8) %}
        {% if pointwise %}
        let inside_{{ load }} = z0 + load_z_{{ load }} < p.size.z;
        let from_{{ load }} = select(0, z0 + load_z_{{ load }}, inside_{{ load }});
        {% else %}
        let y_{{ load }} = y0 + load_y_{{ load }};
        let z_{{ load }} = z0 + load_z_{{ load }};
        let inside_{{ load }} = x_inside && y_{{ load }} >= 0 && y_{{ load }} < p.size.y{% if zcheck %} && z_{{ load }} >= 0 && z_{{ load }} < p.size.z{% endif %};
        let from_{{ load }} = select(0, frame + (x * p.size.y + y_{{ load }}) * p.size.z + z_{{ load }}, inside_{{ load }});
        {% endif %}
        let x_{{ load }} = select(vec4(0.0), x_channels(from_{{ load }}, load_c_{{ load }}), inside_{{ load }});
        {% endfor %}
        {% for y in range(by) %}
        {% for z in range(bz) %}
        {% if pointwise %}
        let to_{{ y }}_{{ z }} = z0 + {{ z }};
        let within_{{ y }}_{{ z }} = z0 + {{ z }} < p.size.z;
        {% else %}
        let to_{{ y }}_{{ z }} = frame + (x0 * p.size.y + y0 + {{ y }}) * p.size.z + z0 + {{ z }};
        let within_{{ y }}_{{ z }} = y0 + {{ y }} < p.size.y{% if zcheck %} && z0 + {{ z }} < p.size.z{% endif %};
        {% endif %}
        let d_{{ y }}_{{ z }} = select({{ outputs }}(0.0), d_y_channels(select(0, to_{{ y }}_{{ z }}, within_{{ y }}_{{ z }}), d_c), within_{{ y }}_{{ z }});
        sum_bias += d_{{ y }}_{{ z }};
        {% endfor %}
        {% endfor %}
        {% for vector in range(vectors) %}
        {% set c = vector % civ %}
        {% set from_z = vector // civ % loaded - halo %}
        {% set from_y = vector // (civ * loaded) - ky // 2 %}
        {
            let q = subgroupBroadcast(x_{{ vector // 8 }}, {{ vector % 8 }}u);
            {% for ty in range(ky) %}
            {% for tz in range(kz) %}
            {% set y = from_y - ty + ky // 2 %}
            {% set z = from_z - tz + kz // 2 %}
            {% if y >= 0 and y < by and z >= 0 and z < bz %}
            {% for k in range(4) %}
            {% set sum = "sum_" ~ (ty * kz + tz) ~ "_" ~ (4 * c + k) %}
            {{ sum }} = fma(d_{{ y }}_{{ z }}, {{ outputs }}(q.{{ "xyzw"[k] }}), {{ sum }});
            {% endfor %}
            {% endif %}
            {% endfor %}
            {% endfor %}
        }
        {% endfor %}
        z0 += {{ bz }};
        {% if not pointwise %}
        let wraps_z = z0 >= p.size.z;
        z0 = select(z0, 0, wraps_z);
        y0 += select(0, {{ by }}, wraps_z);
        let wraps_y = y0 >= p.size.y;
        y0 = select(y0, 0, wraps_y);
        x0 += select(0, 1, wraps_y);
        let wraps_x = x0 == p.size.x;
        x0 = select(x0, 0, wraps_x);
        frame += select(0, volume, wraps_x);
        {% endif %}
    }
    {% if direct %}
    // A single chunk of a linear layer has the whole sums.
    {% for k in range(width) %}
    {
        let o = d_c * {{ width }} + {{ k }};
        if o < p.co {
            {% for i in range(4 * civ) %}
            if ci_block * {{ 4 * civ }} + {{ i }} < p.ci {
                d_weight[o * p.ci + ci_block * {{ 4 * civ }} + {{ i }}] = sum_0_{{ i }}{{ "[" ~ k ~ "]" if width > 1 }};
            }
            {% endfor %}
            {% if bias %}
            if ci_block == 0 {
                d_bias[o] = sum_bias{{ "[" ~ k ~ "]" if width > 1 }};
            }
            {% endif %}
        }
    }
    {% endfor %}
    {% else %}
    let ci_blocks = i32(grid.x) / p.kx;
    let base = (((chunk * i32(grid.z) + co_block) * ci_blocks + ci_block) * p.kx + kx) * {{ members * 8 }} + lane;
    {% for t in range(ky * kz) %}
    {% for i in range(4 * civ) %}
    partial[base + {{ (t * 4 * civ + i) * 8 }}] = sum_{{ t }}_{{ i }};
    {% endfor %}
    {% endfor %}
    partial[base + {{ (members - 1) * 8 }}] = sum_bias;
    {% endif %}
}
{% endif %}

{% if entry is endingwith("reduce_weight") %}
// Adds the partial results in a fixed order; one invocation has one lane's output channels of one input channel and tap.
@group(0) @binding(1) var<storage, read_write> partial: array<{{ outputs }}>;
@group(0) @binding(2) var<storage, read_write> d_weight: array<f32>;
{% if bias %}
@group(0) @binding(3) var<storage, read_write> d_bias: array<f32>;
{% endif %}

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
    var sum = {{ outputs }}(0.0);
    for (var part = 0; part < p.parts; part += 1) {
        sum += partial[part * p.count + index];
    }
    let ci_blocks = (p.ci + {{ 4 * civ - 1 }}) / {{ 4 * civ }};
    let member = index / 8 % {{ members }};
    let block = index / {{ 8 * members }};
    let kx = block % p.kx;
    let ci_block = block / p.kx % ci_blocks;
    let first = ((block / (p.kx * ci_blocks) + p.co_first) * 8 + index % 8) * {{ width }};
    let i = ci_block * {{ 4 * civ }} + member % {{ 4 * civ }};
    let tap = kx * {{ ky * kz }} + member / {{ 4 * civ }};
    {% for k in range(width) %}
    {
        let o = first + {{ k }};
        let value = sum{{ "[" ~ k ~ "]" if width > 1 }};
        if o < p.co {
            if member < {{ members - 1 }} {
                if i < p.ci {
                    let at = (o * p.ci + i) * p.kx * {{ ky * kz }} + tap;
                    d_weight[at] = value + select(0.0, d_weight[at], p.accumulate == 1u);
                }
            } else {
                {% if bias %}
                if kx == 0 && ci_block == 0 {
                    d_bias[o] = value + select(0.0, d_bias[o], p.accumulate == 1u);
                }
                {% endif %}
            }
        }
    }
    {% endfor %}
}
{% endif %}
