// Kernels of src/layers/matmul.rs. Of each of `batch` products, a is [M, K] or, transposed, [K, M], b is [K, N] or,
// transposed, [N, K], y is [M, N]; each is loaded one number or (width = 4) four at a time.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% macro values(element, width) %}{{ "vec4<" ~ element ~ ">" if width == 4 else element }}{% endmacro %}

struct Parameters {
    products: u32,
    rows: u32,    // M
    columns: u32, // N
    inner: u32,   // K
    // Products of a group.
    heads: u32,
    scale: f32,
    // Of a, b and y: from one group to the next, from one matrix of a group to the next, from one of its lines to the next.
    a_group: u32,
    a_head: u32,
    a_line: u32,
    b_group: u32,
    b_head: u32,
    b_line: u32,
    y_group: u32,
    y_head: u32,
    y_line: u32,
}

{{ parameters("p", "Parameters") }}
{{ buffer(1, "a", values(element[1], a_width)) }}
{{ buffer(2, "b", values(element[2], b_width)) }}
{{ buffer(3, "y", values(element[3], y_width)) }}

{# Where the matrices of a product begin. #}
{% macro first() %}
let group = product / p.heads;
let head = product % p.heads;
{% for name in ["a", "b", "y"] %}
let {{ name }}_first = group * p.{{ name }}_group + head * p.{{ name }}_head;
{% endfor %}
{% endmacro %}
{% if entry == "matmul_blocked" %}
// One invocation: a block of {{ bm }} x {{ bn }} results, {{ step }} of the inner dimension a step. Rows and columns past the
// end repeat the last, and are not stored.
{% set a_inner = not transpose_a %}
{% set b_inner = transpose_b %}
{# Loads of one operand, named {{ name }}_{{ i }} (a vector along the inner dimension) or {{ name }}_{{ k }}_{{ i }}. #}
{% macro load(name, along_inner, width, block) %}
{% if along_inner %}
{% for i in range(block) %}
let {{ name }}_{{ i }} = load_{{ name }}({{ name }}_at_{{ i }});
{{ name }}_at_{{ i }} += 1u;
{% endfor %}
{% else %}
{% for k in range(step) %}
{% for i in range(block // width) %}
let {{ name }}_{{ k }}_{{ i }} = load_{{ name }}({{ name }}_at_{{ i }});
{{ name }}_at_{{ i }} += {{ name }}_stride;
{% endfor %}
{% endfor %}
{% endif %}
{% endmacro %}
{# Number i of the block at step k. #}
{% macro at(name, along_inner, width, i, k) %}
{% if along_inner %}{{ name }}_{{ i }}{{ "." ~ "xyzw"[k] if width == 4 }}
{%- else %}{{ name }}_{{ k }}_{{ i // width }}{{ "." ~ "xyzw"[i % 4] if width == 4 }}
{%- endif %}
{% endmacro %}
{{ entry_point("matmul_blocked") }}
    let row_blocks = (p.rows + {{ bm - 1 }}u) / {{ bm }}u;
    let column_blocks = (p.columns + {{ bn - 1 }}u) / {{ bn }}u;
    let index = invocation_index(workgroup, grid, local);
    if index >= p.products * row_blocks * column_blocks {
        return;
    }
    let column = index % column_blocks * {{ bn }}u;
    let row = index / column_blocks % row_blocks * {{ bm }}u;
    let product = index / column_blocks / row_blocks;
    {{ first() }}
    {# Where each load of the block begins. #}
    {% for name, along_inner, width, block, first, extent in [("a", a_inner, a_width, bm, "row", "p.rows"), ("b", b_inner, b_width, bn, "column", "p.columns")] %}
    {% if along_inner %}
    {% for i in range(block) %}
    var {{ name }}_at_{{ i }} = ({{ name }}_first + min({{ first }} + {{ i }}u, {{ extent }} - 1u) * p.{{ name }}_line) / {{ width }}u;
    {% endfor %}
    {% else %}
    let {{ name }}_stride = p.{{ name }}_line / {{ width }}u;
    {% for i in range(block // width) %}
    var {{ name }}_at_{{ i }} = {{ name }}_first / {{ width }}u + min({{ first }} / {{ width }}u + {{ i }}u, {{ extent }} / {{ width }}u - 1u);
    {% endfor %}
    {% endif %}
    {% endfor %}
    {% for m in range(bm) %}
    {% for n in range(bn) %}
    var sum_{{ m }}_{{ n }} = 0.0;
    {% endfor %}
    {% endfor %}
    for (var k = 0u; k < p.inner; k += {{ step }}u) {
        {{ load("a", a_inner, a_width, bm) }}
        {{ load("b", b_inner, b_width, bn) }}
        {% for k in range(step) %}
        {% for m in range(bm) %}
        {% for n in range(bn) %}
        sum_{{ m }}_{{ n }} = fma({{ at("a", a_inner, a_width, m, k) }}, {{ at("b", b_inner, b_width, n, k) }}, sum_{{ m }}_{{ n }});
        {% endfor %}
        {% endfor %}
        {% endfor %}
    }
    {% for m in range(bm) %}
    if row + {{ m }}u < p.rows {
        let to = y_first + (row + {{ m }}u) * p.y_line + column;
        {% if y_width == 4 %}
        {% for n in range(0, bn, 4) %}
        if column + {{ n }}u < p.columns {
            store_y(to / 4u + {{ n // 4 }}u, p.scale * vec4(sum_{{ m }}_{{ n }}, sum_{{ m }}_{{ n + 1 }}, sum_{{ m }}_{{ n + 2 }}, sum_{{ m }}_{{ n + 3 }}));
        }
        {% endfor %}
        {% else %}
        {% for n in range(bn) %}
        if column + {{ n }}u < p.columns {
            store_y(to + {{ n }}u, p.scale * sum_{{ m }}_{{ n }});
        }
        {% endfor %}
        {% endif %}
    }
    {% endfor %}
}
{% else %}
// A workgroup: a tile of 64 x 64 results, 8 x 8 an invocation, 16 of the inner dimension a step. Both tiles lie with the inner
// dimension outermost; each invocation loads 4 x 4 numbers of both.
var<workgroup> tile_a: array<vec4<f32>, 272>;
var<workgroup> tile_b: array<vec4<f32>, 272>;

{% for name, along_inner, width, extent in [("a", not transpose_a, a_width, "p.rows"), ("b", transpose_b, b_width, "p.columns")] %}
// Four numbers along the axis that lies innermost in memory: from `outer` on it is line `at` of a matrix, zero past the end.
fn fetch_{{ name }}(matrix: u32, outer: u32, at: u32) -> vec4<f32> {
    {% set lines, length = (extent, "p.inner") if along_inner else ("p.inner", extent) %}
    if outer >= {{ lines }} {
        return vec4(0.0);
    }
    let line = (matrix + outer * p.{{ name }}_line) / {{ width }}u;
    {% if width == 4 %}
    if at >= {{ length }} {
        return vec4(0.0);
    }
    return load_{{ name }}(line + at / 4u);
    {% else %}
    let index = vec4(at) + vec4(0u, 1u, 2u, 3u);
    let inside = min(index, vec4({{ length }} - 1u)) + line;
    let loaded = vec4(load_{{ name }}(inside.x), load_{{ name }}(inside.y), load_{{ name }}(inside.z), load_{{ name }}(inside.w));
    return select(vec4(0.0), loaded, index < vec4({{ length }}));
    {% endif %}
}

{% endfor %}
{{ entry_point("matmul_tiled") }}
    let row_tiles = (p.rows + 63u) / 64u;
    let column_tiles = (p.columns + 63u) / 64u;
    let index = min(workgroup_index(workgroup, grid), p.products * row_tiles * column_tiles - 1u);
    let first_column = index % column_tiles * 64u;
    let first_row = index / column_tiles % row_tiles * 64u;
    let product = index / column_tiles / row_tiles;
    {{ first() }}
    let row = local / 8u;
    let column = local % 8u;
    {% for m in range(8) %}
    var sum_{{ m }}_0 = vec4(0.0);
    var sum_{{ m }}_1 = vec4(0.0);
    {% endfor %}
    for (var first = 0u; first < p.inner; first += 16u) {
        {% for name, along_inner, start in [("a", not transpose_a, "first_row"), ("b", transpose_b, "first_column")] %}
        {
            {% if along_inner %}
            // Neighbours load the same lines, whose 4 x 4 numbers are transposed on their way.
            let k = local % 4u * 4u;
            let line = local / 4u;
            {% for i in range(4) %}
            let line_{{ i }} = fetch_{{ name }}({{ name }}_first, {{ start }} + 4u * line + {{ i }}u, first + k);
            {% endfor %}
            {% for i in range(4) %}
            {% set c = "xyzw"[i] %}
            tile_{{ name }}[(k + {{ i }}u) * 17u + line] = vec4(line_0.{{ c }}, line_1.{{ c }}, line_2.{{ c }}, line_3.{{ c }});
            {% endfor %}
            {% else %}
            let k = local / 16u * 4u;
            let vector = local % 16u;
            {% for i in range(4) %}
            tile_{{ name }}[(k + {{ i }}u) * 17u + vector] = fetch_{{ name }}({{ name }}_first, first + k + {{ i }}u, {{ start }} + 4u * vector);
            {% endfor %}
            {% endif %}
        }
        {% endfor %}
        workgroupBarrier();
        for (var k = 0u; k < 16u; k += 1u) {
            let b_0 = tile_b[k * 17u + column];
            let b_1 = tile_b[k * 17u + column + 8u];
            {% for half in range(2) %}
            let a_{{ half }} = tile_a[k * 17u + row + {{ 8 * half }}u];
            {% for i in range(4) %}
            {% set m = 4 * half + i %}
            sum_{{ m }}_0 = fma(vec4(a_{{ half }}.{{ "xyzw"[i] }}), b_0, sum_{{ m }}_0);
            sum_{{ m }}_1 = fma(vec4(a_{{ half }}.{{ "xyzw"[i] }}), b_1, sum_{{ m }}_1);
            {% endfor %}
            {% endfor %}
        }
        workgroupBarrier();
    }
    {% for m in range(8) %}
    {% for n in range(2) %}
    store(y_first, first_row + 4u * row + {{ m // 4 * 32 + m % 4 }}u, first_column + 4u * column + {{ 32 * n }}u, p.scale * sum_{{ m }}_{{ n }});
    {% endfor %}
    {% endfor %}
}

// What a superfluous workgroup stores is what another one does.
fn store(matrix: u32, row: u32, column: u32, value: vec4<f32>) {
    if row >= p.rows {
        return;
    }
    let to = matrix + row * p.y_line + column;
    {% if y_width == 4 %}
    if column < p.columns {
        store_y(to / 4u, value);
    }
    {% else %}
    for (var n = 0u; n < min(4u, p.columns - min(column, p.columns)); n += 1u) {
        store_y(to + n, value[n]);
    }
    {% endif %}
}
{% endif %}
