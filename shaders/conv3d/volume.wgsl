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

// Taps are offsets in the order of the weight; past the last one, x is beyond `half.x`.
fn next_tap(tap: vec3<i32>, half: vec3<i32>) -> vec3<i32> {
    if tap.z < half.z {
        return vec3(tap.xy, tap.z + 1);
    }
    if tap.y < half.y {
        return vec3(tap.x, tap.y + 1, -half.z);
    }
    return vec3(tap.x + 1, -half.yz);
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
