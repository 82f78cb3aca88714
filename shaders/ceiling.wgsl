{% set matrices = entry == "ceiling_matrices" %}
{% if matrices and matrix_units %}
enable wgpu_cooperative_matrix;
enable f16;
{% endif %}
// Kernels of src/layers/ceiling.rs: nothing but multiply-adds, of numbers or of matrices, and nothing but memory traffic.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% from "common/values.wgsl" import values %}
alias Value = {{ values("f32") }};

struct Parameters {
    count: u32,
    iterations: u32,
    factor: f32,
    addend: f32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "x", values("f32")) }}
{{ buffer(2, "y", values("f32")) }}

{% if matrices %}
// A subgroup of 32 lanes squares 16 x 16 values over and over, a lane having half of a row of each sum.
{% set half = "vec4<f16>" if matrix_units else "quantizeToF16" %}
var<workgroup> operand: array<vec4<{{ "f16" if matrix_units else "f32" }}>, 256>;
var<workgroup> spread: array<vec4<f32>, 256>;

{% macro multiply(to, from) %}
{% if matrix_units %}
{{ to }} = coopMultiplyAdd(a, b, {{ from }});
{% else %}
{{ to }}[0] = {{ from }}[0] + square[0];
{{ to }}[1] = {{ from }}[1] + square[1];
{% endif %}
{% endmacro %}

{{ entry_point("ceiling_matrices", 128, builtins={"subgroup_id": "subgroup", "subgroup_invocation_id": "lane"} if matrix_units else {}) }}
    {% if not matrix_units %}
    let subgroup = local / 32u;
    let lane = local % 32u;
    {% endif %}
    let first = subgroup * 64u;
    let mine = first + 2u * lane;
    let at = workgroup_index(workgroup, grid) * 256u + mine;
    // The last workgroup may have fewer matrices.
    for (var i = 0u; i < 2u; i += 1u) {
        var value = vec4(0.0);
        if at < p.count {
            value = load_x(at + i);
        }
        spread[mine + i] = value;
        operand[mine + i] = {{ half }}(value);
    }
    workgroupBarrier();
    {% if matrix_units %}
    let a = coopLoadT<coop_mat16x16<f16, A>>(&operand[first], 4u);
    let b = coopLoadT<coop_mat16x16<f16, B>>(&operand[first], 4u);
    var c0 = coopLoadT<coop_mat16x16<f32, C>>(&spread[first], 4u);
    {% else %}
    var square = array<vec4<f32>, 2>();
    for (var k = 0u; k < 16u; k += 1u) {
        let a = operand[first + lane / 2u * 4u + k / 4u][k % 4u];
        square[0] += a * operand[first + k * 4u + lane % 2u * 2u];
        square[1] += a * operand[first + k * 4u + lane % 2u * 2u + 1u];
    }
    var c0 = array(spread[mine], spread[mine + 1u]);
    {% endif %}
    {% for chain in range(1, chains) %}
    var c{{ chain }} = c{{ chain - 1 }};
    {{ multiply("c" ~ chain, "c" ~ (chain - 1)) }}
    {% endfor %}
    for (var iteration = 0u; iteration < p.iterations; iteration += 1u) {
        {% for _ in range(rounds) %}
        {% for chain in range(chains) %}
        {{ multiply("c" ~ chain, "c" ~ chain) }}
        {% endfor %}
        {% endfor %}
    }
    var sum = array<vec4<f32>, 2>();
    {% for chain in range(chains) %}
    {% if matrix_units %}
    workgroupBarrier();
    coopStoreT(c{{ chain }}, &spread[first], 4u);
    workgroupBarrier();
    sum[0] += spread[mine];
    sum[1] += spread[mine + 1u];
    {% else %}
    sum[0] += c{{ chain }}[0];
    sum[1] += c{{ chain }}[1];
    {% endif %}
    {% endfor %}
    if at < p.count {
        store_y(at, sum[0]);
        store_y(at + 1u, sum[1]);
    }
}
{% elif width == 1 %}
// Independent chains, so that none waits for its own last result; with factor and addend they fit sixteen registers.
{{ entry_point("ceiling_multiply_add") }}
    let i = invocation_index(workgroup, grid, local);
    if i >= p.count {
        return;
    }
    let factor = p.factor;
    let addend = p.addend;
    {% for chain in range(chains) %}
    var c{{ chain }} = load_x(i) + {{ chain }}.0;
    {% endfor %}
    for (var iteration = 0u; iteration < p.iterations; iteration += 1u) {
        {% for _ in range(rounds) %}
        {% for chain in range(chains) %}
        c{{ chain }} = fma(c{{ chain }}, factor, addend);
        {% endfor %}
        {% endfor %}
    }
    store_y(i, {% for chain in range(chains) %}{{ " + " if chain else "" }}c{{ chain }}{% endfor %});
}
{% else %}
{{ entry_point("ceiling_copy") }}
    let i = invocation_index(workgroup, grid, local);
    if i < p.count {
        store_y(i, load_x(i));
    }
}
{% endif %}
