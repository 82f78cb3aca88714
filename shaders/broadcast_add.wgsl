// Kernels of src/layers/broadcast_add.rs; one invocation an element of a sequence, which loops over its frames.
{% include "common/index.wgsl" %}
{% include "common/frames.wgsl" %}
{% include "common/activation.wgsl" %}

struct Parameters {
    window: FrameWindow,
    // Elements a frame.
    unit: u32,
    sequences: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> x: array<{{ element[1] }}>;
@group(0) @binding(1) var<storage, read_write> d_y: array<{{ element[1] }}>;
@group(0) @binding(2) var<storage, read_write> s: array<{{ element[2] }}>;
@group(0) @binding(2) var<storage, read_write> d_s: array<{{ element[2] }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ element[3] }}>;
@group(0) @binding(4) var<storage, read_write> d_x: array<{{ element[4] }}>;

// y may be x.
@compute @workgroup_size(64)
fn broadcast_add_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    if index >= p.sequences * p.unit {
        return;
    }
    let b = p.window.first_sequence + index / p.unit;
    let element = index % p.unit;
    let term = f32(s[b * p.unit + element]);
    let frames = frames_of(p.window, b);
    for (var n = frames.x; n < frames.y; n += 1u) {
        let i = (n - p.window.first) * p.unit + element;
        y[i] = {{ element[3] }}(lrelu(f32(x[i]) + term));
    }
}

// d_x may be d_y.
@compute @workgroup_size(64)
fn broadcast_add_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    if index >= p.sequences * p.unit {
        return;
    }
    let b = p.window.first_sequence + index / p.unit;
    let element = index % p.unit;
    let frames = frames_of(p.window, b);
    var sum = 0.0;
    // The windows run in order; all but a sequence's first add to what the one before wrote.
    if frames.x > b * p.window.time {
        sum = f32(d_s[b * p.unit + element]);
    }
    for (var n = frames.x; n < frames.y; n += 1u) {
        let i = (n - p.window.first) * p.unit + element;
        let d = f32(d_y[i]) * lrelu_slope(f32(y[i]));
        d_x[i] = {{ element[4] }}(d);
        sum += d;
    }
    d_s[b * p.unit + element] = {{ element[2] }}(sum);
}
