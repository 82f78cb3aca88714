// Kernels of src/layers/gate.rs; neighbouring invocations have neighbouring channels.
{% include "common/index.wgsl" %}
{% include "common/frames.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

const SCALE: f32 = 0.5773502691896258;

struct Product {
    window: FrameWindow,
    sequences: u32,
    x: u32,
    y: u32,
    z: u32,
    channels: u32,
}

// gate_backward_plane: the plane's axis a and the axes i, j that are summed over; strides are in cells.
struct Reduction {
    window: FrameWindow,
    chunks: u32,
    i_per_chunk: u32,
    channels: u32,
    // The first of the plane's channels of psi.
    first_channel: u32,
    cells: u32,
    a: u32,
    a_stride: u32,
    i: u32,
    i_stride: u32,
    j: u32,
    j_stride: u32,
}

{{ parameters("p", "Product") }}
{{ parameters("r", "Reduction") }}
{{ buffer(1, "psi", element[1]) }}
{{ buffer(1, "d_psi", element[1]) }}
{{ buffer(2, "w", element[2]) }}
{{ buffer(2, "d_w", element[2]) }}
{{ buffer(3, "p_tx", "f32") }}
{{ buffer(4, "p_ty", "f32") }}
{{ buffer(5, "p_tz", "f32") }}
{{ buffer(3, "chunk_sums", "f32") }}

// One invocation per (b, x, y, z, d): it loops over the sequence's frames in the window.
struct Place {
    valid: bool,
    b: u32,
    // Where psi_tx is; psi_ty and psi_tz follow `channels` later each.
    gate: u32,
    // Element of a frame of W.
    element: u32,
    x: u32,
    y: u32,
    z: u32,
}

fn place_of(index: u32) -> Place {
    let d = index % p.channels;
    let row = index / p.channels;
    let cells = p.x * p.y * p.z;
    let cell = row % cells;
    let sequence = row / cells;
    let b = p.window.first_sequence + sequence;
    var place: Place;
    place.valid = sequence < p.sequences;
    place.b = b;
    place.gate = ((b - first_still(p.window)) * cells + cell) * 3u * p.channels + d;
    place.element = cell * p.channels + d;
    place.z = cell % p.z * p.channels + d;
    place.y = cell / p.z % p.y * p.channels + d;
    place.x = cell / (p.z * p.y) * p.channels + d;
    return place;
}

{{ entry_point("gate_forward") }}
    let place = place_of(invocation_index(workgroup, grid, local));
    if !place.valid {
        return;
    }
    let psi_tx = SCALE * load_psi(place.gate);
    let psi_ty = SCALE * load_psi(place.gate + p.channels);
    let psi_tz = SCALE * load_psi(place.gate + 2u * p.channels);
    let frame = p.x * p.y * p.z * p.channels;
    let frames = frames_of(p.window, place.b);
    for (var n = frames.x; n < frames.y; n += 1u) {
        let product = psi_tx * load_p_tx(n * p.x * p.channels + place.x)
            + psi_ty * load_p_ty(n * p.y * p.channels + place.y)
            + psi_tz * load_p_tz(n * p.z * p.channels + place.z);
        store_w((n - p.window.first) * frame + place.element, product);
    }
}

{{ entry_point("gate_backward_psi") }}
    let place = place_of(invocation_index(workgroup, grid, local));
    if !place.valid {
        return;
    }
    let frame = p.x * p.y * p.z * p.channels;
    let frames = frames_of(p.window, place.b);
    var sum = vec3(0.0);
    for (var n = frames.x; n < frames.y; n += 1u) {
        let planes = vec3(
            load_p_tx(n * p.x * p.channels + place.x),
            load_p_ty(n * p.y * p.channels + place.y),
            load_p_tz(n * p.z * p.channels + place.z),
        );
        sum += load_d_w((n - p.window.first) * frame + place.element) * planes;
    }
    sum *= SCALE;
    // The windows run in order; all but a sequence's first add to what the one before wrote.
    if frames.x > place.b * p.window.time {
        sum += vec3(load_d_psi(place.gate), load_d_psi(place.gate + p.channels), load_d_psi(place.gate + 2u * p.channels));
    }
    store_d_psi(place.gate, sum.x);
    store_d_psi(place.gate + p.channels, sum.y);
    store_d_psi(place.gate + 2u * p.channels, sum.z);
}

// The sum over j and one chunk of i, as [chunk, n, a, d] with n counted from the window's first: one invocation an element.
{{ entry_point("gate_backward_plane", parameters="r") }}
    let index = invocation_index(workgroup, grid, local);
    let frames = r.window.end - r.window.first;
    let d = index % r.channels;
    let a = index / r.channels % r.a;
    let n = index / (r.channels * r.a) % frames;
    let chunk = index / (r.channels * r.a * frames);
    if chunk >= r.chunks {
        return;
    }
    let b = (r.window.first + n) / r.window.time;
    let end = min(r.i, (chunk + 1u) * r.i_per_chunk);
    var sum = 0.0;
    for (var i = chunk * r.i_per_chunk; i < end; i += 1u) {
        let cell = a * r.a_stride + i * r.i_stride;
        var gate = ((b - first_still(r.window)) * r.cells + cell) * 3u * r.channels + r.first_channel + d;
        var product = (n * r.cells + cell) * r.channels + d;
        for (var j = 0u; j < r.j; j += 1u) {
            sum += load_psi(gate) * load_d_w(product);
            gate += 3u * r.j_stride * r.channels;
            product += r.j_stride * r.channels;
        }
    }
    store_chunk_sums(index, SCALE * sum);
}
