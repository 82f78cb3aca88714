// Kernels of src/layers/adam.rs.
{% include "common/finite.wgsl" %}
{% include "common/index.wgsl" %}
{% include "common/reduce.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

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

{{ parameters("p", "Parameters") }}

{{ buffer(1, "gradients", "vec4<f32>") }}
{{ buffer(2, "partials", "vec2<f32>") }}

// Sum of squares and number of elements that are not finite, of one workgroup.
{{ entry_point("gradient_norm_partial") }}
    let group = workgroup_index(workgroup, grid);
    var sum = vec2(0.0);
    for (var k = 0u; k < p.vectors_per_invocation; k += 1u) {
        let i = (group * p.vectors_per_invocation + k) * 64u + local;
        if i >= p.vectors {
            break;
        }
        let g = load_gradients(i);
        let odd = (bitcast<vec4<u32>>(g) & vec4(0x7f800000u)) == vec4(0x7f800000u);
        sum += vec2(dot(g, g), dot(select(vec4(0.0), vec4(1.0), odd), vec4(1.0)));
    }
    let group_sum = workgroup_sum(sum, local);
    if local == 0u && group < p.groups {
        store_partials(p.first_group + group, group_sum);
    }
}

{{ buffer(1, "all_partials", "vec2<f32>") }}
{{ buffer(2, "norm", "f32") }}
{{ buffer(3, "scale", "f32") }}

{{ entry_point("gradient_norm_finish") }}
    var sum = vec2(0.0);
    for (var i = local; i < p.groups; i += 64u) {
        sum += load_all_partials(i);
    }
    let total = workgroup_sum(sum, local);
    if local == 0u {
        store_norm(0, sqrt(total.x) / load_scale(0));
        store_norm(1, select(0.0, 1.0, total.y == 0.0 && is_finite(total.x)));
        store_norm(2, load_scale(0));
    }
}

{{ buffer(2, "first", "vec4<f32>") }}
{{ buffer(3, "second", "vec4<f32>") }}
{{ buffer(4, "state", "f32") }}
{{ buffer(5, "new_first", "vec4<f32>") }}
{{ buffer(6, "new_second", "vec4<f32>") }}

{{ entry_point("adam_moments") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.vectors {
        var m = load_first(i);
        var v = load_second(i);
        if load_state(1) > 0.5 {
            var g = load_gradients(i) / load_state(2);
            if p.clip_norm > 0.0 {
                g *= min(1.0, p.clip_norm / (load_state(0) + 1e-6));
            }
            m = p.beta1 * m + p.rest1 * g;
            v = p.beta2 * v + p.rest2 * g * g;
        }
        store_new_first(i, m);
        store_new_second(i, v);
    }
}

{{ buffer(1, "parameters", "vec4<f32>") }}
// (learning rate, 1 - beta1^t, 1 - beta2^t, unused)
{{ buffer(5, "hyper", "f32") }}
{{ buffer(6, "new_parameters", "vec4<f32>") }}

{{ entry_point("adam_parameters") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.vectors {
        var w = load_parameters(i);
        if load_state(1) > 0.5 {
            let rate = load_hyper(0);
            w -= rate * p.weight_decay * w;
            w -= rate / load_hyper(1) * load_first(i) / (sqrt(load_second(i) / load_hyper(2)) + p.epsilon);
        }
        store_new_parameters(i, w);
    }
}

struct Scaling {
    most: f32,
    interval: u32,
}

{{ parameters("scaling", "Scaling") }}
{{ buffer(1, "norm_state", "f32") }}
// (skipped steps, good steps since the scale last changed)
{{ buffer(2, "counters", "u32") }}
{{ buffer(3, "new_scale", "f32") }}
{{ buffer(4, "new_counters", "u32") }}

{{ entry_point("loss_scaling", 1, parameters="scaling") }}
    var next = load_norm_state(2);
    var skipped = load_counters(0);
    var good = load_counters(1) + 1u;
    if load_norm_state(1) < 0.5 {
        skipped += select(1u, 0u, next > 1.0);
        next = max(0.5 * next, 1.0);
        good = 0u;
    } else if good >= scaling.interval {
        next = min(2.0 * next, scaling.most);
        good = 0u;
    }
    store_new_scale(0, next);
    store_new_counters(0, skipped);
    store_new_counters(1, good);
}
