{# A function `name` of what `slices` (a power of two) of a workgroup's 64 invocations, `stride` apart, make together in a fixed
order: `value` of two of theirs, `a` and `b`. All of the workgroup call it, and each gets the result. #}
{% macro shared(name, type, value, slices, stride) %}
{% if slices > 1 %}
var<workgroup> {{ name }}_lanes: array<{{ type }}, 64>;

{% endif %}
fn {{ name }}(own: {{ type }}, local: u32) -> {{ type }} {
{% if slices == 1 %}
    return own;
{% else %}
    let slice = local / {{ stride }}u % {{ slices }}u;
    {{ name }}_lanes[local] = own;
    workgroupBarrier();
    for (var width = {{ slices // 2 }}u; width > 0u; width >>= 1u) {
        if slice < width {
            let a = {{ name }}_lanes[local];
            let b = {{ name }}_lanes[local + width * {{ stride }}u];
            {{ name }}_lanes[local] = {{ value }};
        }
        workgroupBarrier();
    }
    let result = {{ name }}_lanes[local - slice * {{ stride }}u];
    workgroupBarrier();
    return result;
{% endif %}
}
{% endmacro %}
