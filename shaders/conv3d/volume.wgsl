// Parameters and positions of the convolutions for GPUs.
{% from "common/operands.wgsl" import parameters %}

struct Parameters {
    size: vec3<i32>,   // X, Y, Z; a linear layer has its rows along Z
    ci: i32,
    kernel: vec3<i32>, // taps along x, y, z
    co: i32,
    count: i32,        // voxels
    co_padded: i32,
    bias_at: i32,      // of the packed bias, in vec4
    chunk: i32,        // voxels of a chunk
    parts: i32,
    accumulate: u32,
    {% if padded is defined %}
    x_size: vec3<i32>, // X, Y, Z of x; those of y are above
    before: vec3<i32>, // voxels of padding before x
    {% endif %}
}

{{ parameters("p", "Parameters") }}

{% if pointwise is defined and not pointwise %}
{% set x_size = "p.x_size" if padded is defined else "p.size" %}
{% set position_type = "vec4<i32>" if padded is defined else "vec3<i32>" %}
{% if padded is defined %}
// A voxel of y and, as w, its frame.
fn position_of(voxel: i32) -> vec4<i32> {
    let x = voxel / (p.size.z * p.size.y);
    return vec4(x % p.size.x, voxel / p.size.z % p.size.y, voxel % p.size.z, x / p.size.x);
}

// The voxel of x that has this position in y.
fn x_voxel(position: vec4<i32>) -> i32 {
    return position.w * p.x_size.x * p.x_size.y * p.x_size.z + distance(position.xyz);
}
{% else %}
fn position_of(voxel: i32) -> vec3<i32> {
    return vec3(voxel / (p.size.z * p.size.y) % p.size.x, voxel / p.size.z % p.size.y, voxel % p.size.z);
}
{% endif %}

// Voxels from one position to another.
fn distance(offset: vec3<i32>) -> i32 {
    return (offset.x * {{ x_size }}.y + offset.y) * {{ x_size }}.z + offset.z;
}

fn inside(position: vec3<i32>) -> bool {
    return all(vec3<u32>(position) < vec3<u32>({{ x_size }}));
}

// One bit for each tap of an axis under which a voxel `at` that place has a neighbour.
{% if padded is defined %}
fn taps_along(at: i32, size: i32, taps: i32, before: i32) -> u32 {
    let first = clamp(before - at, 0, taps);
    let end = clamp(before - at + size, first, taps);
    return (1u << u32(end)) - (1u << u32(first));
}
{% else %}
fn taps_along(at: i32, size: i32, taps: i32) -> u32 {
    let first = max(taps / 2 - at, 0);
    let last = min(taps / 2 - at + size, taps) - 1;
    return (2u << u32(last)) - (1u << u32(first));
}
{% endif %}

// The same for all axes: those of x from bit 0 on, of y from 12, of z from 22. An axis has at most 7 taps.
fn taps_inside(position: {{ position_type }}) -> u32 {
    return taps_along(position.x, {{ x_size }}.x, p.kernel.x{{ ", p.before.x" if padded is defined }})
        | (taps_along(position.y, {{ x_size }}.y, p.kernel.y{{ ", p.before.y" if padded is defined }}) << 12u)
        | (taps_along(position.z, {{ x_size }}.z, p.kernel.z{{ ", p.before.z" if padded is defined }}) << 22u);
}

// The bits that `taps_inside` has if this tap is inside.
fn tap_bits(tap: vec3<i32>) -> u32 {
    return (1u << u32(tap.x)) | (1u << u32(tap.y + 12)) | (1u << u32(tap.z + 22));
}

// The tap of that number, and the bits that `taps_inside` has if it is inside; those of taps past the last one are never set.
fn tap_of(number: i32) -> vec3<i32> {
    return vec3(number / (p.kernel.y * p.kernel.z), number / p.kernel.z % p.kernel.y, number % p.kernel.z);
}

fn bits_of(tap: vec3<i32>) -> u32 {
    return select(1u << 11u, tap_bits(tap), tap.x < p.kernel.x);
}

// Taps come in the order of the weight; at most four past the last one are asked for, and have bits of their own.
fn next_tap(tap: vec3<i32>) -> vec3<i32> {
    if tap.z + 1 < p.kernel.z {
        return vec3(tap.xy, tap.z + 1);
    }
    if tap.y + 1 < p.kernel.y {
        return vec3(tap.x, tap.y + 1, 0);
    }
    return vec3(tap.x + 1, 0, 0);
}

// The position `step` voxels on, where both are positions; {{ "x_voxel needs the frame" if padded is defined else "the frame does not matter" }}.
fn moved(position: {{ position_type }}, step: {{ position_type }}) -> {{ position_type }} {
    var to = position + step;
    if to.z >= p.size.z {
        to.z -= p.size.z;
        to.y += 1;
    }
    if to.y >= p.size.y {
        to.y -= p.size.y;
        to.x += 1;
    }
    if to.x >= p.size.x {
        to.x -= p.size.x;
        {% if padded is defined %}
        to.w += 1;
        {% endif %}
    }
    return to;
}
{% endif %}
