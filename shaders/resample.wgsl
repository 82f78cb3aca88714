// Kernels of src/layers/resample.rs; neighbouring invocations have neighbouring channels: `vectors` each, of one or (width = 4) four.
{% include "common/divide.wgsl" %}
{% include "common/finite.wgsl" %}
{% include "common/frames.wgsl" %}
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};
alias Values = array<Value, {{ vectors }}>;

struct Parameters {
    window: FrameWindow,
    // Extents of x, which is read between its cells, and of y; then another word.
    x_size: vec4<i32>,
    y_size: vec4<i32>,
    count: i32,
    channels: i32, // C / (width * vectors)
    // The first row of the map from cells of y in a frame's motion.
    rows: u32,
    // The first frame of y that is bound.
    bound: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", values(element[1]), index="i32") }}
{{ buffer(1, "d_x", values(element[1]), index="i32") }}
{{ buffer(2, "y", values(element[2]), index="i32") }}
{{ buffer(2, "d_y", values(element[2]), index="i32") }}
// Rows of maps, six a frame.
{{ buffer(3, "motion", "vec4<f32>") }}

// The map whose rows begin at `row`.
fn map_at(row: u32) -> mat3x4<f32> {
    return mat3x4(load_motion(row), load_motion(row + 1u), load_motion(row + 2u));
}

fn mapped(map: mat3x4<f32>, cell: vec3<i32>) -> vec3<f32> {
    return vec4(vec3<f32>(cell), 1.0) * map;
}

// The first of an invocation's elements.
fn element_of(frame: i32, cell: vec3<i32>, size: vec3<i32>, c: i32) -> i32 {
    return {{ vectors }} * ((((frame * size.x + cell.x) * size.y + cell.y) * size.z + cell.z) * p.channels + c);
}

// Which frame of those from the window's first on, which cell of volumes of that size, and which channels.
struct Item {
    frame: i32,
    cell: vec3<i32>,
    c: i32,
}

fn item_of(i: i32, size: vec3<i32>) -> Item {
    let row = divided(i, p.channels);
    let position = position_in(size, row);
    let frame = divided(position.x, size.x);
    return Item(frame, vec3(position.x - frame * size.x, position.yz), i - row * p.channels);
}

// The cells of x next to a place, of which `lower` is the first along each axis, with their weights: 0 for one that is outside.
struct Cells {
    lower: vec3<i32>,
    weights: array<vec3<f32>, 2>,
    // No cell outside would have a weight.
    is_whole: bool,
}

fn cells_at(place: vec3<f32>, size: vec3<i32>) -> Cells {
    // Wherever it is outside, it is not far, so that it is an integer; and what is no number is outside.
    let near = clamp(place, vec3(-2.0), vec3<f32>(size) + 1.0);
    let at = select(vec3(-2.0), near, is_finite(place.x + place.y + place.z));
    let floors = floor(at);
    let share = at - floors;
    let lower = vec3<i32>(floors);
    let has_lower = (lower >= vec3(0)) & (lower < size);
    let has_upper = (lower >= vec3(-1)) & (lower < size - 1);
    let weights = array(select(vec3(0.0), 1.0 - share, has_lower), select(vec3(0.0), share, has_upper));
    return Cells(lower, weights, all(has_lower & (has_upper | (share == vec3(0.0)))));
}

// One invocation some elements of y. What has no weight is not read, so that an identity copies whatever there is.
{{ entry_point("resample_forward") }}
    let i = i32(invocation_index(workgroup, grid, local));
    if i >= p.count {
        return;
    }
    let item = item_of(i, p.y_size.xyz);
    let n = p.window.first + u32(item.frame);
{% if still %}
    let frame = i32(n / p.window.time);
{% else %}
    let frame = item.frame;
{% endif %}
    let cells = cells_at(mapped(map_at(6u * n + p.rows), item.cell), p.x_size.xyz);
    let first = element_of(frame, cells.lower, p.x_size.xyz, item.c);
    let strides = vec3(p.x_size.y * p.x_size.z, p.x_size.z, 1) * {{ vectors }} * p.channels;
    // -0, to which any number adds without a change.
    var sums: Values;
{% for k in range(vectors) %}
    sums[{{ k }}] = Value(-0.0);
{% endfor %}
    var is_outside = true;
{% for x in range(2) %}
{% for y in range(2) %}
{% for z in range(2) %}
    {
        let weight = cells.weights[{{ x }}].x * cells.weights[{{ y }}].y * cells.weights[{{ z }}].z;
        if weight > 0.0 {
            let at = first + {{ x }} * strides.x + {{ y }} * strides.y + {{ z }} * strides.z;
{% for k in range(vectors) %}
            sums[{{ k }}] += weight * load_x(at + {{ k }});
{% endfor %}
            is_outside = false;
        }
    }
{% endfor %}
{% endfor %}
{% endfor %}
{% for k in range(vectors) %}
    store_y({{ vectors }} * i + {{ k }}, select(sums[{{ k }}], Value(0.0), is_outside));
{% endfor %}
}

// The cells of y that read one of x lie around where the other map puts it: at most so far along each axis, which are so many, so
// that the loops over 64 frames have 64 * (8 + 64 + 512) iterations at most.
const FARTHEST: f32 = 3.999;
const MOST: i32 = 8;

// What rounding may add to that distance.
const ROUNDING: f32 = 0.001;

fn spread_of(row: vec4<f32>) -> f32 {
    return abs(row.x) + abs(row.y) + abs(row.z);
}

fn is_sound(map: mat3x4<f32>) -> bool {
    let sums = vec4(1.0) * map;
    return is_finite(sums.x + sums.y + sums.z);
}

// Into y's extents.
fn clamped(place: vec3<f32>) -> vec3<i32> {
    return clamp(vec3<i32>(clamp(place, vec3(0.0), vec3<f32>(p.y_size.xyz))), vec3(0), p.y_size.xyz);
}

// One invocation some elements of d_x: it looks at the cells of y that may have read this one of x, in one frame or in all.
{{ entry_point("resample_backward") }}
    let i = i32(invocation_index(workgroup, grid, local));
    if i >= p.count {
        return;
    }
    let item = item_of(i, p.x_size.xyz);
{% if still %}
    let b = p.window.first_sequence + u32(item.frame);
    let frames = frames_of(p.window, b);
    let to = element_of(i32(b), item.cell, p.x_size.xyz, item.c);
{% else %}
    let frames = vec2(p.window.first + u32(item.frame)) + vec2(0u, 1u);
    let to = {{ vectors }} * i;
{% endif %}
    let cell = vec3<f32>(item.cell);
    var sums: Values;
    for (var n = frames.x; n < frames.y; n += 1u) {
        let map = map_at(6u * n + p.rows);
        let other = map_at(6u * n + 3u - p.rows);
        let middle = mapped(other, item.cell);
        let spread = vec3(spread_of(other[0]), spread_of(other[1]), spread_of(other[2]));
        let reach = min(spread + ROUNDING, vec3(FARTHEST));
        let first = clamped(ceil(middle - reach));
        // What is no number has no cells, and whatever becomes of it there are no more than these.
        let most = select(0, MOST, is_sound(map) && is_sound(other));
        let end = min(clamped(floor(middle + reach) + 1.0), first + most);
        for (var x = first.x; x < end.x; x += 1) {
            for (var y = first.y; y < end.y; y += 1) {
                for (var z = first.z; z < end.z; z += 1) {
                    let near = max(vec3(0.0), 1.0 - abs(mapped(map, vec3(x, y, z)) - cell));
                    let weight = near.x * near.y * near.z;
                    if weight > 0.0 {
                        let at = element_of(i32(n - p.bound), vec3(x, y, z), p.y_size.xyz, item.c);
{% for k in range(vectors) %}
                        sums[{{ k }}] += weight * load_d_y(at + {{ k }});
{% endfor %}
                    }
                }
            }
        }
    }
{% if still %}
    // The launches run in order; all but a sequence's first add to what the one before wrote.
    if frames.x > b * p.window.time {
{% for k in range(vectors) %}
        sums[{{ k }}] += load_d_x(to + {{ k }});
{% endfor %}
    }
{% endif %}
{% for k in range(vectors) %}
    store_d_x(to + {{ k }}, sums[{{ k }}]);
{% endfor %}
}

// What is taken from the score of a frame that never saw the place.
const UNSEEN: f32 = 16.0;

// One invocation some elements; y may be x. The score itself where all is seen.
{{ entry_point("resample_only_seen") }}
    let i = i32(invocation_index(workgroup, grid, local));
    if i >= p.count {
        return;
    }
    let item = item_of(i, p.y_size.xyz);
    let n = p.window.first + u32(item.frame);
    let cells = cells_at(mapped(map_at(6u * n + p.rows), item.cell), p.x_size.xyz);
    let inside = cells.weights[0] + cells.weights[1];
    let taken = UNSEEN * (1.0 - inside.x * inside.y * inside.z);
{% for k in range(vectors) %}
    {
        let at = {{ vectors }} * i + {{ k }};
        let score = load_x(at);
        store_y(at, select(score - taken, score, cells.is_whole));
    }
{% endfor %}
}
