// Kernels of src/layers/commitment_loss.rs; `width` elements a vector.
{% include "common/index.wgsl" %}
{% include "common/reduce.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    count: u32, // vectors of this launch
    vectors_per_invocation: u32,
    first_group: u32,
    groups: u32,
    factor: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "from_vectors", values(element[1])) }}
{{ buffer(2, "to_vectors", values(element[2])) }}
{{ buffer(3, "partials", "f32") }}

{{ entry_point("commitment_loss_forward") }}
    let group = workgroup_index(workgroup, grid);
    var squares = Value(0.0);
    for (var k = 0u; k < p.vectors_per_invocation; k += 1u) {
        let i = (group * p.vectors_per_invocation + k) * 64u + local;
        if i >= p.count {
            break;
        }
        let difference = load_from_vectors(i) - load_to_vectors(i);
        squares += difference * difference;
    }
    let own = {{ "squares.x + squares.y + squares.z + squares.w" if width == 4 else "squares" }};
    let sum = workgroup_sum(vec2(own, 0.0), local);
    if local == 0u && group < p.groups {
        store_partials(p.first_group + group, sum.x);
    }
}

{{ buffer(1, "all_partials", "f32") }}
{{ buffer(2, "loss", "f32") }}

{{ entry_point("commitment_loss_merge") }}
    var sum = 0.0;
    for (var i = local; i < p.groups; i += 64u) {
        sum += load_all_partials(i);
    }
    let total = workgroup_sum(vec2(sum, 0.0), local);
    if local == 0u {
        store_loss(0, p.factor * total.x);
    }
}

{{ buffer(3, "d_loss", "f32") }}
{{ buffer(4, "d_from", values(element[4])) }}

// d_from may be what it is the gradient of.
{{ entry_point("commitment_loss_backward") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        let difference = load_from_vectors(i) - load_to_vectors(i);
        store_d_from(i, p.factor * load_d_loss(0) * difference);
    }
}
