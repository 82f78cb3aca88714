{# What a kernel declares of its operands, and how it begins: by itself, or, where `launches` has the extents of the table in
src/kernel/grouped.rs, as one of several launches that share a dispatch, which each workgroup finds there. #}

{# The parameter block `name`, a structure `type`. #}
{% macro parameters(name, type) %}
{% if launches %}
struct {{ type }}Row {
    @size({{ launches.parameter_bytes }}) parameters: {{ type }},
    offsets: array<vec4<u32>, 2>,
    grid: vec3<u32>,
    first: u32,
}

@group(0) @binding(0) var<uniform> {{ name }}_rows: array<{{ type }}Row, {{ launches.most }}>;
var<private> {{ name }}: {{ type }};

fn launch_of_{{ name }}(dispatched: u32) -> Launch {
    var row = 0u;
    while row < {{ launches.most - 1 }}u && dispatched >= {{ name }}_rows[row + 1u].first {
        row += 1u;
    }
    {{ name }} = {{ name }}_rows[row].parameters;
    launch_offsets = {{ name }}_rows[row].offsets;
    let grid = {{ name }}_rows[row].grid;
    let number = dispatched - {{ name }}_rows[row].first;
    return Launch(vec3(number % grid.x, number / grid.x % grid.y, number / (grid.x * grid.y)), grid);
}
{% else %}
@group(0) @binding(0) var<uniform> {{ name }}: {{ type }};
{% endif %}
{% endmacro %}

{# The buffer of `type` at `binding`, with functions that load and store its element number `i`, an f16 as f32. #}
{% macro buffer(binding, name, type, index="u32") %}
{% set value = type | replace("f16", "f32") %}
@group(0) @binding({{ binding }}) var<storage, read_write> {{ name }}_elements: array<{{ type }}>;

fn load_{{ name }}(i: {{ index }}) -> {{ value }} {
    return {{ value if value != type }}({{ name }}_elements[{{ begin(binding, type, index) }}i]);
}

fn store_{{ name }}(i: {{ index }}, value: {{ value }}) {
    {{ name }}_elements[{{ begin(binding, type, index) }}i] = {{ type if value != type }}(value);
}
{% endmacro %}

{# The buffer of words at `binding`, with a function that adds to word number `i`, whoever else does. #}
{% macro counters(binding, name) %}
@group(0) @binding({{ binding }}) var<storage, read_write> {{ name }}_elements: array<atomic<u32>>;

fn add_to_{{ name }}(i: u32, count: u32) {
    atomicAdd(&{{ name }}_elements[{{ begin(binding, "u32", "u32") }}i], count);
}
{% endmacro %}

{# The image of vectors at `binding`, in layers of 64 x 32, with a function that loads or stores its vector number `i`. #}
{% macro image(binding, name, access) %}
@group(0) @binding({{ binding }}) var {{ name }}_layers: texture_storage_2d_array<rgba32float, {{ access }}>;

{% if access == "read" %}
fn load_{{ name }}(i: i32) -> vec4<f32> {
    let at = {{ begin(binding, "vec4<f32>", "i32") }}i;
    return textureLoad({{ name }}_layers, vec2(at & 63, (at >> 6u) & 31), at >> 11u);
}
{% else %}
fn store_{{ name }}(i: i32, value: vec4<f32>) {
    let at = {{ begin(binding, "vec4<f32>", "i32") }}i;
    textureStore({{ name }}_layers, vec2(at & 63, (at >> 6u) & 31), at >> 11u, value);
}
{% endif %}
{% endmacro %}

{# What is added to an index for the launch's part of what is bound. #}
{% macro begin(binding, type, index) %}
{% set bytes = {"u32": 4, "f32": 4, "f16": 2, "vec2<f32>": 8, "vec2<u32>": 8, "vec2<f16>": 4, "vec4<f32>": 16, "vec4<u32>": 16, "vec4<f16>": 8, "Eight": 16} %}
{% if launches %}{{ index }}(launch_offsets[{{ (binding - 1) // 4 }}].{{ "xyzw"[(binding - 1) % 4] }} / {{ bytes[type] }}u) + {% endif %}
{% endmacro %}

{# The head of the entry point `name` up to its body, which has `workgroup`, `grid` and the numbers among `builtins`. It reads the
parameter block `parameters` and no other. #}
{% macro entry_point(name, invocations=64, parameters="p", local="local", builtins={}) %}
@compute @workgroup_size({{ invocations }})
fn {{ name }}(
    @builtin(workgroup_id) {{ "dispatched" if launches else "workgroup" }}: vec3<u32>,
{% if not launches %}
    @builtin(num_workgroups) grid: vec3<u32>,
{% endif %}
    @builtin(local_invocation_index) {{ local }}: u32,
{% for builtin, number in builtins | items %}
    @builtin({{ builtin }}) {{ number }}: u32,
{% endfor %}
) {
{% if launches %}
    let launch = launch_of_{{ parameters }}(dispatched.x);
    let workgroup = launch.workgroup;
    let grid = launch.grid;
{% endif %}
{% endmacro %}
