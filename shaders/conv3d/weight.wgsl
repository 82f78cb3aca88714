// The weight as the caller has it, [co][ci][taps], or, transposed and flipped, [ci][co][taps]; zero outside.
@group(0) @binding({{ weight_binding }}) var<storage, read_write> weight: array<f32>;
{% if bias %}
@group(0) @binding({{ bias_binding }}) var<storage, read_write> bias: array<f32>;
{% endif %}

fn weight_at(o: i32, i: i32, tap: i32, taps: i32) -> f32 {
    if o >= p.co || i >= p.ci || tap >= taps {
        return 0.0;
    }
    {% if transposed %}
    let value = weight[(i * p.co + o) * taps + taps - 1 - tap];
    {% else %}
    let value = weight[(o * p.ci + i) * taps + tap];
    {% endif %}
    return value{% if residual %} + select(0.0, 1.0, o == i){% endif %};
}
