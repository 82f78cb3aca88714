// Kernels of src/layers/lift.rs; neighbouring invocations have neighbouring channels.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

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

{{ parameters("volume", "Volume") }}
{{ buffer(1, "phi_xy", "f32") }}
{{ buffer(2, "p_xy", "f32") }}
{{ buffer(3, "phi_xz", "f32") }}
{{ buffer(4, "p_xz", "f32") }}
{{ buffer(5, "phi_yz", "f32") }}
{{ buffer(6, "p_yz", "f32") }}
{{ buffer(7, "v", element[7]) }}

{{ parameters("view", "View") }}
// The plane or its factor, whichever the gradient is not of.
{{ buffer(1, "other", "f32") }}
{{ buffer(2, "d_v", element[2]) }}
{{ buffer(3, "result", "f32") }}

// V[b,x,y,z,d]: one invocation an element.
{{ entry_point("lift_forward", parameters="volume") }}
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
    let xy = load_phi_xy((b * volume.z + z) * volume.channels + d)
        * load_p_xy(((b * volume.x + x) * volume.y + y) * volume.channels + d);
    let xz = load_phi_xz((b * volume.y + y) * volume.channels + d)
        * load_p_xz(((b * volume.x + x) * volume.z + z) * volume.channels + d);
    let yz = load_phi_yz((b * volume.x + x) * volume.channels + d)
        * load_p_yz(((b * volume.y + y) * volume.z + z) * volume.channels + d);
    store_v(index, SCALE * (xy + xz + yz));
}

// The partial sum over j of d_phi[b,m,d], as [i, B, M, D]: one invocation an element.
{{ entry_point("lift_backward_factor", parameters="view") }}
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
        sum += load_other(plane) * load_d_v(cell);
        plane += view.channels;
        cell += view.j_stride * view.channels;
    }
    store_result(index, SCALE * sum);
}

// d_P[b,i,j,d], the sum over m: one invocation an element.
{{ entry_point("lift_backward_plane", parameters="view") }}
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
        sum += load_other(factor) * load_d_v(cell);
        factor += view.channels;
        cell += view.m_stride * view.channels;
    }
    store_result(index, SCALE * sum);
}
