// Kernels of src/layers/average.rs; 64 invocations a workgroup, one or (width = 4) four elements each.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    count: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "before", values("f32")) }}
{{ buffer(2, "added", values("f32")) }}
{{ buffer(3, "after", values("f32")) }}

{% if entry == "accumulate" %}
{{ buffer(4, "first", "u32") }}

{{ entry_point("accumulate") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        store_after(i, select(load_before(i), Value(0.0), load_first(0) == 1u) + load_added(i));
    }
}
{% else %}
{{ buffer(4, "state", "f32") }}
{{ buffer(5, "hyper", "f32") }}

{{ entry_point("moving_average") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        let kept = select(1.0, load_hyper(3), load_state(1) > 0.5);
        store_after(i, kept * load_before(i) + (1.0 - kept) * load_added(i));
    }
}
{% endif %}
