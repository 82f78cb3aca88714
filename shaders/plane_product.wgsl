// Kernels of src/layers/plane_product.rs; neighbouring invocations have neighbouring channels, one each or (width = 4) four.
{% include "common/index.wgsl" %}
{% include "common/frames.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Product {
    window: FrameWindow,
    sequences: u32,
    x: u32,
    y: u32,
    z: u32,
    channels: u32, // D / width
}

// plane_product_backward_plane: the plane's axis a and the axes i, j that are summed over; strides are in cells.
struct Reduction {
    window: FrameWindow,
    chunks: u32,
    i_per_chunk: u32,
    channels: u32, // D / width
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
{{ buffer(1, "still", values(element[1])) }}
{{ buffer(1, "d_still", values(element[1])) }}
{{ buffer(2, "product", values(element[2])) }}
{{ buffer(2, "d_product", values(element[2])) }}
{{ buffer(3, "p_tx", values("f32")) }}
{{ buffer(4, "p_ty", values("f32")) }}
{{ buffer(5, "p_tz", values("f32")) }}
// The planes of the axes i and j.
{{ buffer(3, "p_i", values("f32")) }}
{{ buffer(4, "p_j", values("f32")) }}
{{ buffer(5, "chunk_sums", values("f32")) }}

// One invocation per (b, x, y, z, d): it loops over the sequence's frames in the window.
struct Place {
    valid: bool,
    b: u32,
    // Element of the still volume, and of a frame of the product.
    still_element: u32,
    element: u32,
    // Elements of a frame of each plane.
    plane_elements: vec3<u32>,
}

fn place_of(index: u32) -> Place {
    let channel = index % p.channels;
    let row = index / p.channels;
    let cells = p.x * p.y * p.z;
    let cell = row % cells;
    let sequence = row / cells;
    let at = vec3(cell / (p.z * p.y), cell / p.z % p.y, cell % p.z);
    var place: Place;
    place.valid = sequence < p.sequences;
    place.b = p.window.first_sequence + sequence;
    place.still_element = (place.b * cells + cell) * p.channels + channel;
    place.element = cell * p.channels + channel;
    place.plane_elements = at * p.channels + channel;
    return place;
}

fn planes_product(place: Place, n: u32) -> Value {
    let plane = n * vec3(p.x, p.y, p.z) * p.channels + place.plane_elements;
    return load_p_tx(plane.x) * load_p_ty(plane.y) * load_p_tz(plane.z);
}

{{ entry_point("plane_product_forward") }}
    let place = place_of(invocation_index(workgroup, grid, local));
    if !place.valid {
        return;
    }
    let factor = load_still(place.still_element);
    let frame = p.x * p.y * p.z * p.channels;
    let frames = frames_of(p.window, place.b);
    for (var n = frames.x; n < frames.y; n += 1u) {
        let value = factor * planes_product(place, n);
        store_product((n - p.window.first) * frame + place.element, value);
    }
}

{{ entry_point("plane_product_backward_still") }}
    let place = place_of(invocation_index(workgroup, grid, local));
    if !place.valid {
        return;
    }
    let frame = p.x * p.y * p.z * p.channels;
    let frames = frames_of(p.window, place.b);
    var sum = Value(0.0);
    for (var n = frames.x; n < frames.y; n += 1u) {
        sum += load_d_product((n - p.window.first) * frame + place.element) * planes_product(place, n);
    }
    // The windows run in order; all but a sequence's first add to what the one before wrote.
    if frames.x > place.b * p.window.time {
        sum += load_d_still(place.still_element);
    }
    store_d_still(place.still_element, sum);
}

// The sum over j and one chunk of i, as [chunk, n, a, d] with n counted from the window's first: one invocation an element.
{{ entry_point("plane_product_backward_plane", parameters="r") }}
    let index = invocation_index(workgroup, grid, local);
    let frames = r.window.end - r.window.first;
    let channel = index % r.channels;
    let a = index / r.channels % r.a;
    let n = index / (r.channels * r.a) % frames;
    let chunk = index / (r.channels * r.a * frames);
    if chunk >= r.chunks {
        return;
    }
    let frame = r.window.first + n;
    let b = frame / r.window.time;
    let end = min(r.i, (chunk + 1u) * r.i_per_chunk);
    var sum = Value(0.0);
    for (var i = chunk * r.i_per_chunk; i < end; i += 1u) {
        let cell = a * r.a_stride + i * r.i_stride;
        var still_element = (b * r.cells + cell) * r.channels + channel;
        var element = (n * r.cells + cell) * r.channels + channel;
        var j_element = frame * r.j * r.channels + channel;
        var along_j = Value(0.0);
        for (var j = 0u; j < r.j; j += 1u) {
            along_j += load_still(still_element) * load_d_product(element) * load_p_j(j_element);
            still_element += r.j_stride * r.channels;
            element += r.j_stride * r.channels;
            j_element += r.channels;
        }
        sum += along_j * load_p_i((frame * r.i + i) * r.channels + channel);
    }
    store_chunk_sums(index, sum);
}
