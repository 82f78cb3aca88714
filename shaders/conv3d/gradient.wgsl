// The weight gradient of the register-blocked family, and the sum of its partial results.
{% from "common/operands.wgsl" import buffer, entry_point, image %}
{% from "conv3d/winograd.wgsl" import bias_factor, gradient_output, weighted %}
{% set outputs = {"1": "f32", "2": "vec2<f32>", "4": "vec4<f32>"}[width ~ ""] %}
{# Inputs of one tap, and the bias after the last tap. #}
{% set members = ky * kz * civ * 4 + 1 %}
{# Products along y that Winograd's F(r, 4) makes r taps of; without it the taps along y are among the members. #}
{% set products = taps_y + 3 if winograd else 1 %}

{% if entry is endingwith("backward_weight") %}
// One workgroup of eight lanes: {{ 4 * civ }} input x {{ 8 * width }} output channels, {{ width }} of these a lane, and the ky x kz
// taps of one kx, summed over the voxel blocks of one chunk. x is loaded once by all lanes together and broadcast. Partial
// results are [chunk][co block][ci block][kx][tap, input][lane].
{% if winograd %}
// By Winograd's F({{ taps_y }}, 4), of one of {{ products }} products along y, with what `transform` has made of x and d_y; size.y is in tiles of four.
// [kx] above is [kx][product].
{{ image(1, "xs", "read") }}
{{ image(2, "d_ys", "read") }}
{% else %}
{{ buffer(1, "xs", "vec4<" ~ element[1] ~ ">" if vin else element[1], index="i32") }}
{{ buffer(2, "d_ys", outputs | replace("f32", element[2]) if vout else element[2], index="i32") }}
{% endif %}
{% if direct %}
{{ buffer(3, "d_weight", "f32", index="i32") }}
{% if bias %}
{{ buffer(4, "d_bias", "f32", index="i32") }}
{% endif %}
{% else %}
{{ buffer(3, "partial", outputs, index="i32") }}
{% endif %}

{% set loaded = z_loaded if padded is defined else bz + 2 * halo %}
{% set before = z_before if padded is defined else kz // 2 %}
{% set x_size = "p.x_size" if padded is defined else "p.size" %}
{% set y_frame = "y_frame" if padded is defined else "frame" %}
{% set rows = by + ky - 1 %}
{% set vectors = rows * loaded * civ %}
{% set rows_before, row = (products ~ " * ", "row + ") if winograd else ("", "") %}

// Four channels of x at `voxel`; those past the end repeat the last and are never read.
fn x_channels(voxel: i32, c: i32) -> vec4<f32> {
    {% if winograd %}
    let vectors = (p.ci + 3) / 4;
    return load_xs(voxel * vectors + min(c, vectors - 1));
    {% elif vin %}
    return load_xs(voxel * (p.ci / 4) + min(c, p.ci / 4 - 1));
    {% else %}
    let at = voxel * p.ci + min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.ci - 1));
    return vec4(load_xs(at.x), load_xs(at.y), load_xs(at.z), load_xs(at.w));
    {% endif %}
}

// This lane's channels of d_y.
fn d_y_channels(voxel: i32, c: i32) -> {{ outputs }} {
    {% if winograd %}
    let vectors = (p.co + 3) / 4;
    let value = load_d_ys(voxel * vectors + min({{ width }} * c / 4, vectors - 1));
    return {{ {"1": "value[c & 3]", "2": "select(value.xy, value.zw, (c & 1) == 1)", "4": "value"}[width ~ ""] }};
    {% elif vout %}
    return load_d_ys(voxel * (p.co / {{ width }}) + min(c, p.co / {{ width }} - 1));
    {% else %}
    let base = voxel * p.co;
    return {{ outputs }}({% for k in range(width) %}load_d_ys(base + min({{ width }} * c + {{ k }}, p.co - 1)){{ ", " if not loop.last }}{% endfor %});
    {% endif %}
}

{{ entry_point(entry, 8, builtins={"subgroup_invocation_id": "subgroup_lane"}) }}
    let lane = i32(subgroup_lane);
    let terms = {{ products ~ " * " if winograd }}p.kx;
    let term = i32(workgroup.x) % terms;
    let kx = term{{ " / " ~ products if winograd }};
    let ci_block = i32(workgroup.x) / terms;
    {% if winograd %}
    let x_row = term % {{ products }} * {{ x_size }}.z;
    let row = term % {{ products }} * p.size.z;
    {% endif %}
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
    let load_y_{{ load }} = vector_{{ load }} / {{ civ * loaded }} - {{ 0 if winograd else "p.before.y" if padded is defined else ky // 2 }};
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
    {% if padded is defined %}
    let x_volume = p.x_size.x * p.x_size.y * p.x_size.z;
    var y_frame = frame * volume;
    frame *= x_volume;
    {% else %}
    frame *= volume;
    {% endif %}
    {% endif %}
    for (var item = chunk * p.chunk; item < end; item += 1) {
        {% if not pointwise %}
        let x = x0 + kx - {{ "p.before.x" if padded is defined else "p.kx / 2" }};
        let x_inside = x >= 0 && x < {{ x_size }}.x;
        {% endif %}
        {% for load in range((vectors + 7) // 8) %}
        {% if pointwise %}
        let inside_{{ load }} = z0 + load_z_{{ load }} < p.size.z;
        let from_{{ load }} = select(0, z0 + load_z_{{ load }}, inside_{{ load }});
        {% else %}
        let y_{{ load }} = y0 + load_y_{{ load }};
        let z_{{ load }} = z0 + load_z_{{ load }};
        let inside_{{ load }} = x_inside && y_{{ load }} >= 0 && y_{{ load }} < {{ x_size }}.y{% if zcheck %} && z_{{ load }} >= 0 && z_{{ load }} < {{ x_size }}.z{% endif %};
        let from_{{ load }} = select(0, {{ rows_before }}(frame + (x * {{ x_size }}.y + y_{{ load }}) * {{ x_size }}.z) + {{ "x_" ~ row if winograd }}z_{{ load }}, inside_{{ load }});
        {% endif %}
        let x_{{ load }} = select(vec4(0.0), x_channels(from_{{ load }}, load_c_{{ load }}), inside_{{ load }});
        {% endfor %}
        {% for y in range(by) %}
        {% for z in range(bz) %}
        {% if pointwise %}
        let to_{{ y }}_{{ z }} = z0 + {{ z }};
        let within_{{ y }}_{{ z }} = z0 + {{ z }} < p.size.z;
        {% else %}
        let to_{{ y }}_{{ z }} = {{ rows_before }}({{ y_frame }} + (x0 * p.size.y + y0 + {{ y }}) * p.size.z) + {{ row }}z0 + {{ z }};
        let within_{{ y }}_{{ z }} = y0 + {{ y }} < p.size.y{% if zcheck %} && z0 + {{ z }} < p.size.z{% endif %};
        {% endif %}
        let d_{{ y }}_{{ z }} = select({{ outputs }}(0.0), d_y_channels(select(0, to_{{ y }}_{{ z }}, within_{{ y }}_{{ z }}), d_c), within_{{ y }}_{{ z }});
        sum_bias += d_{{ y }}_{{ z }};
        {% endfor %}
        {% endfor %}
        {% for vector in range(vectors) %}
        {% set c = vector % civ %}
        {% set from_z = vector // civ % loaded - halo %}
        {% set from_y = vector // (civ * loaded) %}
        {
            let q = subgroupBroadcast(x_{{ vector // 8 }}, {{ vector % 8 }}u);
            {% for ty in range(ky) %}
            {% for tz in range(kz) %}
            {% set y = from_y - ty %}
            {% set z = from_z - tz + before %}
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
        {% if padded is defined %}
        frame += select(0, x_volume, wraps_x);
        y_frame += select(0, volume, wraps_x);
        {% else %}
        frame += select(0, volume, wraps_x);
        {% endif %}
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
                store_d_weight(o * p.ci + ci_block * {{ 4 * civ }} + {{ i }}, sum_0_{{ i }}{{ "[" ~ k ~ "]" if width > 1 }});
            }
            {% endfor %}
            {% if bias %}
            if ci_block == 0 {
                store_d_bias(o, sum_bias{{ "[" ~ k ~ "]" if width > 1 }});
            }
            {% endif %}
        }
    }
    {% endfor %}
    {% else %}
    let ci_blocks = i32(grid.x) / terms;
    let base = (((chunk * i32(grid.z) + co_block) * ci_blocks + ci_block) * terms + term) * {{ members * 8 }} + lane;
    {% for t in range(ky * kz) %}
    {% for i in range(4 * civ) %}
    store_partial(base + {{ (t * 4 * civ + i) * 8 }}, sum_{{ t }}_{{ i }});
    {% endfor %}
    {% endfor %}
    store_partial(base + {{ (members - 1) * 8 }}, sum_bias);
    {% endif %}
}
{% endif %}

{% if entry is endingwith("reduce_weight") %}
// Adds the partial results in a fixed order; one invocation has one lane's output channels of one input channel and tap.
{{ buffer(1, "partial", outputs, index="i32") }}
{{ buffer(2, "d_weight", "f32", index="i32") }}
{% if bias %}
{{ buffer(3, "d_bias", "f32", index="i32") }}
{% endif %}

{{ entry_point(entry) }}
    let index = i32(invocation_index(workgroup, grid, local));
    if index >= p.count {
        return;
    }
    let member = index / 8 % {{ members }};
    let block = index / {{ 8 * members }};
    var at = (block * {{ products * members }} + member) * 8 + index % 8;
    {% for product in range(products) %}
    var sum_{{ product }} = {{ outputs }}(0.0);
    {% endfor %}
    for (var part = 0; part < p.parts; part += 1) {
        {% for product in range(products) %}
        sum_{{ product }} += load_partial(at + {{ product * members * 8 }});
        {% endfor %}
        at += {{ products ~ " * " if winograd }}p.count;
    }
    let ci_blocks = (p.ci + {{ 4 * civ - 1 }}) / {{ 4 * civ }};
    let kx = block % p.kx;
    let ci_block = block / p.kx % ci_blocks;
    let first = ((block / (p.kx * ci_blocks) + p.co_first) * 8 + index % 8) * {{ width }};
    let i = ci_block * {{ 4 * civ }} + member % {{ 4 * civ }};
    {% if winograd %}
    {% set taps = taps_y %}
    {% for factors in gradient_output[taps_y ~ ""] %}
    let tap_{{ loop.index0 }} = {{ weighted(factors, "sum") }};
    {% endfor %}
    let d_bias_sum = {{ bias_factor[taps_y ~ ""] }} * sum_1;
    {% else %}
    {% set taps = 1 %}
    let tap_0 = sum_0;
    let d_bias_sum = sum_0;
    {% endif %}
    let first_tap = kx * {{ taps * ky * kz }} + member / {{ 4 * civ }};
    {% for k in range(width) %}
    {% set component = "[" ~ k ~ "]" if width > 1 else "" %}
    {
        let o = first + {{ k }};
        if o < p.co {
            if member < {{ members - 1 }} {
                if i < p.ci {
                    let at = (o * p.ci + i) * p.kx * {{ taps * ky * kz }} + first_tap;
                    {% for tap in range(taps) %}
                    store_d_weight(at + {{ tap * kz }}, tap_{{ tap }}{{ component }} + select(0.0, load_d_weight(at + {{ tap * kz }}), p.accumulate == 1u));
                    {% endfor %}
                }
            } else {
                {% if bias %}
                if kx == 0 && ci_block == 0 {
                    store_d_bias(o, d_bias_sum{{ component }} + select(0.0, load_d_bias(o), p.accumulate == 1u));
                }
                {% endif %}
            }
        }
    }
    {% endfor %}
}
{% endif %}
