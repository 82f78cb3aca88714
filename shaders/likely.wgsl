// Kernel of src/layers/likely.rs.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}

const K = {{ CLASSES }}u;
const NO_CLASS = 255u;

struct Parameters {
    // Of the window.
    voxels: u32,
    // 1 / ln K.
    entropy_scale: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "logits", "f32") }}
{{ buffer(2, "words", "vec2<u32>") }}

fn level(value: f32, levels: f32) -> u32 {
    return u32(clamp(value, 0.0, 1.0) * levels + 0.5);
}

{{ entry_point("likely") }}
    let voxel = invocation_index(workgroup, grid, local);
    if voxel >= p.voxels {
        return;
    }
    // The three highest logits, the lowest class first among equals.
    var ranked = vec3<u32>(0u, NO_CLASS, NO_CLASS);
    var best = vec3<f32>(load_logits(voxel * K), 0.0, 0.0);
    for (var c = 1u; c < K; c += 1u) {
        let logit = load_logits(voxel * K + c);
        if logit > best.x {
            ranked = vec3<u32>(c, ranked.xy);
            best = vec3<f32>(logit, best.xy);
        } else if c == 1u || logit > best.y {
            ranked = vec3<u32>(ranked.x, c, ranked.y);
            best = vec3<f32>(best.x, logit, best.y);
        } else if c == 2u || logit > best.z {
            ranked.z = c;
            best.z = logit;
        }
    }
    // With q = exp(logit - highest): entropy = ln(sum q) - sum(q ln q) / sum q.
    var total = 0.0;
    var weighted = 0.0;
    for (var c = 0u; c < K; c += 1u) {
        let below = load_logits(voxel * K + c) - best.x;
        let q = exp(below);
        total += q;
        weighted += q * below;
    }
    let entropy = (log(total) - weighted / total) * p.entropy_scale;
    let present = ranked != vec3<u32>(NO_CLASS);
    let probability = select(vec3<f32>(0.0), exp(best - vec3<f32>(best.x)) / total, present);
    store_words(voxel, vec2<u32>(
        ranked.x | ranked.y << 8u | ranked.z << 16u | level(entropy, 255.0) << 24u,
        level(probability.x, 1023.0) | level(probability.y, 1023.0) << 10u | level(probability.z, 1023.0) << 20u,
    ));
}
