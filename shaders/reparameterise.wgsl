// Kernels of src/layers/reparameterise.rs. An element is one of the sample's; its mu and logvar are C apart in m.
{% include "common/index.wgsl" %}
{% include "common/reduce.wgsl" %}
{% include "common/philox.wgsl" %}

struct Parameters {
    elements: u32,
    channels: u32,
    stream: u32,
    // Number of this window's first element in the whole tensor.
    first_element: u32,
    elements_per_invocation: u32,
    first_group: u32,
    groups: u32,
    kl_scale: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;
@group(0) @binding(1) var<storage, read_write> m: array<f32>;
@group(0) @binding(2) var<storage, read_write> rng: array<u32>;

fn mu_index(i: u32) -> u32 {
    return (i / p.channels) * 2u * p.channels + i % p.channels;
}

fn noise(i: u32) -> f32 {
    return philox_normal(vec2(rng[0], rng[1]), rng[2], p.stream, p.first_element + i);
}

@group(0) @binding(3) var<storage, read_write> sample: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

@compute @workgroup_size(64)
fn reparameterise_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, grid);
    var sum = 0.0;
    for (var k = 0u; k < p.elements_per_invocation; k += 1u) {
        let i = (group * p.elements_per_invocation + k) * 64u + local;
        if i >= p.elements {
            break;
        }
        let mu = m[mu_index(i)];
        let logvar = m[mu_index(i) + p.channels];
        sample[i] = mu + noise(i) * exp(0.5 * logvar);
        sum += 0.5 * (mu * mu + exp(logvar) - 1.0 - logvar);
    }
    let group_sum = workgroup_sum(vec2(sum, 0.0), local);
    if local == 0u && group < p.groups {
        partials[p.first_group + group] = group_sum.x;
    }
}

@group(0) @binding(1) var<storage, read_write> all_partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> kl: array<f32>;

@compute @workgroup_size(64)
fn reparameterise_kl(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < p.groups; i += 64u) {
        sum += all_partials[i];
    }
    let total = workgroup_sum(vec2(sum, 0.0), local);
    if local == 0u {
        kl[0] = total.x * p.kl_scale;
    }
}

@group(0) @binding(3) var<storage, read_write> d_sample: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_kl: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_m: array<f32>;

@compute @workgroup_size(64)
fn reparameterise_backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.elements {
        let at = mu_index(i);
        let mu = m[at];
        let logvar = m[at + p.channels];
        let d = d_sample[i];
        let d_divergence = d_kl[0] * p.kl_scale;
        d_m[at] = d + d_divergence * mu;
        d_m[at + p.channels] = 0.5 * (d * noise(i) * exp(0.5 * logvar) + d_divergence * (exp(logvar) - 1.0));
    }
}

@group(0) @binding(2) var<storage, read_write> mean: array<f32>;

@compute @workgroup_size(64)
fn reparameterise_mean(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.elements {
        mean[i] = m[mu_index(i)];
    }
}
