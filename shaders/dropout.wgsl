// Kernel of src/layers/dropout.rs; one invocation four elements, the words of one block of random numbers.
{% include "common/index.wgsl" %}
{% include "common/philox.wgsl" %}
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

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<{{ values(element[1]) }}>;
@group(0) @binding(2) var<storage, read_write> rng: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ values(element[3]) }}>;

// y may be x.
@compute @workgroup_size(64)
fn dropout(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = invocation_index(workgroup, grid, local);
    if 4u * block >= p.elements {
        return;
    }
    let words = philox(vec4(p.first_block + block, p.stream, rng[2], 1u), vec2(rng[0], rng[1]));
    let factors = select(vec4(0.0), vec4(p.scale), words >= vec4(p.threshold));
{% if width == 4 %}
    y[block] = {{ values(element[3]) }}(factors * vec4<f32>(x[block]));
{% else %}
    {% for i in range(4) %}
    if 4u * block + {{ i }}u < p.elements {
        y[4u * block + {{ i }}u] = {{ element[3] }}(factors.{{ "xyzw"[i] }} * f32(x[4u * block + {{ i }}u]));
    }
    {% endfor %}
{% endif %}
}
