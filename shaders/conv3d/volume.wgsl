// Parameters and positions of the convolutions for GPUs.

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
}

@group(0) @binding(0) var<uniform> p: Parameters;

{% if pointwise is defined and not pointwise %}
fn position_of(voxel: i32) -> vec3<i32> {
    return vec3(voxel / (p.size.z * p.size.y) % p.size.x, voxel / p.size.z % p.size.y, voxel % p.size.z);
}

// Voxels from one position to another.
fn distance(offset: vec3<i32>) -> i32 {
    return (offset.x * p.size.y + offset.y) * p.size.z + offset.z;
}

fn inside(position: vec3<i32>) -> bool {
    return all(vec3<u32>(position) < vec3<u32>(p.size));
}

// One bit for each tap of an axis under which a voxel `at` that place has a neighbour.
fn taps_along(at: i32, size: i32, taps: i32) -> u32 {
    let first = max(taps / 2 - at, 0);
    let last = min(taps / 2 - at + size, taps) - 1;
    return (2u << u32(last)) - (1u << u32(first));
}

// The same for all axes: those of x from bit 0 on, of y from 12, of z from 22. An axis has at most 7 taps.
fn taps_inside(position: vec3<i32>) -> u32 {
    return taps_along(position.x, p.size.x, p.kernel.x)
        | (taps_along(position.y, p.size.y, p.kernel.y) << 12u)
        | (taps_along(position.z, p.size.z, p.kernel.z) << 22u);
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

// The position `step` voxels on, where both are positions; the frame does not matter.
fn moved(position: vec3<i32>, step: vec3<i32>) -> vec3<i32> {
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
    }
    return to;
}
{% endif %}
