// Kernels of src/layers/space_to_depth.rs.
{% include "common/divide.wgsl" %}
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}

{% if entry == "flip" %}
// One invocation an element, or four (width = 4): channels, or taps of one channel.
struct Rows {
    count: u32,
    taps: u32, // or vectors of four of them
    channels: u32,
}

{{ parameters("p", "Rows") }}
{{ buffer(1, "x", values("f32")) }}
{{ buffer(2, "y", values("f32")) }}

{{ entry_point("flip") }}
    let index = invocation_index(workgroup, grid, local);
    if index >= p.count {
        return;
    }
    let row = u32(divided(i32(index), i32(p.channels)));
    let tap = row - u32(divided(i32(row), i32(p.taps))) * p.taps;
    store_y(index, load_x(index + p.channels * (p.taps - 1u) - 2u * tap * p.channels){{ ".wzyx" if taps_in_fours }});
}
{% else %}
// One invocation {{ "four channels" if width == 4 else "an element" }} of the result, blocks of {{ sx }} x {{ sy }} x {{ sz }} voxels.
struct Layout {
    size: vec3<i32>,   // X, Y, Z of the volume
    channels: i32,     // of a voxel, or vectors of four of them
    blocks: vec3<i32>, // along x, y, z
    count: i32,        // of results
    before: vec3<i32>, // voxels of the first block that lie before the volume
}

alias Value = {{ values("f32") }};
const STRIDE = vec3<i32>({{ sx }}, {{ sy }}, {{ sz }});

{{ parameters("p", "Layout") }}
{{ buffer(1, "xs", values(element[1]), index="i32") }}
{{ buffer(2, "ys", values(element[2]), index="i32") }}

fn place(position: vec3<i32>, extents: vec3<i32>) -> i32 {
    return (position.x * extents.y + position.y) * extents.z + position.z;
}

{{ entry_point("space_to_depth") }}
    let index = i32(invocation_index(workgroup, grid, local));
    if index >= p.count {
        return;
    }
    let row = divided(index, p.channels);
    let block = row / {{ sx * sy * sz }};
    var position = position_in(p.blocks, block);
    let frame = divided(position.x, p.blocks.x);
    position.x -= frame * p.blocks.x;
    let within = row % {{ sx * sy * sz }};
    let voxel = position * STRIDE + vec3(within / {{ sy * sz }}, within / {{ sz }} % {{ sy }}, within % {{ sz }}) - p.before;
    let inside = all(vec3<u32>(voxel) < vec3<u32>(p.size));
    let source = (frame * p.size.x * p.size.y * p.size.z + place(voxel, p.size)) * p.channels + index - row * p.channels;
    store_ys(index, select(Value(0.0), load_xs(select(0, source, inside)), inside));
}

{{ entry_point("depth_to_space") }}
    let index = i32(invocation_index(workgroup, grid, local));
    if index >= p.count {
        return;
    }
    let row = divided(index, p.channels);
    var position = position_in(p.size, row);
    let frame = divided(position.x, p.size.x);
    position.x -= frame * p.size.x;
    let voxel = position + p.before;
    let block = voxel / STRIDE;
    let inside = all(block < p.blocks);
    let deep = frame * p.blocks.x * p.blocks.y * p.blocks.z + place(block, p.blocks);
    let source = (deep * {{ sx * sy * sz }} + place(voxel % STRIDE, STRIDE)) * p.channels + index - row * p.channels;
    store_ys(index, select(Value(0.0), load_xs(select(0, source, inside)), inside));
}
{% endif %}
