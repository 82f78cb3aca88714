{% from "common/operands.wgsl" import buffer %}
{% if masked %}
{% set element_type = element[mask_binding] %}
{{ buffer(mask_binding, "mask", "vec4<" ~ element_type ~ ">" if vout else element_type, index="i32") }}

// The derivative of leaky ReLU where results lie.
{% if vout %}
fn slopes(at: i32) -> vec4<f32> {
    return select(vec4(LRELU_SLOPE), vec4(1.0), load_mask(at) > vec4(0.0));
}
{% else %}
fn slopes(at: i32) -> f32 {
    return lrelu_slope(load_mask(at));
}
{% endif %}
{% endif %}
