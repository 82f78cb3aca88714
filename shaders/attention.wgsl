// Kernels of src/layers/attention.rs for narrow heads. An invocation works on {{ group }} heads of {{ width }} channels at once, which it
// loads {{ vector }} at a time. It owns {{ block }} tokens and walks over the others in tiles of {{ tile }}. With {{ lanes }} lanes > 1 a workgroup is one
// subgroup of as many invocations, which own tokens of the same sequence and load a tile together.
{% include "common/index.wgsl" %}
{% from "common/operands.wgsl" import buffer, entry_point, parameters %}
{% if dropout %}
{% include "common/philox.wgsl" %}
{% endif %}
{% set channels = width * group %}
{% set vectors = channels // vector %}
{% macro values(element) %}{{ "vec4<" ~ element ~ ">" if vector == 4 else element }}{% endmacro %}
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

{{ parameters("p", "Parameters") }}

const LOWEST: f32 = -1e30;
const LOG2_E: f32 = 1.4426950408889634;

{# Channel c of a token's heads. #}
{% macro at(name, c) %}{{ name }}_{{ c // vector }}{{ "." ~ "xyzw"[c % 4] if vector == 4 }}{% endmacro %}
{# The invocation's own tokens of sequence s, and where they begin. #}
{% macro own(first, count) %}
{% for i in range(block) %}
let is_own_{{ i }} = {{ first }} + {{ i }}u < {{ count }};
let own_{{ i }} = (s * {{ count }} + {{ first }} + {{ i }}u) * p.stride + channel;
{% endfor %}
{% endmacro %}
{% macro load_own(names) %}
{% for i in range(block) %}
{% for name in names %}
{% for v in range(vectors) %}
var {{ name }}_{{ i }}_{{ v }} = Value(0.0);
{% endfor %}
{% endfor %}
if is_own_{{ i }} {
    {% for name in names %}
    {% for v in range(vectors) %}
    {{ name }}_{{ i }}_{{ v }} = load_{{ name }}(own_{{ i }} + {{ v }}u);
    {% endfor %}
    {% endfor %}
}
{% endfor %}
{% endmacro %}
{% macro sums(name) %}
{% for i in range(block) %}
{% for c in range(channels) %}
var {{ name }}_{{ i }}_{{ c }} = 0.0;
{% endfor %}
{% endfor %}
{% endmacro %}
{# Stores the sums of own token i at `to`, each times `factor`, or the factor of its head. #}
{% macro store(target, name, i, factor) %}
{% for v in range(vectors) %}
store_{{ target }}(to + {{ v }}u, Value(
    {%- for c in range(v * vector, (v + 1) * vector) %}{{ name }}_{{ i }}_{{ c }} * {{ factor }}{{ "_" ~ c // width if factor == "factor" }}{{ ", " if not loop.last }}{% endfor %}));
{% endfor %}
{% endmacro %}
{# Loads the tile from token `first` on of sequence s; past the end there are zeros. #}
{% set loads = (tile * vectors + lanes - 1) // lanes if lanes > 1 else tile %}
{% macro load_tile(names, first, end, count) %}
{% for l in range(loads) %}
{% for name in names %}
{% for v in range(1 if lanes > 1 else vectors) %}
var {{ name }}_{{ l }}_{{ v }} = Value(0.0);
{% endfor %}
{% endfor %}
if {{ first }} + token_{{ l }} < {{ end }} {
    let from_{{ l }} = (s * {{ count }} + {{ first }} + token_{{ l }}) * p.stride + vector_{{ l }};
    {% for name in names %}
    {% for v in range(1 if lanes > 1 else vectors) %}
    {{ name }}_{{ l }}_{{ v }} = load_{{ name }}(from_{{ l }} + {{ v }}u);
    {% endfor %}
    {% endfor %}
}
{% endfor %}
{% endmacro %}
{# Channel c of all tokens of the tile. #}
{% macro take(name, c) %}
{% for t in range(tile) %}
{% set slot = t * vectors + c // vector %}
let {{ name }}_at_{{ t }} = {% if lanes > 1 %}subgroupBroadcast({{ at(name ~ "_" ~ slot // lanes, c % vector) }}, {{ slot % lanes }}u){% else %}{{ at(name ~ "_" ~ t, c) }}{% endif %};
{% endfor %}
{% endmacro %}
{# The products of head h of own tokens from `first` on with those of the tile. #}
{% macro products(result, own, other, first, h) %}
{% for c in range(h * width, (h + 1) * width) %}
{
    {{ take(other, c) }}
    {% for i in range(first, [first + at_once, block] | min) %}
    {% for t in range(tile) %}
    {% set sum = result ~ "_" ~ i ~ "_" ~ t %}
    {{ sum }} = {% if c == h * width %}{{ at(own ~ "_" ~ i, c) }} * {{ other }}_at_{{ t }}{% else %}fma({{ at(own ~ "_" ~ i, c) }}, {{ other }}_at_{{ t }}, {{ sum }}){% endif %};
    {% endfor %}
    {% endfor %}
}
{% endfor %}
{% endmacro %}
{% macro product_variables(names, first) %}
{% for name in names %}
{% for i in range(first, [first + at_once, block] | min) %}
{% for t in range(tile) %}
var {{ name }}_{{ i }}_{{ t }}: f32;
{% endfor %}
{% endfor %}
{% endfor %}
{% endmacro %}
{# Adds the tile's channels of head h, times factors, to sums of own tokens. #}
{% macro add(sum, factor, other, first, h) %}
{% for c in range(h * width, (h + 1) * width) %}
{
    {{ take(other, c) }}
    {% for i in range(first, [first + at_once, block] | min) %}
    {% for t in range(tile) %}
    {{ sum }}_{{ i }}_{{ c }} = fma({{ factor }}_{{ i }}_{{ t }}, {{ other }}_at_{{ t }}, {{ sum }}_{{ i }}_{{ c }});
    {% endfor %}
    {% endfor %}
}
{% endfor %}
{% endmacro %}

{% if dropout %}
// Number of a query's first weight among those of all sequences, heads, queries and keys, in two words.
fn first_weight(s: u32, head: u32, query: u32) -> vec2<u32> {
    return mul_wide(((p.first_sequence + s) * p.heads + head) * p.queries + query, p.keys);
}

// The random words of the block in which weight `number` lies, or of one so many blocks after it.
fn random_words(number: vec2<u32>, blocks: u32, key: vec3<u32>) -> vec4<u32> {
    let block = (number.x >> 2u | number.y << 30u) + blocks;
    return philox(vec4(block, p.stream, key.z, 1u), key.xy);
}

// Factors of the four weights whose words begin with number `shift` % 4 of block `a`, which `b` follows.
fn factors_of(a: vec4<u32>, b: vec4<u32>, shift: u32) -> vec4<f32> {
    let is_far = (shift & 2u) != 0u;
    let words = select(a, vec4(a.zw, b.xy), is_far);
    let shifted = select(words, vec4(words.yzw, select(b.x, b.z, is_far)), (shift & 1u) != 0u);
    return select(vec4(0.0), vec4(p.kept), shifted >= vec4(p.threshold));
}
{% endif %}
{# Factors of the weights of own queries at a tile's keys, from the first of which on they are drawn. #}
{% macro begin_factors(key) %}
{% for i in range(block if dropout else 0) %}
{% for h in range(group) %}
let first_weight_{{ i }}_{{ h }} = first_weight(s, group * {{ group }}u + {{ h }}u, query + {{ i }}u);
{% if not aligned %}
var words_{{ i }}_{{ h }} = random_words(first_weight_{{ i }}_{{ h }}, {{ key }} / 4u, seed);
{% endif %}
{% endfor %}
{% endfor %}
{% endmacro %}
{% macro draw_factors(i, h) %}
{% for u in range((tile + 3) // 4 if dropout else 0) %}
{% set first = "first_weight_" ~ i ~ "_" ~ h %}
{% set words = "words_" ~ i ~ "_" ~ h %}
{% if aligned %}
let drawn_{{ u }} = random_words({{ first }}, key / 4u + {{ u }}u, seed);
let factors_{{ u }} = factors_of(drawn_{{ u }}, drawn_{{ u }}, 0u);
{% else %}
let drawn_{{ u }} = random_words({{ first }}, key / 4u + {{ u + 1 }}u, seed);
let factors_{{ u }} = factors_of({{ words }}, drawn_{{ u }}, {{ first }}.x);
{{ words }} = drawn_{{ u }};
{% endif %}
{% endfor %}
{% endmacro %}
{% macro factor(t) %}factors_{{ t // 4 }}.{{ "xyzw"[t % 4] }}{% endmacro %}

{# The head of a kernel: whose own tokens are `first` and those after it, of `count`, in sequence s and part `part`. #}
{% macro kernel(first, count, parts) %}
{{ entry_point(entry, lanes if lanes > 1 else 64, builtins={"subgroup_invocation_id": "lane"} if lanes > 1 else {}) }}
    let group = workgroup.z;
    let channel = group * {{ vectors }}u;
    {% for l in range(loads) %}
    {% if lanes > 1 %}
    let token_{{ l }} = (lane + {{ lanes * l }}u) / {{ vectors }}u;
    let vector_{{ l }} = channel + (lane + {{ lanes * l }}u) % {{ vectors }}u;
    {% else %}
    let token_{{ l }} = {{ l }}u;
    let vector_{{ l }} = channel;
    {% endif %}
    {% endfor %}
    {% if lanes > 1 %}
    let {{ first }} = (workgroup.y * {{ lanes }}u + lane) * {{ block }}u;
    let part = 0u;
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
{{ buffer(1, "q", values(element[1])) }}
{{ buffer(2, "k", values(element[2])) }}
{{ buffer(3, "v", values(element[3])) }}
{{ buffer(4, "y", values(element[4])) }}
{{ buffer(5, "row_stats", "vec2<f32>" if split else "f32") }}
{{ buffer(6, "rng", "u32") }}
// With several parts of the keys y is the sum over a part of weights times values, and row_stats are the largest score and the sum of
// weights relative to it, to be merged; else y is the result, and row_stats are the logarithms of the sums of exponentials.
{{ kernel("query", "p.queries", "p.parts") }}
        {{ own("query", "p.queries") }}
        {{ load_own(["q"]) }}
        {% for i in range(block) %}
        {% for v in range(vectors) %}
        q_{{ i }}_{{ v }} *= p.scale_log2;
        {% endfor %}
        {% for h in range(group) %}
        var largest_{{ i }}_{{ h }} = LOWEST;
        var total_{{ i }}_{{ h }} = 0.0;
        {% endfor %}
        {% endfor %}
        {{ sums("y") }}
        let first_key = part * p.part_keys;
        let end = min(first_key + p.part_keys, p.keys);
        {% if dropout %}
        let seed = vec3(load_rng(0), load_rng(1), load_rng(2));
        {% endif %}
        {{ begin_factors("first_key") }}
        for (var key = first_key; key < end; key += {{ tile }}u) {
            {{ load_tile(["k", "v"], "key", "end", "p.keys") }}
            {% for first in range(0, block, at_once) %}
            {% for h in range(group) %}
            {
                {{ product_variables(["weight"], first) }}
                {{ products("weight", "q", "k", first, h) }}
                {% for i in range(first, [first + at_once, block] | min) %}
                {% set of = "_" ~ i ~ "_" ~ h %}
                {
                    var largest = largest{{ of }};
                    {% for t in range(tile) %}
                    {% if t > 0 and not exact %}
                    weight_{{ i }}_{{ t }} = select(LOWEST, weight_{{ i }}_{{ t }}, key + {{ t }}u < end);
                    {% endif %}
                    largest = max(largest, weight_{{ i }}_{{ t }});
                    {% endfor %}
                    let shrink = exp2(largest{{ of }} - largest);
                    largest{{ of }} = largest;
                    total{{ of }} *= shrink;
                    {% for c in range(h * width, (h + 1) * width) %}
                    y_{{ i }}_{{ c }} *= shrink;
                    {% endfor %}
                    {{ draw_factors(i, h) }}
                    {% for t in range(tile) %}
                    weight_{{ i }}_{{ t }} = exp2(weight_{{ i }}_{{ t }} - largest);
                    total{{ of }} += weight_{{ i }}_{{ t }};
                    {% if dropout %}
                    weight_{{ i }}_{{ t }} *= {{ factor(t) }};
                    {% endif %}
                    {% endfor %}
                }
                {% endfor %}
                {{ add("y", "weight", "v", first, h) }}
            }
            {% endfor %}
            {% endfor %}
        }
        {% for i in range(block) %}
        if is_own_{{ i }} {
            {% for h in range(group) %}
            let row_{{ h }} = ((part * p.sequences + s) * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + query + {{ i }}u;
            {% if split %}
            store_row_stats(row_{{ h }}, vec2(largest_{{ i }}_{{ h }}, total_{{ i }}_{{ h }}));
            {% else %}
            store_row_stats(row_{{ h }}, (largest_{{ i }}_{{ h }} + log2(total_{{ i }}_{{ h }})) / LOG2_E);
            let factor_{{ h }} = 1.0 / total_{{ i }}_{{ h }};
            {% endif %}
            {% endfor %}
            let to = own_{{ i }} + part * p.sequences * p.queries * p.stride;
            {{ store("y", "y", i, "1.0" if split else "factor") }}
        }
        {% endfor %}
    }
}
{% endif %}

{% if entry == "attention_merge" %}
{{ buffer(1, "part_y", values("f32")) }}
{{ buffer(2, "part_stats", "vec2<f32>") }}
{{ buffer(3, "y", values(element[3])) }}
{{ buffer(4, "lse", "f32") }}
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
        for (var other = 0u; other < p.parts; other += 1u) {
            {% for h in range(group) %}
            let stats_{{ h }} = load_part_stats(row_{{ h }} + other * part_rows);
            let larger_{{ h }} = max(largest_{{ h }}, stats_{{ h }}.x);
            let shrink_{{ h }} = exp2(largest_{{ h }} - larger_{{ h }});
            let weight_{{ h }} = exp2(stats_{{ h }}.x - larger_{{ h }});
            largest_{{ h }} = larger_{{ h }};
            total_{{ h }} = fma(weight_{{ h }}, stats_{{ h }}.y, total_{{ h }} * shrink_{{ h }});
            {% endfor %}
            {% for v in range(vectors) %}
            let part_{{ v }} = load_part_y(own_0 + other * part_values + {{ v }}u);
            {% endfor %}
            {% for c in range(channels) %}
            y_0_{{ c }} = fma(weight_{{ c // width }}, {{ at("part", c) }}, y_0_{{ c }} * shrink_{{ c // width }});
            {% endfor %}
        }
        {% for h in range(group) %}
        store_lse(row_{{ h }}, (largest_{{ h }} + log2(total_{{ h }})) / LOG2_E);
        let factor_{{ h }} = 1.0 / total_{{ h }};
        {% endfor %}
        let to = own_0;
        {{ store("y", "y", 0, "factor") }}
    }
}
{% endif %}

{# What the backward pass needs of query i of head h: lse as an exponent of two, and the sum of d_y y. #}
{% macro stats_at(query, h) %}bitcast<vec2<f32>>(load_row_stats((s * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + {{ query }})){% endmacro %}
{% macro load_seed() %}
{% if dropout %}
let seed_at = p.sequences * p.heads * p.queries;
let seed = vec3(load_row_stats(seed_at), load_row_stats(seed_at + 1u).x);
{% endif %}
{% endmacro %}
{% if entry == "attention_backward_rows" %}
{{ buffer(1, "y", values(element[1])) }}
{{ buffer(2, "d_y", values(element[2])) }}
{{ buffer(3, "lse", "f32") }}
{{ buffer(4, "row_stats", "vec2<u32>") }}
{{ buffer(5, "rng", "u32") }}
// Makes these; after the last come the words of rng, since a kernel may not bind more buffers than the others do.
{{ kernel("query", "p.queries", "1u") }}
        {{ own("query", "p.queries") }}
        {{ load_own(["y", "d_y"]) }}
        {% for h in range(group) %}
        let row_{{ h }} = (s * p.heads + group * {{ group }}u + {{ h }}u) * p.queries + query;
        var sum_{{ h }} = 0.0;
        {% for c in range(h * width, (h + 1) * width) %}
        sum_{{ h }} = fma({{ at("y_0", c) }}, {{ at("d_y_0", c) }}, sum_{{ h }});
        {% endfor %}
        store_row_stats(row_{{ h }}, bitcast<vec2<u32>>(vec2(LOG2_E * load_lse(row_{{ h }}), sum_{{ h }})));
        {% endfor %}
        {% if dropout %}
        if index == 0u && group == 0u {
            let seed_at = p.sequences * p.heads * p.queries;
            store_row_stats(seed_at, vec2(load_rng(0), load_rng(1)));
            store_row_stats(seed_at + 1u, vec2(load_rng(2), 0u));
        }
        {% endif %}
    }
}
{% endif %}

{% if entry == "attention_backward_queries" or entry == "attention_backward_keys" %}
{{ buffer(1, "q", values(element[1])) }}
{{ buffer(2, "k", values(element[2])) }}
{{ buffer(3, "v", values(element[3])) }}
{{ buffer(4, "d_y", values(element[4])) }}
{{ buffer(5, "row_stats", "vec2<u32>") }}
{% endif %}
{% if entry == "attention_backward_queries" %}
{{ buffer(6, "d_q", values(element[6])) }}
{% if single %}
{{ buffer(7, "d_k", values(element[7])) }}
{{ buffer(8, "d_v", values(element[8])) }}
{% endif %}
// An invocation owns queries; of several parts of the keys each has its own d_q, to be added. Where a sequence has a single query,
// d_k and d_v are no sums.
{{ kernel("query", "p.queries", "p.parts") }}
        {{ own("query", "p.queries") }}
        {{ load_own(["q", "d_y"]) }}
        {% for i in range(block) %}
        {% for v in range(vectors) %}
        q_{{ i }}_{{ v }} *= p.scale_log2;
        {% endfor %}
        {% for h in range(group) %}
        var stats_{{ i }}_{{ h }} = vec2(0.0);
        if is_own_{{ i }} {
            stats_{{ i }}_{{ h }} = {{ stats_at("query + " ~ i ~ "u", h) }};
        }
        {% endfor %}
        {% endfor %}
        {{ sums("d_q") }}
        let first_key = part * p.part_keys;
        let end = min(first_key + p.part_keys, p.keys);
        {{ load_seed() }}
        {{ begin_factors("first_key") }}
        for (var key = first_key; key < end; key += {{ tile }}u) {
            {{ load_tile(["k", "v"], "key", "end", "p.keys") }}
            {% if single %}
            {% for t in range(tile) %}
            {% for c in range(channels) %}
            var d_k_{{ t }}_{{ c }}: f32;
            var d_v_{{ t }}_{{ c }}: f32;
            {% endfor %}
            {% endfor %}
            {% endif %}
            {% for first in range(0, block, at_once) %}
            {% for h in range(group) %}
            {
                {{ product_variables(["weight", "d_score"], first) }}
                {{ products("weight", "q", "k", first, h) }}
                {{ products("d_score", "d_y", "v", first, h) }}
                {% for i in range(first, [first + at_once, block] | min) %}
                {
                    {{ draw_factors(i, h) }}
                    {% for t in range(tile) %}
                    {% if t > 0 and not exact %}
                    weight_{{ i }}_{{ t }} = select(LOWEST, weight_{{ i }}_{{ t }}, key + {{ t }}u < end);
                    {% endif %}
                    weight_{{ i }}_{{ t }} = exp2(weight_{{ i }}_{{ t }} - stats_{{ i }}_{{ h }}.x);
                    d_score_{{ i }}_{{ t }} = weight_{{ i }}_{{ t }} * (d_score_{{ i }}_{{ t }}{% if dropout %} * {{ factor(t) }}{% endif %} - stats_{{ i }}_{{ h }}.y);
                    {% if dropout %}
                    weight_{{ i }}_{{ t }} *= {{ factor(t) }};
                    {% endif %}
                    {% endfor %}
                }
                {% endfor %}
                {{ add("d_q", "d_score", "k", first, h) }}
                {% if single %}
                {% for t in range(tile) %}
                {% for c in range(h * width, (h + 1) * width) %}
                d_k_{{ t }}_{{ c }} = d_score_0_{{ t }} * {{ at("q_0", c) }};
                d_v_{{ t }}_{{ c }} = weight_0_{{ t }} * {{ at("d_y_0", c) }};
                {% endfor %}
                {% endfor %}
                {% endif %}
            }
            {% endfor %}
            {% endfor %}
            {% for t in range(tile if single else 0) %}
            if key + {{ t }}u < end {
                let to = (s * p.keys + key + {{ t }}u) * p.stride + channel;
                {{ store("d_k", "d_k", t, "(1.0 / LOG2_E)") }}
                {{ store("d_v", "d_v", t, "1.0") }}
            }
            {% endfor %}
        }
        {% for i in range(block) %}
        if is_own_{{ i }} {
            let to = own_{{ i }} + part * p.sequences * p.queries * p.stride;
            {{ store("d_q", "d_q", i, "p.scale") }}
        }
        {% endfor %}
    }
}
{% endif %}

{% if entry == "attention_backward_keys" %}
{{ buffer(6, "d_k", values(element[6])) }}
{{ buffer(7, "d_v", values(element[7])) }}
{% set stats_loads = (tile * group + lanes - 1) // lanes if lanes > 1 else tile * group %}
// An invocation owns keys, so that the sums over the queries are its own too.
{{ kernel("key", "p.keys", "1u") }}
        {{ own("key", "p.keys") }}
        {{ load_own(["k", "v"]) }}
        {% for i in range(block) %}
        {% for v in range(vectors) %}
        k_{{ i }}_{{ v }} *= p.scale_log2;
        {% endfor %}
        {% endfor %}
        {{ sums("d_k") }}
        {{ sums("d_v") }}
        {{ load_seed() }}
        for (var query = 0u; query < p.queries; query += {{ tile }}u) {
            {{ load_tile(["q", "d_y"], "query", "p.queries", "p.queries") }}
            {% for l in range(stats_loads) %}
            {% set slot = "(lane + " ~ lanes * l ~ "u)" if lanes > 1 else l ~ "u" %}
            var stats_{{ l }} = vec2(0.0);
            if query + {{ slot }} % {{ tile }}u < p.queries && {{ slot }} < {{ tile * group }}u {
                stats_{{ l }} = {{ stats_at("query + " ~ slot ~ " % " ~ tile ~ "u", slot ~ " / " ~ tile) }};
            }
            {% endfor %}
            {% for h in range(group) %}
            {% for t in range(tile) %}
            {% set slot = h * tile + t %}
            let stats_{{ h }}_{{ t }} = {% if lanes > 1 %}subgroupBroadcast(stats_{{ slot // lanes }}, {{ slot % lanes }}u){% else %}stats_{{ slot }}{% endif %};
            {% if dropout %}
            let first_weight_{{ h }}_{{ t }} = first_weight(s, group * {{ group }}u + {{ h }}u, query + {{ t }}u);
            {% if block > 1 and not aligned %}
            var words_{{ h }}_{{ t }} = random_words(first_weight_{{ h }}_{{ t }}, key / 4u, seed);
            {% endif %}
            {% endif %}
            {% endfor %}
            {% endfor %}
            {% for first in range(0, block, at_once) %}
            {% for h in range(group) %}
            {
                {{ product_variables(["weight", "d_score"], first) }}
                {{ products("weight", "k", "q", first, h) }}
                {{ products("d_score", "v", "d_y", first, h) }}
                {% for t in range(tile) %}
                {
                    {% if dropout %}
                    {% set first_weight = "first_weight_" ~ h ~ "_" ~ t %}
                    {% set words = "words_" ~ h ~ "_" ~ t %}
                    {% if block == 1 %}
                    let shift = ({{ first_weight }}.x & 3u) + key;
                    let factors = factors_of(random_words({{ first_weight }}, shift / 4u, seed), vec4(0u), shift);
                    {% elif aligned %}
                    let factors = factors_of(random_words({{ first_weight }}, key / 4u + {{ first // 4 }}u, seed), vec4(0u), 0u);
                    {% else %}
                    let drawn = random_words({{ first_weight }}, key / 4u + {{ first // 4 + 1 }}u, seed);
                    let factors = factors_of({{ words }}, drawn, {{ first_weight }}.x);
                    {{ words }} = drawn;
                    {% endif %}
                    {% endif %}
                    {% for i in range(first, [first + at_once, block] | min) %}
                    {% set factor = " * factors." ~ "xyzw"[i % 4] if dropout else "" %}
                    weight_{{ i }}_{{ t }} = exp2(weight_{{ i }}_{{ t }} - stats_{{ h }}_{{ t }}.x);
                    d_score_{{ i }}_{{ t }} = weight_{{ i }}_{{ t }} * (d_score_{{ i }}_{{ t }}{{ factor }} - stats_{{ h }}_{{ t }}.y);
                    {% if dropout %}
                    weight_{{ i }}_{{ t }} *= factors.{{ "xyzw"[i % 4] }};
                    {% endif %}
                    {% endfor %}
                }
                {% endfor %}
                {{ add("d_k", "d_score", "q", first, h) }}
                {{ add("d_v", "weight", "d_y", first, h) }}
            }
            {% endfor %}
            {% endfor %}
        }
        {% for i in range(block) %}
        if is_own_{{ i }} {
            let to = own_{{ i }};
            {{ store("d_k", "d_k", i, "p.scale") }}
            {{ store("d_v", "d_v", i, "1.0") }}
        }
        {% endfor %}
    }
}
{% endif %}
