// Kernels of src/layers/average.rs; 64 invocations a workgroup, one or (width = 4) four elements each.
{% include "common/index.wgsl" %}
alias Value = {{ "vec4<f32>" if width == 4 else "f32" }};

struct Parameters {
    count: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> before: array<Value>;
@group(0) @binding(2) var<storage, read_write> added: array<Value>;
@group(0) @binding(3) var<storage, read_write> after: array<Value>;

{% if entry == "accumulate" %}
@group(0) @binding(4) var<storage, read_write> first: array<u32>;

@compute @workgroup_size(64)
fn accumulate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        after[i] = select(before[i], Value(0.0), first[0] == 1u) + added[i];
    }
}
{% else %}
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read_write> hyper: array<f32>;

@compute @workgroup_size(64)
fn moving_average(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        let kept = select(1.0, hyper[3], state[1] > 0.5);
        after[i] = kept * before[i] + (1.0 - kept) * added[i];
    }
}
{% endif %}
