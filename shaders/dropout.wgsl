// Kernel of src/layers/dropout.rs; one invocation four elements, the words of one block of random numbers.
{% include "common/index.wgsl" %}
{% include "common/philox.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}

struct Parameters {
    elements: u32,
    // Number of this window's first block in the whole tensor.
    first_block: u32,
    stream: u32,
    // Words below it drop an element.
    threshold: u32,
    scale: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", values(element[1])) }}
{{ buffer(2, "rng", "u32") }}
{{ buffer(3, "y", values(element[3])) }}

// y may be x.
{{ entry_point("dropout") }}
    let block = invocation_index(workgroup, grid, local);
    if 4u * block >= p.elements {
        return;
    }
    let words = philox(vec4(p.first_block + block, p.stream, load_rng(2), 1u), vec2(load_rng(0), load_rng(1)));
    let factors = select(vec4(0.0), vec4(p.scale), words >= vec4(p.threshold));
{% if width == 4 %}
    store_y(block, factors * load_x(block));
{% else %}
    {% for i in range(4) %}
    if 4u * block + {{ i }}u < p.elements {
        store_y(4u * block + {{ i }}u, factors.{{ "xyzw"[i] }} * load_x(4u * block + {{ i }}u));
    }
    {% endfor %}
{% endif %}
}
