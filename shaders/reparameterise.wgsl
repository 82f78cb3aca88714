// Kernels of src/layers/reparameterise.rs. An element is one of the sample's; its mu and logvar are C apart in m.
{% include "common/index.wgsl" %}
{% include "common/reduce.wgsl" %}
{% include "common/philox.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

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

{{ parameters("p", "Parameters") }}
{{ buffer(1, "m", "f32") }}
{{ buffer(2, "rng", "u32") }}

fn mu_index(i: u32) -> u32 {
    return (i / p.channels) * 2u * p.channels + i % p.channels;
}

fn noise(i: u32) -> f32 {
    return philox_normal(vec2(load_rng(0), load_rng(1)), load_rng(2), p.stream, p.first_element + i);
}

{{ buffer(3, "sample", "f32") }}
{{ buffer(4, "partials", "f32") }}

{{ entry_point("reparameterise_forward") }}
    let group = workgroup_index(workgroup, grid);
    var sum = 0.0;
    for (var k = 0u; k < p.elements_per_invocation; k += 1u) {
        let i = (group * p.elements_per_invocation + k) * 64u + local;
        if i >= p.elements {
            break;
        }
        let mu = load_m(mu_index(i));
        let logvar = load_m(mu_index(i) + p.channels);
        store_sample(i, mu + noise(i) * exp(0.5 * logvar));
        sum += 0.5 * (mu * mu + exp(logvar) - 1.0 - logvar);
    }
    let group_sum = workgroup_sum(vec2(sum, 0.0), local);
    if local == 0u && group < p.groups {
        store_partials(p.first_group + group, group_sum.x);
    }
}

{{ buffer(1, "all_partials", "f32") }}
{{ buffer(2, "kl", "f32") }}

{{ entry_point("reparameterise_kl") }}
    var sum = 0.0;
    for (var i = local; i < p.groups; i += 64u) {
        sum += load_all_partials(i);
    }
    let total = workgroup_sum(vec2(sum, 0.0), local);
    if local == 0u {
        store_kl(0, total.x * p.kl_scale);
    }
}

{{ buffer(3, "d_sample", "f32") }}
{{ buffer(4, "d_kl", "f32") }}
{{ buffer(5, "d_m", "f32") }}

{{ entry_point("reparameterise_backward") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.elements {
        let at = mu_index(i);
        let mu = load_m(at);
        let logvar = load_m(at + p.channels);
        let d = load_d_sample(i);
        let d_divergence = load_d_kl(0) * p.kl_scale;
        store_d_m(at, d + d_divergence * mu);
        store_d_m(at + p.channels, 0.5 * (d * noise(i) * exp(0.5 * logvar) + d_divergence * (exp(logvar) - 1.0)));
    }
}

{{ buffer(2, "mean", "f32") }}

{{ entry_point("reparameterise_mean") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.elements {
        store_mean(i, load_m(mu_index(i)));
    }
}
