// Kernels of src/layers/nearest_code.rs. Codes are compared in groups of eight: quad q of channels of group g is packed as
// eight vectors, for channel i of the quad that of the group's first four codes and that of the other four.
{% include "common/index.wgsl" %}
{% if entry == "nearest_code_usage" %}

const CODES = {{ codes }}u;

struct Parameters {
    rows: u32,
    rows_per_invocation: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> numbers: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;

var<workgroup> group_counts: array<atomic<u32>, CODES>;

// A workgroup counts its rows by itself, then adds what it found.
@compute @workgroup_size(64)
fn nearest_code_usage(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    for (var k = local; k < CODES; k += 64u) {
        atomicStore(&group_counts[k], 0u);
    }
    workgroupBarrier();
    let first = workgroup_index(workgroup, grid) * p.rows_per_invocation * 64u + local;
    for (var i = 0u; i < p.rows_per_invocation && first + i * 64u < p.rows; i += 1u) {
        let number = numbers[first + i * 64u];
        if number < CODES {
            atomicAdd(&group_counts[number], 1u);
        }
    }
    workgroupBarrier();
    for (var k = local; k < CODES; k += 64u) {
        let count = atomicLoad(&group_counts[k]);
        if count > 0u {
            atomicAdd(&counts[k], count);
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
    // Of eight codes.
    groups: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> codebook: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<f32>;
@group(0) @binding(3) var<storage, read_write> halves: array<f32>;

// One invocation a code, or one that fills the last group and is never the nearest.
@compute @workgroup_size(64)
fn nearest_code_pack(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let code = invocation_index(workgroup, grid, local);
    if code >= p.groups * 8u {
        return;
    }
    var squares = 0.0;
    for (var c = 0u; c < QUADS * 4u; c += 1u) {
        var value = 0.0;
        if code < p.codes && c < CHANNELS {
            value = codebook[code * CHANNELS + c];
        }
        squares += value * value;
        packed[(code / 8u * QUADS * 4u + c) * 8u + code % 8u] = value;
    }
    halves[code] = select(3.0e38, 0.5 * squares, code < p.codes);
}

@group(0) @binding(1) var<storage, read_write> z: array<{{ "vec4<" ~ element[1] ~ ">" if is_whole else element[1] }}>;
@group(0) @binding(2) var<storage, read_write> code_fours: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> half_fours: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> nearest: array<u32>;

fn z_quad(row: u32, quad: u32) -> vec4<f32> {
{% if is_whole %}
    return vec4<f32>(z[row * QUADS + quad]);
{% else %}
    var value = vec4(0.0);
    {% for i in range(4) %}
    if quad * 4u + {{ i }}u < CHANNELS {
        value.{{ "xyzw"[i] }} = f32(z[row * CHANNELS + quad * 4u + {{ i }}u]);
    }
    {% endfor %}
    return value;
{% endif %}
}

// The code with the least |e|^2 / 2 - z.e, which is half of |z - e|^2 - |z|^2. An invocation has {{ rows }} rows.
@compute @workgroup_size(64)
fn nearest_code_assign(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = workgroup_index(workgroup, grid) * {{ 64 * rows }}u + local;
    {% for r in range(rows) %}
    // A row past the end is the last one once more.
    let row_{{ r }} = min(first + {{ 64 * r }}u, p.rows - 1u);
    var least_{{ r }} = 3.4e38;
    var best_{{ r }} = 0u;
    {% endfor %}
    for (var g = 0u; g < p.groups; g += 1u) {
        {% for r in range(rows) %}
        var low_{{ r }} = half_fours[2u * g];
        var high_{{ r }} = half_fours[2u * g + 1u];
        {% endfor %}
        for (var q = 0u; q < QUADS; q += 1u) {
            let at = (g * QUADS + q) * 8u;
            {% for r in range(rows) %}
            let z_{{ r }} = z_quad(row_{{ r }}, q);
            {% endfor %}
            {% for i in range(4) %}
            let low_codes_{{ i }} = code_fours[at + {{ 2 * i }}u];
            let high_codes_{{ i }} = code_fours[at + {{ 2 * i + 1 }}u];
            {% for r in range(rows) %}
            low_{{ r }} -= z_{{ r }}.{{ "xyzw"[i] }} * low_codes_{{ i }};
            high_{{ r }} -= z_{{ r }}.{{ "xyzw"[i] }} * high_codes_{{ i }};
            {% endfor %}
            {% endfor %}
        }
        {% for r in range(rows) %}
        {% for half in ["low", "high"] %}
        {% for j in range(4) %}
        if {{ half }}_{{ r }}.{{ "xyzw"[j] }} < least_{{ r }} {
            least_{{ r }} = {{ half }}_{{ r }}.{{ "xyzw"[j] }};
            best_{{ r }} = 8u * g + {{ j + (4 if half == "high" else 0) }}u;
        }
        {% endfor %}
        {% endfor %}
        {% endfor %}
    }
    {% for r in range(rows) %}
    if first + {{ 64 * r }}u < p.rows {
        nearest[row_{{ r }}] = best_{{ r }};
    }
    {% endfor %}
}
{% endif %}
