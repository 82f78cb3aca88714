{% if masked %}
{% set element_type = element[mask_binding] %}
@group(0) @binding({{ mask_binding }}) var<storage, read_write> mask: array<{{ "vec4<" ~ element_type ~ ">" if vout else element_type }}>;

// The derivative of leaky ReLU where results lie.
{% if vout %}
fn slopes(at: i32) -> vec4<f32> {
    return select(vec4(LRELU_SLOPE), vec4(1.0), vec4<f32>(mask[at]) > vec4(0.0));
}
{% else %}
fn slopes(at: i32) -> f32 {
    return lrelu_slope(f32(mask[at]));
}
{% endif %}
{% endif %}
