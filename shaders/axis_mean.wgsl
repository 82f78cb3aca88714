// Kernels of src/layers/axis_mean.rs. x is [B, A1, A2, D] seen as [outer, extent, inner], y is [outer, inner].
{% include "common/index.wgsl" %}

struct Parameters {
    outer: u32,
    extent: u32,
    inner: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read_write> d_y: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_x: array<f32>;

// One invocation an element of y.
@compute @workgroup_size(64)
fn axis_mean_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i >= p.outer * p.inner {
        return;
    }
    let first = (i / p.inner) * p.extent * p.inner + i % p.inner;
    var sum = 0.0;
    for (var k = 0u; k < p.extent; k += 1u) {
        sum += x[first + k * p.inner];
    }
    y[i] = sum / f32(p.extent);
}

// One invocation an element of d_x.
@compute @workgroup_size(64)
fn axis_mean_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i >= p.outer * p.extent * p.inner {
        return;
    }
    d_x[i] = d_y[i / (p.extent * p.inner) * p.inner + i % p.inner] / f32(p.extent);
}
