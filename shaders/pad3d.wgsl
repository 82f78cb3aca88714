// Kernels of src/layers/pad3d.rs; one invocation an element of the result, or (width = 4) four channels of it.
{% include "common/divide.wgsl" %}
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    // x, y, z of the small and of the padded volume, and the cells before the small one in the padded; then other words.
    inner: vec4<i32>,
    outer: vec4<i32>,
    before: vec4<i32>,
    count: i32,
    channels: i32, // C / width
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "from_cells", values(element[1]), index="i32") }}
{{ buffer(2, "to_cells", values(element[2]), index="i32") }}

// Frame, x, y and z of cell `cell` of volumes of that size.
fn place(cell: i32, size: vec3<i32>) -> vec4<i32> {
    let position = position_in(size, cell);
    let frame = divided(position.x, size.x);
    return vec4(frame, position.x - frame * size.x, position.yz);
}

fn element_of(frame: i32, cell: vec3<i32>, size: vec3<i32>, c: i32) -> i32 {
    return (((frame * size.x + cell.x) * size.y + cell.y) * size.z + cell.z) * p.channels + c;
}

{{ entry_point("pad3d_forward") }}
    let i = i32(invocation_index(workgroup, grid, local));
    if i >= p.count {
        return;
    }
    let cell = divided(i, p.channels);
    let c = i - cell * p.channels;
    let at = place(cell, p.outer.xyz);
    let source = at.yzw - p.before.xyz;
    let nearest = clamp(source, vec3(0), p.inner.xyz - 1);
    var value = load_from_cells(element_of(at.x, nearest, p.inner.xyz, c));
{% if not replicate %}
    if any(source != nearest) {
        value = Value(0.0);
    }
{% endif %}
    store_to_cells(i, value);
}

// The sum over the padded cells that are copies of this one.
{{ entry_point("pad3d_backward") }}
    let i = i32(invocation_index(workgroup, grid, local));
    if i >= p.count {
        return;
    }
    let cell = divided(i, p.channels);
    let c = i - cell * p.channels;
    let at = place(cell, p.inner.xyz);
    var first = at.yzw + p.before.xyz;
    var end = first + 1;
{% if replicate %}
    first = select(first, vec3(0), at.yzw == vec3(0));
    end = select(end, p.outer.xyz, at.yzw == p.inner.xyz - 1);
{% endif %}
    first = max(first, vec3(0));
    end = min(end, p.outer.xyz);
    var sum = Value(0.0);
    for (var x = first.x; x < end.x; x += 1) {
        for (var y = first.y; y < end.y; y += 1) {
            for (var z = first.z; z < end.z; z += 1) {
                sum += load_from_cells(element_of(at.x, vec3(x, y, z), p.outer.xyz, c));
            }
        }
    }
    store_to_cells(i, sum);
}
