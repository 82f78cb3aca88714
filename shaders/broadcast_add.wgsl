// Kernels of src/layers/broadcast_add.rs; one invocation an element of a sequence, which loops over its frames.
{% include "common/index.wgsl" %}
{% include "common/frames.wgsl" %}
{% include "common/activation.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

struct Parameters {
    window: FrameWindow,
    // Elements a frame.
    unit: u32,
    sequences: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", element[1]) }}
{{ buffer(1, "d_y", element[1]) }}
{{ buffer(2, "s", element[2]) }}
{{ buffer(2, "d_s", element[2]) }}
{{ buffer(3, "y", element[3]) }}
{{ buffer(4, "d_x", element[4]) }}

// y may be x.
{{ entry_point("broadcast_add_forward") }}
    let index = invocation_index(workgroup, grid, local);
    if index >= p.sequences * p.unit {
        return;
    }
    let b = p.window.first_sequence + index / p.unit;
    let element = index % p.unit;
    let term = load_s((b - first_still(p.window)) * p.unit + element);
    let frames = frames_of(p.window, b);
    for (var n = frames.x; n < frames.y; n += 1u) {
        let i = (n - p.window.first) * p.unit + element;
        store_y(i, lrelu(load_x(i) + term));
    }
}

// d_x may be d_y.
{{ entry_point("broadcast_add_backward") }}
    let index = invocation_index(workgroup, grid, local);
    if index >= p.sequences * p.unit {
        return;
    }
    let b = p.window.first_sequence + index / p.unit;
    let element = index % p.unit;
    let still = (b - first_still(p.window)) * p.unit + element;
    let frames = frames_of(p.window, b);
    var sum = 0.0;
    // The windows run in order; all but a sequence's first add to what the one before wrote.
    if frames.x > b * p.window.time {
        sum = load_d_s(still);
    }
    for (var n = frames.x; n < frames.y; n += 1u) {
        let i = (n - p.window.first) * p.unit + element;
        let d = load_d_y(i) * lrelu_slope(load_y(i));
        store_d_x(i, d);
        sum += d;
    }
    store_d_s(still, sum);
}
