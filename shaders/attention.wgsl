// Kernels of src/layers/attention.rs for narrow heads. An invocation works on {{ group }} heads of {{ width }} channels at once, which it
// loads {{ vector }} at a time. It owns {{ block }} tokens and walks over the others in tiles of {{ tile }}. With {{ lanes }} lanes > 1 a workgroup is one
// subgroup of as many invocations, which own tokens of the same sequence and load a tile together.
{% include "common/index.wgsl" %}
{% if dropout %}
{% include "common/philox.wgsl" %}
{% endif %}
{% set channels = width * group %}
{% set vectors = channels // vector %}
{% macro values(element) %}{{ "vec4<" ~ element ~ ">" if vector == 4 else element }}{% endmacro %}
{% macro tensor(binding, name, type) %}
@group(0) @binding({{ binding }}) var<storage, read_write> {{ name }}: array<{{ type }}>;
{% endmacro %}
alias Value = {{ values("f32") }};

struct Parameters {
    sequences: u32,
    // Those that a workgroup of lanes takes one after the other.
    sequences_in_turn: u32,
    queries: u32,
    keys: u32,
    heads: u32,
    // Loads of a token with all its heads.
    stride: u32,
    // Parts of the keys that different invocations walk over, and the keys of each, whole tiles.
    parts: u32,
    part_keys: u32,
    // What products of queries and keys are multiplied by, and that times log2(e), so that powers are of two.
    scale: f32,
    scale_log2: f32,
    // Of the window.
    first_sequence: u32,
    stream: u32,
    // Words below it drop a weight; the others are multiplied by `kept`.
    threshold: u32,
    kept: f32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

const LOWEST: f32 = -1e30;
const LOG2_E: f32 = 1.4426950408889634;

{# Channel c of the heads of a token. #}
{% macro at(name, c) %}{{ name }}_{{ c // vector }}{{ "." ~ "xyzw"[c % 4] if vector == 4 }}{% endmacro %}
{# The product of two tokens' channels of head h. #}
{% macro product(a, b, h) %}
{% for c in range((h + 1) * width - 1, h * width, -1) %}fma({{ at(a, c) }}, {{ at(b, c) }}, {% endfor %}
{{ at(a, h * width) }} * {{ at(b, h * width) }}{% for c in range(width - 1) %}){% endfor %}
{% endmacro %}
{# Where the invocation's own tokens of sequence s begin; those past the end repeat the last. #}
{% macro own(first, count) %}
{% for i in range(block) %}
let own_{{ i }} = (s * {{ count }} + min({{ first }} + {{ i }}u, {{ count }} - 1u)) * p.stride + channel;
{% endfor %}
{% endmacro %}
{% macro load_own(name, source, factor) %}
{% for i in range(block) %}
{% for v in range(vectors) %}
let {{ name }}_{{ i }}_{{ v }} = {{ factor }}Value({{ source }}[own_{{ i }} + {{ v }}u]);
{% endfor %}
{% endfor %}
{% endmacro %}
{% macro sums(name) %}
{% for i in range(block) %}
{% for c in range(channels) %}
var {{ name }}_{{ i }}_{{ c }} = 0.0;
{% endfor %}
{% endfor %}
{% endmacro %}
{# Stores the sums of own token i at `to`, each times the factor of its head. #}
{% macro store(target, type, name, i, factors) %}
{% for v in range(vectors) %}
{{ target }}[to + {{ v }}u] = {{ type }}(Value(
    {%- for c in range(v * vector, (v + 1) * vector) %}{{ name }}_{{ i }}_{{ c }} * {{ factors }}{{ "_" ~ c // width if factors == "factor" }}{{ ", " if not loop.last }}{% endfor %}));
{% endfor %}
{% endmacro %}
{# Loads a tile of tokens of sequence s together; those past the end repeat the last. #}
{% macro load_tile(name, source, first, count) %}
{% for l in range(loads) %}
let {{ name }}_load_{{ l }} = Value({{ source }}[(s * {{ count }} + min({{ first }} + token_{{ l }}, {{ count }} - 1u)) * p.stride + vector_{{ l }}]);
{% endfor %}
{% endmacro %}
{# Token t of a tile. #}
{% macro take(name, source, first, count, t) %}
{% if lanes == 1 %}
let {{ name }}_from = (s * {{ count }} + min({{ first }} + {{ t }}u, {{ count }} - 1u)) * p.stride + channel;
{% endif %}
{% for v in range(vectors) %}
{% set slot = t * vectors + v %}
let {{ name }}_{{ v }} = {% if lanes == 1 %}Value({{ source }}[{{ name }}_from + {{ v }}u]){% else %}subgroupBroadcast({{ name }}_load_{{ slot // lanes }}, {{ slot % lanes }}u){% endif %};
{% endfor %}
{% endmacro %}
{% set loads = (tile * vectors + lanes - 1) // lanes if lanes > 1 else 0 %}

{% if dropout %}
{{ tensor(6 if entry == "attention_forward" else 7 if entry == "attention_backward_queries" else 8, "rng", "u32") }}
// Number of a query's first weight among those of all sequences, heads, queries and keys, in two words.
fn first_weight(s: u32, head: u32, query: u32) -> vec2<u32> {
    return mul_wide(((p.first_sequence + s) * p.heads + head) * p.queries + min(query, p.queries - 1u), p.keys);
}

// The random words of the block in which weight `number` lies, or of one so many blocks after it.
fn random_words(number: vec2<u32>, blocks: u32) -> vec4<u32> {
    let block = (number.x >> 2u | number.y << 30u) + blocks;
    return philox(vec4(block, p.stream, rng[2], 1u), vec2(rng[0], rng[1]));
}

// Factors of the four weights whose words begin with number `shift` % 4 of block `a`, which `b` follows.
fn factors_of(a: vec4<u32>, b: vec4<u32>, shift: u32) -> vec4<f32> {
    let is_far = (shift & 2u) != 0u;
    let words = select(a, vec4(a.zw, b.xy), is_far);
    let shifted = select(words, vec4(words.yzw, select(b.x, b.z, is_far)), (shift & 1u) != 0u);
    return select(vec4(0.0), vec4(p.kept), shifted >= vec4(p.threshold));
}
{% endif %}
{# Factors of the weights of own query i at a tile's keys, from the first of which on they are drawn. #}
{% macro begin_factors(first) %}
{% for i in range(block if dropout else 0) %}
{% for h in range(group) %}
let first_weight_{{ i }}_{{ h }} = first_weight(s, group * {{ group }}u + {{ h }}u, query + {{ i }}u);
{% if not aligned %}
var words_{{ i }}_{{ h }} = random_words(first_weight_{{ i }}_{{ h }}, {{ first }} / 4u);
{% endif %}
{% endfor %}
{% endfor %}
{% endmacro %}
{% macro draw_factors(i, h) %}
{% for u in range(tile // 4 if dropout else 0) %}
{% set first = "first_weight_" ~ i ~ "_" ~ h %}
{% set words = "words_" ~ i ~ "_" ~ h %}
{% if aligned %}
let drawn_{{ u }} = random_words({{ first }}, key / 4u + {{ u }}u);
let factors_{{ u }} = factors_of(drawn_{{ u }}, drawn_{{ u }}, 0u);
{% else %}
let drawn_{{ u }} = random_words({{ first }}, key / 4u + {{ u + 1 }}u);
let factors_{{ u }} = factors_of({{ words }}, drawn_{{ u }}, {{ first }}.x);
{{ words }} = drawn_{{ u }};
{% endif %}
{% endfor %}
{% endmacro %}
{% macro factor(t) %}factors_{{ t // 4 }}.{{ "xyzw"[t % 4] }}{% endmacro %}

{# The head of a kernel: whose own tokens are `first` and those after it, of `count`, in sequence s and part `part`. #}
{% macro kernel(first, count, parts) %}
@compute @workgroup_size({{ lanes if lanes > 1 else 64 }})
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    {% if lanes > 1 %}
    @builtin(subgroup_invocation_id) lane: u32,
    {% else %}
    @builtin(local_invocation_index) local: u32,
    {% endif %}
) {
    let group = workgroup.z;
    let channel = group * {{ vectors }}u;
    {% if lanes > 1 %}
    let {{ first }} = (workgroup.y * {{ lanes }}u + lane) * {{ block }}u;
    let part = 0u;
    {% for l in range(loads) %}
    let slot_{{ l }} = min(lane + {{ lanes * l }}u, {{ tile * vectors - 1 }}u);
    let token_{{ l }} = slot_{{ l }} / {{ vectors }}u;
    let vector_{{ l }} = channel + slot_{{ l }} % {{ vectors }}u;
    {% endfor %}
    let first_s = workgroup.x * p.sequences_in_turn;
    for (var s = first_s; s < min(first_s + p.sequences_in_turn, p.sequences); s += 1u) {
    {% else %}
    let index = invocation_index(workgroup, grid, local);
    let {{ first }} = index % {{ count }};
    let s = index / {{ count }} % p.sequences;
    let part = index / {{ count }} / p.sequences;
    if part < {{ parts }} {
    {% endif %}
{% endmacro %}

{% if entry == "attention_forward" %}
{{ tensor(1, "q", values(element[1])) }}
{{ tensor(2, "k", values(element[2])) }}
{{ tensor(3, "v", values(element[3])) }}
{{ tensor(4, "y", values(element[4])) }}
{{ tensor(5, "row_stats", "vec2<f32>" if split else "f32") }}
// With {{ split }} parts of the keys, y is the sum over a part of weights times values, and row_stats are the largest score and the sum of
// weights relative to it, to be merged; else y is the result, and row_stats are the logarithms of the sums of exponentials.
{{ kernel("query", "p.queries", "p.parts") }}
        {{ own("query", "p.queries") }}
        {{ load_own("q", "q", "p.scale_log2 * ") }}
        {% for i in range(block) %}
        {% for h in range(group) %}
        var largest_{{ i }}_{{ h }} = LOWEST;
        var total_{{ i }}_{{ h }} = 0.0;
        {% endfor %}
        {% endfor %}
        {{ sums("y") }}
        let first_key = part * p.part_keys;
        let end = min(first_key + p.part_keys, p.keys);
        {{ begin_factors("first_key") }}
        for (var key = first_key; key < end; key += {{ tile }}u) {
            {{ load_tile("k", "k", "key", "p.keys") }}
            {{ load_tile("v", "v", "key", "p.keys") }}
            {% for t in range(tile) %}
            {% for i in range(block) %}
            {% for h in range(group) %}
            var weight_{{ i }}_{{ h }}_{{ t }}: f32;
            {% endfor %}
            {% endfor %}
            {
                {{ take("k", "k", "key", "p.keys", t) }}
                let is_inside = key + {{ t }}u < end;
                {% for i in range(block) %}
                {% for h in range(group) %}
                weight_{{ i }}_{{ h }}_{{ t }} = select(LOWEST, {{ product("q_" ~ i, "k", h) }}, is_inside);
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
            {% for i in range(block) %}
            {% for h in range(group) %}
            {% set of = "_" ~ i ~ "_" ~ h %}
            {
                let before = largest{{ of }};
                {% for t in range(tile) %}
                largest{{ of }} = max(largest{{ of }}, weight{{ of }}_{{ t }});
                {% endfor %}
                let shrink = exp2(before - largest{{ of }});
                total{{ of }} *= shrink;
                {% for c in range(h * width, (h + 1) * width) %}
                y_{{ i }}_{{ c }} *= shrink;
                {% endfor %}
                {{ draw_factors(i, h) }}
                {% for t in range(tile) %}
                weight{{ of }}_{{ t }} = exp2(weight{{ of }}_{{ t }} - largest{{ of }});
                total{{ of }} += weight{{ of }}_{{ t }};
                {% if dropout %}
                weight{{ of }}_{{ t }} *= {{ factor(t) }};
                {% endif %}
                {% endfor %}
            }
            {% endfor %}
            {% endfor %}
            {% for t in range(tile) %}
            {
                {{ take("v", "v", "key", "p.keys", t) }}
                {% for i in range(block) %}
                {% for c in range(channels) %}
                y_{{ i }}_{{ c }} = fma(weight_{{ i }}_{{ c // width }}_{{ t }}, {{ at("v", c) }}, y_{{ i }}_{{ c }});
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
        {% for i in range(block) %}
        if query + {{ i }}u < p.queries {
            {% for h in range(group) %}
            let row_{{ h }} = ((part * p.sequences + s) * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + query + {{ i }}u;
            {% if split %}
            row_stats[row_{{ h }}] = vec2(largest_{{ i }}_{{ h }}, total_{{ i }}_{{ h }});
            {% else %}
            row_stats[row_{{ h }}] = (largest_{{ i }}_{{ h }} + log2(total_{{ i }}_{{ h }})) / LOG2_E;
            let factor_{{ h }} = 1.0 / total_{{ i }}_{{ h }};
            {% endif %}
            {% endfor %}
            let to = own_{{ i }} + part * p.sequences * p.queries * p.stride;
            {{ store("y", values(element[4]), "y", i, "1.0" if split else "factor") }}
        }
        {% endfor %}
    }
}
{% endif %}

{% if entry == "attention_merge" %}
{{ tensor(1, "part_y", values("f32")) }}
{{ tensor(2, "part_stats", "vec2<f32>") }}
{{ tensor(3, "y", values(element[3])) }}
{{ tensor(4, "lse", "f32") }}
// Adds the parts' sums, relative to the largest score of all.
{{ kernel("query", "p.queries", "1u") }}
        {{ own("query", "p.queries") }}
        let part_rows = p.sequences * p.heads * p.queries;
        let part_values = p.sequences * p.queries * p.stride;
        {{ sums("y") }}
        {% for h in range(group) %}
        let row_{{ h }} = (s * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + query;
        var largest_{{ h }} = LOWEST;
        var total_{{ h }} = 0.0;
        {% endfor %}
        for (var part = 0u; part < p.parts; part += 1u) {
            {% for h in range(group) %}
            let stats_{{ h }} = part_stats[row_{{ h }} + part * part_rows];
            let larger_{{ h }} = max(largest_{{ h }}, stats_{{ h }}.x);
            let shrink_{{ h }} = exp2(largest_{{ h }} - larger_{{ h }});
            let weight_{{ h }} = exp2(stats_{{ h }}.x - larger_{{ h }});
            largest_{{ h }} = larger_{{ h }};
            total_{{ h }} = fma(weight_{{ h }}, stats_{{ h }}.y, total_{{ h }} * shrink_{{ h }});
            {% endfor %}
            {% for v in range(vectors) %}
            let part_{{ v }} = part_y[own_0 + part * part_values + {{ v }}u];
            {% endfor %}
            {% for c in range(channels) %}
            y_0_{{ c }} = fma(weight_{{ c // width }}, {{ at("part", c) }}, y_0_{{ c }} * shrink_{{ c // width }});
            {% endfor %}
        }
        {% for h in range(group) %}
        lse[row_{{ h }}] = (largest_{{ h }} + log2(total_{{ h }})) / LOG2_E;
        let factor_{{ h }} = 1.0 / total_{{ h }};
        {% endfor %}
        let to = own_0;
        {{ store("y", values(element[3]), "y", 0, "factor") }}
    }
}
{% endif %}

{% if entry == "attention_backward_rows" %}
{{ tensor(1, "y", values(element[1])) }}
{{ tensor(2, "d_y", values(element[2])) }}
{{ tensor(3, "lse", "f32") }}
{{ tensor(4, "row_stats", "vec2<f32>") }}
// What the backward pass needs of a query: lse as an exponent of two, and the sum of d_y y over the channels of the head.
{{ kernel("query", "p.queries", "1u") }}
        {{ own("query", "p.queries") }}
        {{ load_own("y", "y", "") }}
        {{ load_own("d_y", "d_y", "") }}
        {% for h in range(group) %}
        let row_{{ h }} = (s * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + query;
        row_stats[row_{{ h }}] = vec2(LOG2_E * lse[row_{{ h }}], {{ product("y_0", "d_y_0", h) }});
        {% endfor %}
    }
}
{% endif %}

{% if entry == "attention_backward_queries" or entry == "attention_backward_keys" %}
{{ tensor(1, "q", values(element[1])) }}
{{ tensor(2, "k", values(element[2])) }}
{{ tensor(3, "v", values(element[3])) }}
{{ tensor(4, "d_y", values(element[4])) }}
{{ tensor(5, "row_stats", "vec2<f32>") }}
{% endif %}
{% if entry == "attention_backward_queries" %}
{{ tensor(6, "d_q", values(element[6])) }}
// An invocation owns queries; of several parts of the keys each has its own d_q, to be added.
{{ kernel("query", "p.queries", "p.parts") }}
        {{ own("query", "p.queries") }}
        {{ load_own("q", "q", "p.scale_log2 * ") }}
        {{ load_own("d_y", "d_y", "") }}
        {% for i in range(block) %}
        {% for h in range(group) %}
        let stats_{{ i }}_{{ h }} = row_stats[(s * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + min(query + {{ i }}u, p.queries - 1u)];
        {% endfor %}
        {% endfor %}
        {{ sums("d_q") }}
        let first_key = part * p.part_keys;
        let end = min(first_key + p.part_keys, p.keys);
        {{ begin_factors("first_key") }}
        for (var key = first_key; key < end; key += {{ tile }}u) {
            {{ load_tile("k", "k", "key", "p.keys") }}
            {{ load_tile("v", "v", "key", "p.keys") }}
            {% for i in range(block if dropout else 0) %}
            {% for h in range(group) %}
            {% for u in range(tile // 4) %}
            var factors_{{ i }}_{{ h }}_{{ u }}: vec4<f32>;
            {% endfor %}
            {
                {{ draw_factors(i, h) }}
                {% for u in range(tile // 4) %}
                factors_{{ i }}_{{ h }}_{{ u }} = factors_{{ u }};
                {% endfor %}
            }
            {% endfor %}
            {% endfor %}
            {% for t in range(tile) %}
            {
                {{ take("k", "k", "key", "p.keys", t) }}
                {{ take("v", "v", "key", "p.keys", t) }}
                let is_inside = key + {{ t }}u < end;
                {% for i in range(block) %}
                {% for h in range(group) %}
                {% set of = "_" ~ i ~ "_" ~ h %}
                let weight{{ of }} = select(0.0, exp2({{ product("q_" ~ i, "k", h) }} - stats{{ of }}.x), is_inside);
                let d_weight{{ of }} = {{ product("d_y_" ~ i, "v", h) }};
                let d_score{{ of }} = weight{{ of }} * (d_weight{{ of }}{% if dropout %} * factors{{ of }}_{{ t // 4 }}.{{ "xyzw"[t % 4] }}{% endif %} - stats{{ of }}.y);
                {% for c in range(h * width, (h + 1) * width) %}
                d_q_{{ i }}_{{ c }} = fma(d_score{{ of }}, {{ at("k", c) }}, d_q_{{ i }}_{{ c }});
                {% endfor %}
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
        {% for i in range(block) %}
        if query + {{ i }}u < p.queries {
            let to = own_{{ i }} + part * p.sequences * p.queries * p.stride;
            {{ store("d_q", values(element[6]), "d_q", i, "p.scale") }}
        }
        {% endfor %}
    }
}
{% endif %}

{% if entry == "attention_backward_keys" %}
{{ tensor(6, "d_k", values(element[6])) }}
{{ tensor(7, "d_v", values(element[7])) }}
{% set stats_loads = (tile * group + lanes - 1) // lanes if lanes > 1 else 0 %}
// An invocation owns keys, so that the sums over the queries are its own too.
{{ kernel("key", "p.keys", "1u") }}
        {{ own("key", "p.keys") }}
        {{ load_own("k", "k", "p.scale_log2 * ") }}
        {{ load_own("v", "v", "") }}
        {{ sums("d_k") }}
        {{ sums("d_v") }}
        for (var query = 0u; query < p.queries; query += {{ tile }}u) {
            {{ load_tile("q", "q", "query", "p.queries") }}
            {{ load_tile("d_y", "d_y", "query", "p.queries") }}
            {% for l in range(stats_loads) %}
            let row_slot_{{ l }} = min(lane + {{ lanes * l }}u, {{ tile * group - 1 }}u);
            let row_head_{{ l }} = s * p.heads + group * {{ group }}u + row_slot_{{ l }} / {{ tile }}u;
            let stats_load_{{ l }} = row_stats[row_head_{{ l }} * p.queries + min(query + row_slot_{{ l }} % {{ tile }}u, p.queries - 1u)];
            {% endfor %}
            {% for t in range(tile) %}
            {
                {{ take("q", "q", "query", "p.queries", t) }}
                {{ take("d_y", "d_y", "query", "p.queries", t) }}
                let is_inside = query + {{ t }}u < p.queries;
                {% for h in range(group) %}
                {% if lanes > 1 %}
                {% set slot = h * tile + t %}
                let stats_{{ h }} = subgroupBroadcast(stats_load_{{ slot // lanes }}, {{ slot % lanes }}u);
                {% else %}
                let stats_{{ h }} = row_stats[(s * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + min(query + {{ t }}u, p.queries - 1u)];
                {% endif %}
                {% if dropout %}
                {% set first = "first_weight_" ~ h %}
                let {{ first }} = first_weight(s, group * {{ group }}u + {{ h }}u, query + {{ t }}u);
                {% if block == 1 %}
                let shift_{{ h }} = ({{ first }}.x & 3u) + key;
                let factors_{{ h }} = factors_of(random_words({{ first }}, shift_{{ h }} / 4u), vec4(0u), shift_{{ h }});
                {% else %}
                let drawn_{{ h }} = random_words({{ first }}, key / 4u);
                let factors_{{ h }} = factors_of(drawn_{{ h }}, {{ "drawn_" ~ h if aligned else "random_words(" ~ first ~ ", key / 4u + 1u)" }}, {{ first }}.x);
                {% endif %}
                {% endif %}
                {% for i in range(block) %}
                {% set of = "_" ~ i ~ "_" ~ h %}
                {% set times_factor = " * factors_" ~ h ~ "." ~ "xyzw"[i] if dropout else "" %}
                let weight{{ of }} = select(0.0, exp2({{ product("k_" ~ i, "q", h) }} - stats_{{ h }}.x), is_inside);
                let d_weight{{ of }} = {{ product("v_" ~ i, "d_y", h) }};
                let d_score{{ of }} = weight{{ of }} * (d_weight{{ of }}{{ times_factor }} - stats_{{ h }}.y);
                let kept{{ of }} = weight{{ of }}{{ times_factor }};
                {% for c in range(h * width, (h + 1) * width) %}
                d_k_{{ i }}_{{ c }} = fma(d_score{{ of }}, {{ at("q", c) }}, d_k_{{ i }}_{{ c }});
                d_v_{{ i }}_{{ c }} = fma(kept{{ of }}, {{ at("d_y", c) }}, d_v_{{ i }}_{{ c }});
                {% endfor %}
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
        {% for i in range(block) %}
        if key + {{ i }}u < p.keys {
            let to = own_{{ i }};
            {{ store("d_k", values(element[6]), "d_k", i, "p.scale") }}
            {{ store("d_v", values(element[7]), "d_v", i, "1.0") }}
        }
        {% endfor %}
    }
}
{% endif %}
