// Convolution over channels-last volumes: the plain form, one invocation an output element.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}

struct Parameters {
    n: u32, sx: u32, sy: u32, sz: u32,
    ci: u32, co: u32,
    kx: u32, ky: u32, kz: u32,
    activation: u32, first: u32, chunks: u32, chunk_voxels: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;
{% if bias %}
@group(0) @binding(4) var<storage, read_write> d: array<f32>;
{% endif %}

fn inside(x: i32, y: i32, z: i32) -> bool {
    return x >= 0 && y >= 0 && z >= 0 && x < i32(p.sx) && y < i32(p.sy) && z < i32(p.sz);
}

fn voxel_of(index: u32) -> vec4<i32> {
    let z = index % p.sz;
    let y = index / p.sz % p.sy;
    let x = index / (p.sz * p.sy) % p.sx;
    return vec4(vec3<i32>(vec3(x, y, z)), i32(index / (p.sz * p.sy * p.sx)));
}

fn index_of(v: vec4<i32>) -> u32 {
    return u32(((v.w * i32(p.sx) + v.x) * i32(p.sy) + v.y) * i32(p.sz) + v.z);
}

@compute @workgroup_size(64)
fn conv3d_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let o = index % p.co;
    let voxel = index / p.co;
    if voxel >= p.n * p.sx * p.sy * p.sz {
        return;
    }
    let v = voxel_of(voxel);
    {% if bias %}
    var sum = d[o];
    {% else %}
    var sum = 0.0;
    {% endif %}
    let taps = p.kx * p.ky * p.kz;
    for (var tap = 0u; tap < taps; tap += 1u) {
        let offset = vec3<i32>(vec3(tap / (p.ky * p.kz), tap / p.kz % p.ky, tap % p.kz)) - vec3<i32>(vec3(p.kx, p.ky, p.kz) / 2u);
        let source = vec4(v.xyz + offset, v.w);
        if inside(source.x, source.y, source.z) {
            let base = index_of(source) * p.ci;
            for (var i = 0u; i < p.ci; i += 1u) {
                sum += a[base + i] * b[(o * p.ci + i) * taps + tap];
            }
        }
    }
    c[index] = select(sum, lrelu(sum), p.activation == 1u);
}

@compute @workgroup_size(64)
fn conv3d_backward_data(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let i = index % p.ci;
    let voxel = index / p.ci;
    if voxel >= p.n * p.sx * p.sy * p.sz {
        return;
    }
    let v = voxel_of(voxel);
    var sum = 0.0;
    let taps = p.kx * p.ky * p.kz;
    for (var tap = 0u; tap < taps; tap += 1u) {
        let offset = vec3<i32>(vec3(tap / (p.ky * p.kz), tap / p.kz % p.ky, tap % p.kz)) - vec3<i32>(vec3(p.kx, p.ky, p.kz) / 2u);
        let to = vec4(v.xyz - offset, v.w);
        if inside(to.x, to.y, to.z) {
            let base = index_of(to) * p.co;
            for (var o = 0u; o < p.co; o += 1u) {
                sum += a[base + o] * b[(o * p.ci + i) * taps + tap];
            }
        }
    }
    c[index] = sum;
}

// Partial sums over one chunk of voxels: co*ci*taps weights, then co biases.
@compute @workgroup_size(64)
fn conv3d_backward_weight(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = invocation_index(workgroup, grid, local);
    let taps = p.kx * p.ky * p.kz;
    let weights = p.co * p.ci * taps;
    let chunk = index / (weights + p.co);
    let weight = index % (weights + p.co);
    if chunk >= p.chunks {
        return;
    }
    let start = chunk * p.chunk_voxels;
    let end = min(start + p.chunk_voxels, p.n * p.sx * p.sy * p.sz);
    var sum = 0.0;
    if weight >= weights {
        for (var voxel = start; voxel < end; voxel += 1u) {
            sum += b[voxel * p.co + weight - weights];
        }
    } else {
        let tap = weight % taps;
        let i = weight / taps % p.ci;
        let o = weight / (taps * p.ci);
        let offset = vec3<i32>(vec3(tap / (p.ky * p.kz), tap / p.kz % p.ky, tap % p.kz)) - vec3<i32>(vec3(p.kx, p.ky, p.kz) / 2u);
        for (var voxel = start; voxel < end; voxel += 1u) {
            let v = voxel_of(voxel);
            let source = vec4(v.xyz + offset, v.w);
            if inside(source.x, source.y, source.z) {
                sum += b[voxel * p.co + o] * a[index_of(source) * p.ci + i];
            }
        }
    }
    c[(p.first + chunk) * (weights + p.co) + weight] = sum;
}

@compute @workgroup_size(64)
fn conv3d_reduce_weight(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let weight = invocation_index(workgroup, grid, local);
    let weights = p.co * p.ci * p.kx * p.ky * p.kz;
    var sum = 0.0;
    if weight < weights + p.co {
        for (var chunk = 0u; chunk < p.chunks; chunk += 1u) {
            sum += a[chunk * (weights + p.co) + weight];
        }
        if weight < weights {
            b[weight] = sum;
        }
        {% if bias %}
        if weight >= weights {
            c[weight - weights] = sum;
        }
        {% endif %}
    }
}
