// The weight as the caller has it, [co][ci][taps], or, transposed and flipped, [ci][co][taps]; zero outside.
{% from "common/operands.wgsl" import buffer %}
{{ buffer(weight_binding, "weight", "f32", index="i32") }}
{% if bias %}
{{ buffer(bias_binding, "bias", "f32", index="i32") }}
{% endif %}

// Without a branch, for which software Vulkan makes several times as much code.
fn weight_at(o: i32, i: i32, tap: i32, taps: i32) -> f32 {
    let inside = o < p.co && i < p.ci && tap < taps;
    {% if transposed %}
    let at = select(0, (i * p.co + o) * taps + taps - 1 - tap, inside);
    {% else %}
    let at = select(0, (o * p.ci + i) * taps + tap, inside);
    {% endif %}
    return select(0.0, load_weight(at){% if residual %} + select(0.0, 1.0, o == i){% endif %}, inside);
}
