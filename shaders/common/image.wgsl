{# Images of vectors, in layers of 64 x 32, as functions of a vector's number. #}
{% macro image(name, binding, access) %}
@group(0) @binding({{ binding }}) var {{ name }}: texture_storage_2d_array<rgba32float, {{ access }}>;
const base_{{ name }} = 0u;

{% if access == "read" %}
fn load_{{ name }}(at: i32) -> vec4<f32> {
    let i = at + i32(base_{{ name }});
    return textureLoad({{ name }}, vec2(i & 63, (i >> 6u) & 31), i >> 11u);
}
{% else %}
fn store_{{ name }}(at: i32, value: vec4<f32>) {
    let i = at + i32(base_{{ name }});
    textureStore({{ name }}, vec2(i & 63, (i >> 6u) & 31), i >> 11u, value);
}
{% endif %}
{% endmacro %}
