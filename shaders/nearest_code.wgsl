// Kernels of src/layers/nearest_code.rs. Codes are compared in groups of sixteen: four channels of a group are packed as sixteen
// vectors, for each channel those of the group's codes by four. Where `lanes` is more than one, so many lanes of a subgroup load
// these together.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, counters, entry_point, parameters %}
{% if entry == "nearest_code_usage" %}

const CODES = {{ codes }}u;

struct Parameters {
    rows: u32,
    rows_per_invocation: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "numbers", "u32") }}
{{ counters(2, "counts") }}

var<workgroup> group_counts: array<atomic<u32>, CODES>;

// A workgroup counts its rows by itself, then adds what it found.
{{ entry_point("nearest_code_usage") }}
    for (var k = local; k < CODES; k += 64u) {
        atomicStore(&group_counts[k], 0u);
    }
    workgroupBarrier();
    let first = workgroup_index(workgroup, grid) * p.rows_per_invocation * 64u + local;
    for (var i = 0u; i < p.rows_per_invocation && first + i * 64u < p.rows; i += 1u) {
        let number = load_numbers(first + i * 64u);
        if number < CODES {
            atomicAdd(&group_counts[number], 1u);
        }
    }
    workgroupBarrier();
    for (var k = local; k < CODES; k += 64u) {
        let count = atomicLoad(&group_counts[k]);
        if count > 0u {
            add_to_counts(k, count);
        }
    }
}
{% else %}
{% set is_whole = channels % 4 == 0 %}
const CHANNELS = {{ channels }}u;
const QUADS = {{ (channels + 3) // 4 }}u;

struct Parameters {
    rows: u32,
    codes: u32,
    // Of sixteen codes.
    groups: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "codebook", "f32") }}
{{ buffer(2, "packed", "f32") }}
{{ buffer(3, "halves", "f32") }}

// One invocation a code, or one that fills the last group and is never the nearest.
{{ entry_point("nearest_code_pack") }}
    let code = invocation_index(workgroup, grid, local);
    if code >= p.groups * 16u {
        return;
    }
    var squares = 0.0;
    for (var c = 0u; c < QUADS * 4u; c += 1u) {
        var value = 0.0;
        if code < p.codes && c < CHANNELS {
            value = load_codebook(code * CHANNELS + c);
        }
        squares += value * value;
        store_packed((code / 16u * QUADS * 4u + c) * 16u + code % 16u, value);
    }
    store_halves(code, select(3.0e38, 0.5 * squares, code < p.codes));
}

{{ buffer(1, "z", "vec4<" ~ element[1] ~ ">" if is_whole else element[1]) }}
{{ buffer(2, "code_fours", "vec4<f32>") }}
{{ buffer(3, "half_fours", "vec4<f32>") }}
{{ buffer(4, "nearest", "u32") }}

fn z_quad(row: u32, quad: u32) -> vec4<f32> {
{% if is_whole %}
    return load_z(row * QUADS + quad);
{% else %}
    var value = vec4(0.0);
    {% for i in range(4) %}
    if quad * 4u + {{ i }}u < CHANNELS {
        value.{{ "xyzw"[i] }} = load_z(row * CHANNELS + quad * 4u + {{ i }}u);
    }
    {% endfor %}
    return value;
{% endif %}
}

// The code with the least |e|^2 / 2 - z.e, which is half of |z - e|^2 - |z|^2. An invocation has {{ rows }} rows.
{{ entry_point("nearest_code_assign", builtins={"subgroup_invocation_id": "subgroup_lane"} if lanes > 1 else {}) }}
    let first = workgroup_index(workgroup, grid) * {{ 64 * rows }}u + local;
    {% for r in range(rows) %}
    // A row past the end is the last one once more, because the broadcasts need every lane.
    let row_{{ r }} = min(first + {{ 64 * r }}u, p.rows - 1u);
    var least_{{ r }} = 3.4e38;
    var best_{{ r }} = 0u;
    {% endfor %}
    {% if lanes > 1 %}
    let lane = subgroup_lane & {{ lanes - 1 }}u;
    {% endif %}
    for (var g = 0u; g < p.groups; g += 1u) {
        {% for f in range(4) %}
        let half_{{ f }} = load_half_fours(4u * g + {{ f }}u);
        {% for r in range(rows) %}
        var sum_{{ r }}_{{ f }} = half_{{ f }};
        {% endfor %}
        {% endfor %}
        for (var q = 0u; q < QUADS; q += 1u) {
            let at = (g * QUADS + q) * 16u;
            {% for r in range(rows) %}
            let z_{{ r }} = z_quad(row_{{ r }}, q);
            {% endfor %}
            {% for vector in range(16) %}
            {% if lanes > 1 %}
            {% if vector % lanes == 0 %}
            let loaded_{{ vector // lanes }} = load_code_fours(at + {{ vector }}u + lane);
            {% endif %}
            let codes_{{ vector }} = subgroupBroadcast(loaded_{{ vector // lanes }}, {{ vector % lanes }}u);
            {% else %}
            let codes_{{ vector }} = load_code_fours(at + {{ vector }}u);
            {% endif %}
            {% for r in range(rows) %}
            sum_{{ r }}_{{ vector % 4 }} -= z_{{ r }}.{{ "xyzw"[vector // 4] }} * codes_{{ vector }};
            {% endfor %}
            {% endfor %}
        }
        {% for r in range(rows) %}
        {% for code in range(16) %}
        if sum_{{ r }}_{{ code // 4 }}.{{ "xyzw"[code % 4] }} < least_{{ r }} {
            least_{{ r }} = sum_{{ r }}_{{ code // 4 }}.{{ "xyzw"[code % 4] }};
            best_{{ r }} = 16u * g + {{ code }}u;
        }
        {% endfor %}
        {% endfor %}
    }
    {% for r in range(rows) %}
    if first + {{ 64 * r }}u < p.rows {
        store_nearest(row_{{ r }}, best_{{ r }});
    }
    {% endfor %}
}
{% endif %}
