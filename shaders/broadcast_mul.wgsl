// Kernels of src/layers/broadcast_mul.rs. The long tensors have `axes` merged axes, of which the short one has every second,
// the outermost among them if `kept_first`; `width` elements of the last axis are a vector.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% set is_product = entry in ["broadcast_mul_forward", "broadcast_mul_backward", "broadcast_mul_add"] %}
{% set keeps_last = (axes - 1 + kept_first) % 2 == 1 %}
{% from "common/values.wgsl" import values %}
{% macro short_values(element) %}{{ values(element) if keeps_last else element }}{% endmacro %}
alias Value = {{ values("f32") }};
alias ShortValue = {{ short_values("f32") }};

struct Parameters {
    // Outermost first; the last in vectors.
    extents: array<vec4<u32>, 2>,
    // From one index of an axis to the next: in the short tensor forward, in the long ones for sums.
    strides: array<vec4<u32>, 2>,
    // Of a long tensor forward, of the short one for sums.
    count: u32,
    first_long: u32,
    first_short: u32,
    // Of sums only: terms of each, terms of a chunk, chunks.
    terms: u32,
    run: u32,
    chunks: u32,
}

{{ parameters("p", "Parameters") }}
{% if is_product %}
{{ buffer(1, "factor", values(element[1])) }}
{{ buffer(2, "short", short_values(element[2])) }}
{{ buffer(3, "y", values(element[3])) }}
{{ buffer(2, "d_y", values(element[2])) }}
{{ buffer(3, "sums", short_values("f32")) }}
{% else %}
{{ buffer(1, "short", short_values(element[1])) }}
{{ buffer(2, "y", values(element[2])) }}
{{ buffer(1, "d_y", values(element[1])) }}
{{ buffer(2, "sums", short_values("f32")) }}
{% endif %}

{# Adds to `sum` where number `rest` of the axes that are kept, of those summed, or of all is, by the strides of these, or of
   the kept ones where it is of all. #}
{% macro add_place(sum, rest, which) %}
{% set ns = namespace(left=0) %}
{% for axis in range(axes) %}
{% if which == "all" or (which == "kept") == ((axis + kept_first) % 2 == 1) %}
{% set ns.left = ns.left + 1 %}
{% endif %}
{% endfor %}
{% for axis in range(axes) | reverse %}
{% set is_kept = (axis + kept_first) % 2 == 1 %}
{% if which == "all" or (which == "kept") == is_kept %}
{% set ns.left = ns.left - 1 %}
{% set extent = "p.extents[" ~ axis // 4 ~ "][" ~ axis % 4 ~ "]" %}
{% set index = rest ~ " % " ~ extent if ns.left > 0 else rest %}
{% if which != "all" or is_kept %}
        {{ sum }} += {{ index }} * p.strides[{{ axis // 4 }}][{{ axis % 4 }}];
{% endif %}
{% if ns.left > 0 %}
        {{ rest }} /= {{ extent }};
{% endif %}
{% endif %}
{% endfor %}
{% endmacro %}
// One invocation a vector of y, which may be the factor (or the summand).
{% macro forward(entry, value) %}
{{ entry_point(entry) }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        var rest = i;
        var at = p.first_short;
{{ add_place("at", "rest", "all") }}
        store_y(p.first_long + i, {{ value }});
    }
}
{% endmacro %}
// One invocation the sum over a chunk of the axes that the short tensor lacks.
{% macro backward(entry, value) %}
{{ entry_point(entry) }}
    let i = invocation_index(workgroup, grid, local);
    let chunk = i / p.count;
    if chunk >= p.chunks {
        return;
    }
    var kept = i % p.count;
    var base = p.first_long;
{{ add_place("base", "kept", "kept") }}
    var sum = Value(0.0);
    let end = min(p.terms, (chunk + 1u) * p.run);
    for (var term = chunk * p.run; term < end; term += 1u) {
        var rest = term;
        var at = base;
{{ add_place("at", "rest", "summed") }}
        sum += {{ value }};
    }
{% if width == 4 and not keeps_last %}
    store_sums(p.first_short + i, sum.x + sum.y + sum.z + sum.w);
{% else %}
    store_sums(p.first_short + i, sum);
{% endif %}
}
{% endmacro %}
{% if is_product %}
{{ forward("broadcast_mul_forward", "load_factor(p.first_long + i) * load_short(at)") }}
{{ forward("broadcast_mul_add", "load_factor(p.first_long + i) + load_short(at)") }}
{{ backward("broadcast_mul_backward", "load_factor(at) * load_d_y(at)") }}
{% else %}
{{ forward("broadcast_mul_expand", "Value(load_short(at))") }}
{{ backward("broadcast_mul_sum", "load_d_y(at)") }}
{% endif %}
