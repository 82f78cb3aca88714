// Kernels of src/layers/permute.rs; one invocation an element of the result, or four, which are a vector of the operand too (width = 4)
// or gathered from it.
{% include "common/divide.wgsl" %}
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}

struct Permutation {
    // Of the result's axes, the last in vectors.
    extents: array<vec4<u32>, 2>,
    // From one index of that axis to the next in the operand.
    strides: array<vec4<u32>, 2>,
    // Where gathered elements lie from the first one on.
    steps: vec4<u32>,
    count: u32,
}

struct Tiling {
    count: u32,
    length: u32,
}

{{ parameters("p", "Permutation") }}
{{ parameters("tiling", "Tiling") }}
{{ buffer(1, "x", values(element[1])) }}
{{ buffer(2, "y", "vec4<" ~ element[2] ~ ">" if gathers else values(element[2])) }}

{% if entry == "permute" %}
{{ entry_point("permute") }}
    let index = invocation_index(workgroup, grid, local);
    if index >= p.count {
        return;
    }
    var rest = index;
    var source = 0u;
    {% for axis in range(1, rank) | reverse %}
    {
        let extent = p.extents[{{ axis // 4 }}][{{ axis % 4 }}];
        let quotient = u32(divided(i32(rest), i32(extent)));
        source += (rest - quotient * extent) * p.strides[{{ axis // 4 }}][{{ axis % 4 }}];
        rest = quotient;
    }
    {% endfor %}
    source += rest * p.strides[0][0];
    {% if gathers %}
    store_y(index, vec4(load_x(source), load_x(source + p.steps.y), load_x(source + p.steps.z), load_x(source + p.steps.w)));
    {% else %}
    store_y(index, load_x(source));
    {% endif %}
}
{% else %}
{{ entry_point("tile_forward", parameters="tiling") }}
    let index = invocation_index(workgroup, grid, local);
    if index < tiling.count {
        store_y(index, load_x(index % tiling.length));
    }
}
{% endif %}
