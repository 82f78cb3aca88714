// Kernels of src/layers/ceiling.rs: nothing but multiply-adds, and nothing but memory traffic.
{% include "common/index.wgsl" %}
alias Value = {{ "vec4<f32>" if width == 4 else "f32" }};

struct Parameters {
    count: u32,
    iterations: u32,
    factor: f32,
    addend: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<Value>;
@group(0) @binding(2) var<storage, read_write> y: array<Value>;

{% if width == 1 %}
// Independent chains, so that none waits for its own last result; with factor and addend they fit sixteen registers.
@compute @workgroup_size(64)
fn ceiling_multiply_add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i >= p.count {
        return;
    }
    let factor = p.factor;
    let addend = p.addend;
    {% for chain in range(chains) %}
    var c{{ chain }} = x[i] + {{ chain }}.0;
    {% endfor %}
    for (var iteration = 0u; iteration < p.iterations; iteration += 1u) {
        {% for _ in range(rounds) %}
        {% for chain in range(chains) %}
        c{{ chain }} = fma(c{{ chain }}, factor, addend);
        {% endfor %}
        {% endfor %}
    }
    y[i] = {% for chain in range(chains) %}{{ " + " if chain else "" }}c{{ chain }}{% endfor %};
}
{% else %}
@compute @workgroup_size(64)
fn ceiling_copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        y[i] = x[i];
    }
}
{% endif %}
