// Kernels of src/layers/lift.rs; neighbouring invocations have neighbouring channels.
{% include "common/index.wgsl" %}

const SCALE: f32 = 0.5773502691896258;

// lift_forward: the volume's shape.
struct Volume {
    batch: u32,
    x: u32,
    y: u32,
    z: u32,
    channels: u32,
}

// lift_backward_*: the volume seen from one plane with axes i, j and missing axis m; strides are in cells.
struct View {
    batch: u32,
    cells: u32,
    channels: u32,
    i: u32,
    j: u32,
    m: u32,
    i_stride: u32,
    j_stride: u32,
    m_stride: u32,
}

@group(0) @binding(0) var<uniform> volume: Volume;
@group(0) @binding(1) var<storage, read_write> phi_xy: array<f32>;
@group(0) @binding(2) var<storage, read_write> p_xy: array<f32>;
@group(0) @binding(3) var<storage, read_write> phi_xz: array<f32>;
@group(0) @binding(4) var<storage, read_write> p_xz: array<f32>;
@group(0) @binding(5) var<storage, read_write> phi_yz: array<f32>;
@group(0) @binding(6) var<storage, read_write> p_yz: array<f32>;
@group(0) @binding(7) var<storage, read_write> v: array<{{ element[7] }}>;

@group(0) @binding(0) var<uniform> view: View;
// The plane or its factor, whichever the gradient is not of.
@group(0) @binding(1) var<storage, read_write> other: array<f32>;
@group(0) @binding(2) var<storage, read_write> d_v: array<{{ element[2] }}>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

// V[b,x,y,z,d]: one invocation an element.
@compute @workgroup_size(64)
fn lift_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let d = index % volume.channels;
    let cell = index / volume.channels;
    let z = cell % volume.z;
    let y = cell / volume.z % volume.y;
    let x = cell / (volume.z * volume.y) % volume.x;
    let b = cell / (volume.z * volume.y * volume.x);
    if b >= volume.batch {
        return;
    }
    let xy = phi_xy[(b * volume.z + z) * volume.channels + d]
        * p_xy[((b * volume.x + x) * volume.y + y) * volume.channels + d];
    let xz = phi_xz[(b * volume.y + y) * volume.channels + d]
        * p_xz[((b * volume.x + x) * volume.z + z) * volume.channels + d];
    let yz = phi_yz[(b * volume.x + x) * volume.channels + d]
        * p_yz[((b * volume.y + y) * volume.z + z) * volume.channels + d];
    v[index] = {{ element[7] }}(SCALE * (xy + xz + yz));
}

// The partial sum over j of d_phi[b,m,d], as [i, B, M, D]: one invocation an element.
@compute @workgroup_size(64)
fn lift_backward_factor(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let d = index % view.channels;
    let m = index / view.channels % view.m;
    let b = index / (view.channels * view.m) % view.batch;
    let i = index / (view.channels * view.m * view.batch);
    if i >= view.i {
        return;
    }
    var plane = (b * view.i + i) * view.j * view.channels + d;
    var cell = (b * view.cells + i * view.i_stride + m * view.m_stride) * view.channels + d;
    var sum = 0.0;
    for (var j = 0u; j < view.j; j += 1u) {
        sum += other[plane] * f32(d_v[cell]);
        plane += view.channels;
        cell += view.j_stride * view.channels;
    }
    result[index] = SCALE * sum;
}

// d_P[b,i,j,d], the sum over m: one invocation an element.
@compute @workgroup_size(64)
fn lift_backward_plane(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let d = index % view.channels;
    let j = index / view.channels % view.j;
    let i = index / (view.channels * view.j) % view.i;
    let b = index / (view.channels * view.j * view.i);
    if b >= view.batch {
        return;
    }
    var factor = b * view.m * view.channels + d;
    var cell = (b * view.cells + i * view.i_stride + j * view.j_stride) * view.channels + d;
    var sum = 0.0;
    for (var m = 0u; m < view.m; m += 1u) {
        sum += other[factor] * f32(d_v[cell]);
        factor += view.channels;
        cell += view.m_stride * view.channels;
    }
    result[index] = SCALE * sum;
}
