// Kernels of src/layers/label_conv.rs; neighbouring invocations have neighbouring channels o, one each or (width = 4) four.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
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
}

{{ parameters("p", "Parameters") }}
// In blocked order; a label that is no class contributes nothing.
{{ buffer(1, "labels", "u32") }}
{{ buffer(2, "y", values(element[2])) }}
{{ buffer(2, "d_y", values(element[2])) }}
{{ buffer(3, "table", values("f32")) }}
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

// y[voxel, o]: one invocation an element.
{{ entry_point("label_conv_forward") }}
    let index = invocation_index(workgroup, grid, local);
    let o = index % p.channels;
    let voxel = index / p.channels;
    let row = voxel / p.size_z;
    if row >= p.rows {
        return;
    }
    let n = row / (p.size_x * p.size_y);
    let x = row / p.size_y % p.size_x;
    var sum = load_bias(o);
    let before_z = place_along_z(voxel % p.size_z, -1);
    let at_z = place_along_z(voxel % p.size_z, 0);
    let after_z = place_along_z(voxel % p.size_z, 1);
    {% for dx in range(3) %}
    {
        let frame_x = n * p.size_x * p.size_y * p.size_z + place_along_x(x, {{ dx - 1 }});
        {% for dy in range(3) %}
        {
            let start = frame_x + place_along_y(row % p.size_y, {{ dy - 1 }});
            {% for dz in range(3) %}
            {
                let label = load_labels(start + {{ ["before_z", "at_z", "after_z"][dz] }});
                let is_class = label < p.entries;
                let entry = select(0u, label, is_class) * 27u + {{ 9 * dx + 3 * dy + dz }}u;
                sum += select(Value(0.0), load_table(entry * p.channels + o), is_class);
            }
            {% endfor %}
        }
        {% endfor %}
    }
    {% endfor %}
    store_y(index, sum);
}

{% if entry == "label_conv_backward" %}
// One invocation per (chunk, tap, o): its sums for all classes are in registers. A chunk's sums are [K, 27, O], then the
// bias's [O], which the invocations of the first tap write.
{{ entry_point("label_conv_backward") }}
    let index = invocation_index(workgroup, grid, local);
    let o = index % p.channels;
    let tap = index / p.channels % 27u;
    let chunk = index / (p.channels * 27u);
    if chunk >= p.chunks {
        return;
    }
    let offset = vec3(i32(tap / 9u), i32(tap / 3u % 3u), i32(tap % 3u)) - 1;
    {% for k in range(classes) %}
    var sum{{ k }} = Value(0.0);
    {% endfor %}
    var total = Value(0.0);
    let end = min(p.rows, (chunk + 1u) * p.rows_per_chunk);
    for (var k = chunk * p.rows_per_chunk; k < end; k += 1u) {
        let row = p.first_row + k;
        let n = row / (p.size_x * p.size_y);
        let start = n * p.size_x * p.size_y * p.size_z + place_along_x(row / p.size_y % p.size_x, offset.x) + place_along_y(row % p.size_y, offset.y);
        for (var z = 0u; z < p.size_z; z += 1u) {
            let label = load_labels(start + place_along_z(z, offset.z));
            let d = load_d_y((row * p.size_z + z) * p.channels + o);
            total += d;
            {% for k in range(classes) %}
            sum{{ k }} += select(Value(0.0), d, label == {{ k }}u);
            {% endfor %}
        }
    }
    let base = chunk * ({{ classes }}u * 27u + 1u) * p.channels;
    {% for k in range(classes) %}
    store_chunk_sums(base + ({{ k }}u * 27u + tap) * p.channels + o, sum{{ k }});
    {% endfor %}
    if tap == 0u {
        store_chunk_sums(base + {{ classes }}u * 27u * p.channels + o, total);
    }
}
{% endif %}
