// Kernels of src/layers/adam.rs.
{% include "common/finite.wgsl" %}
{% include "common/index.wgsl" %}
{% include "common/reduce.wgsl" %}

struct Parameters {
    // Vectors of four.
    vectors: u32,
    vectors_per_invocation: u32,
    first_group: u32,
    groups: u32,
    beta1: f32,
    beta2: f32,
    // 1 - beta, rounded once: the difference of rounded values would be off by 5e-5 for beta2 = 0.999.
    rest1: f32,
    rest2: f32,
    epsilon: f32,
    weight_decay: f32,
    // Zero: the gradient is not clipped.
    clip_norm: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

@group(0) @binding(1) var<storage, read_write> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> partials: array<vec2<f32>>;

// Sum of squares and number of elements that are not finite, of one workgroup.
@compute @workgroup_size(64)
fn gradient_norm_partial(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = workgroup_index(workgroup, grid);
    var sum = vec2(0.0);
    for (var k = 0u; k < p.vectors_per_invocation; k += 1u) {
        let i = (group * p.vectors_per_invocation + k) * 64u + local;
        if i >= p.vectors {
            break;
        }
        let g = gradients[i];
        let odd = (bitcast<vec4<u32>>(g) & vec4(0x7f800000u)) == vec4(0x7f800000u);
        sum += vec2(dot(g, g), dot(select(vec4(0.0), vec4(1.0), odd), vec4(1.0)));
    }
    let group_sum = workgroup_sum(sum, local);
    if local == 0u && group < p.groups {
        partials[p.first_group + group] = group_sum;
    }
}

@group(0) @binding(1) var<storage, read_write> all_partials: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> norm: array<f32>;
@group(0) @binding(3) var<storage, read_write> scale: array<f32>;

@compute @workgroup_size(64)
fn gradient_norm_finish(@builtin(local_invocation_index) local: u32) {
    var sum = vec2(0.0);
    for (var i = local; i < p.groups; i += 64u) {
        sum += all_partials[i];
    }
    let total = workgroup_sum(sum, local);
    if local == 0u {
        norm[0] = sqrt(total.x) / scale[0];
        norm[1] = select(0.0, 1.0, total.y == 0.0 && is_finite(total.x));
        norm[2] = scale[0];
    }
}

@group(0) @binding(2) var<storage, read_write> first: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> second: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read_write> new_first: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> new_second: array<vec4<f32>>;

@compute @workgroup_size(64)
fn adam_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.vectors {
        var m = first[i];
        var v = second[i];
        if state[1] > 0.5 {
            var g = gradients[i] / state[2];
            if p.clip_norm > 0.0 {
                g *= min(1.0, p.clip_norm / (state[0] + 1e-6));
            }
            m = p.beta1 * m + p.rest1 * g;
            v = p.beta2 * v + p.rest2 * g * g;
        }
        new_first[i] = m;
        new_second[i] = v;
    }
}

@group(0) @binding(1) var<storage, read_write> parameters: array<vec4<f32>>;
// (learning rate, 1 - beta1^t, 1 - beta2^t, unused)
@group(0) @binding(5) var<storage, read_write> hyper: array<f32>;
@group(0) @binding(6) var<storage, read_write> new_parameters: array<vec4<f32>>;

@compute @workgroup_size(64)
fn adam_parameters(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = invocation_index(workgroup, grid, local);
    if i < p.vectors {
        var w = parameters[i];
        if state[1] > 0.5 {
            let rate = hyper[0];
            w -= rate * p.weight_decay * w;
            w -= rate / hyper[1] * first[i] / (sqrt(second[i] / hyper[2]) + p.epsilon);
        }
        new_parameters[i] = w;
    }
}

struct Scaling {
    most: f32,
    interval: u32,
}

@group(0) @binding(0) var<uniform> scaling: Scaling;
@group(0) @binding(1) var<storage, read_write> norm_state: array<f32>;
// (skipped steps, good steps since the scale last changed)
@group(0) @binding(2) var<storage, read_write> counters: array<u32>;
@group(0) @binding(3) var<storage, read_write> new_scale: array<f32>;
@group(0) @binding(4) var<storage, read_write> new_counters: array<u32>;

@compute @workgroup_size(1)
fn loss_scaling() {
    var next = norm_state[2];
    var skipped = counters[0];
    var good = counters[1] + 1u;
    if norm_state[1] < 0.5 {
        skipped += select(1u, 0u, next > 1.0);
        next = max(0.5 * next, 1.0);
        good = 0u;
    } else if good >= scaling.interval {
        next = min(2.0 * next, scaling.most);
        good = 0u;
    }
    new_scale[0] = next;
    new_counters[0] = skipped;
    new_counters[1] = good;
}
