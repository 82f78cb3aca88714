// Kernels of src/layers/label_conv.rs; neighbouring invocations have neighbouring channels o, one each or (width = 4) four.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, image as image_of, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    // Of the labels, in voxels.
    size_x: u32,
    size_y: u32,
    size_z: u32,
    // Of this launch, a row being the voxels along z.
    rows: u32,
    channels: u32, // O / width
    entries: u32,  // K
    // label_conv_backward only.
    first_row: u32,
    chunks: u32,
    rows_per_chunk: u32,
    // label_conv_forward only: voxels along z of an invocation.
    run: u32,
}

{{ parameters("p", "Parameters") }}
// In blocked order; a label that is no class contributes nothing.
{{ buffer(1, "labels", "u32") }}
{{ buffer(2, "y", values(element[2])) }}
{{ buffer(2, "d_y", values(element[2])) }}
{{ buffer(3, "chunk_sums", values("f32")) }}
{{ buffer(4, "bias", values("f32")) }}

// What the coordinate `at`, beyond the edge that of the edge, adds to a label's place.
fn label_place(at: i32, extent: u32, cell: u32, sub_voxel: u32) -> u32 {
    let inside = u32(clamp(at, 0, i32(extent) - 1));
    return inside / 2u * cell + inside % 2u * sub_voxel;
}

fn place_along_x(at: u32, offset: i32) -> u32 {
    return label_place(i32(at) + offset, p.size_x, 2u * p.size_y * p.size_z, 4u);
}

fn place_along_y(at: u32, offset: i32) -> u32 {
    return label_place(i32(at) + offset, p.size_y, 4u * p.size_z, 2u);
}

fn place_along_z(at: u32, offset: i32) -> u32 {
    return label_place(i32(at) + offset, p.size_z, 8u, 1u);
}

{% if entry == "label_conv_pack" %}
// The table, in an image.
{{ buffer(1, "entries_of", values("f32")) }}
{{ image_of(2, "packed", "write") }}

{{ entry_point("label_conv_pack") }}
    let index = invocation_index(workgroup, grid, local);
    if index < p.rows {
        store_packed(i32(index), load_entries_of(index));
    }
}
{% endif %}
{% if entry == "label_conv_forward" %}
{% if image %}
{{ image_of(3, "table", "read") }}
{% else %}
{{ buffer(3, "table", values("f32"), index="i32") }}
{% endif %}

// Where the taps of a label begin in the table; negative if it is no class.
fn taps_of(label: u32) -> i32 {
    return select(-1, i32(label * 27u), label < p.entries);
}

fn tap_at(taps: i32, tap: i32, o: u32) -> Value {
    return select(Value(0.0), load_table((max(taps, 0) + tap) * i32(p.channels) + i32(o)), taps >= 0);
}

// y[voxel, o]: one invocation a run of voxels along z.
{{ entry_point("label_conv_forward") }}
    let index = invocation_index(workgroup, grid, local);
    let runs = (p.size_z + p.run - 1u) / p.run;
    let o = index % p.channels;
    let row = index / p.channels / runs;
    if row >= p.rows {
        return;
    }
    let first = index / p.channels % runs * p.run;
    let n = row / (p.size_x * p.size_y);
    let x = row / p.size_y % p.size_x;
    let before_z = place_along_z(first, -1);
    let at_z = place_along_z(first, 0);
    {% for dx in range(3) %}
    let frame_{{ dx }} = n * p.size_x * p.size_y * p.size_z + place_along_x(x, {{ dx - 1 }});
    {% for dy in range(3) %}
    {% set r = 3 * dx + dy %}
    let start_{{ r }} = frame_{{ dx }} + place_along_y(row % p.size_y, {{ dy - 1 }});
    var before_{{ r }} = taps_of(load_labels(start_{{ r }} + before_z));
    var at_{{ r }} = taps_of(load_labels(start_{{ r }} + at_z));
    {% endfor %}
    {% endfor %}
    for (var z = first; z < min(first + p.run, p.size_z); z += 1u) {
        let after_z = place_along_z(z, 1);
        var sum = load_bias(o);
        {% for r in range(9) %}
        let after_{{ r }} = taps_of(load_labels(start_{{ r }} + after_z));
        sum += tap_at(before_{{ r }}, {{ 3 * r }}, o);
        sum += tap_at(at_{{ r }}, {{ 3 * r + 1 }}, o);
        sum += tap_at(after_{{ r }}, {{ 3 * r + 2 }}, o);
        before_{{ r }} = at_{{ r }};
        at_{{ r }} = after_{{ r }};
        {% endfor %}
        store_y((row * p.size_z + z) * p.channels + o, sum);
    }
}
{% endif %}

{% if entry == "label_conv_backward" %}
// One invocation per (chunk, {{ "taps along x and y" if taps == 3 else "tap" }}, o): its sums for all classes are in registers. A chunk's sums are [K, 27, O], then the
// bias's [O], which the invocations of the first tap write.
{{ entry_point("label_conv_backward") }}
    let index = invocation_index(workgroup, grid, local);
    let o = index % p.channels;
    let tap = index / p.channels % {{ 27 // taps }}u * {{ taps }}u;
    let chunk = index / (p.channels * {{ 27 // taps }}u);
    if chunk >= p.chunks {
        return;
    }
    let offset = vec3(i32(tap / 9u), i32(tap / 3u % 3u), i32(tap % 3u)) - 1;
    {% for t in range(taps) %}
    {% for k in range(classes) %}
    var sum_{{ t }}_{{ k }} = Value(0.0);
    {% endfor %}
    {% endfor %}
    var total = Value(0.0);
    let end = min(p.rows, (chunk + 1u) * p.rows_per_chunk);
    for (var k = chunk * p.rows_per_chunk; k < end; k += 1u) {
        let row = p.first_row + k;
        let n = row / (p.size_x * p.size_y);
        let start = n * p.size_x * p.size_y * p.size_z + place_along_x(row / p.size_y % p.size_x, offset.x) + place_along_y(row % p.size_y, offset.y);
        {% for t in range(taps - 1) %}
        var label_{{ t }} = load_labels(start + place_along_z(0u, offset.z + {{ t }}));
        {% endfor %}
        for (var z = 0u; z < p.size_z; z += 1u) {
            {% set last = taps - 1 %}
            let label_{{ last }} = load_labels(start + place_along_z(z, offset.z + {{ last }}));
            let d = load_d_y((row * p.size_z + z) * p.channels + o);
            total += d;
            {% for t in range(taps) %}
            {% for k in range(classes) %}
            sum_{{ t }}_{{ k }} += select(Value(0.0), d, label_{{ t }} == {{ k }}u);
            {% endfor %}
            {% endfor %}
            {% for t in range(taps - 1) %}
            label_{{ t }} = label_{{ t + 1 }};
            {% endfor %}
        }
    }
    let base = chunk * ({{ classes }}u * 27u + 1u) * p.channels;
    {% for t in range(taps) %}
    {% for k in range(classes) %}
    store_chunk_sums(base + ({{ k }}u * 27u + tap + {{ t }}u) * p.channels + o, sum_{{ t }}_{{ k }});
    {% endfor %}
    {% endfor %}
    if tap == 0u {
        store_chunk_sums(base + {{ classes }}u * 27u * p.channels + o, total);
    }
}
{% endif %}
