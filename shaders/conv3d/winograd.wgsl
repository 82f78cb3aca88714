{# Winograd's algorithm F(m, 3) in one dimension (Lavin and Gray 2016, section 4): m outputs of three taps by m + 2
   products. `input` makes the m + 2 factors of as many inputs, `taps` those of the taps; `output` says, product by product, how
   often it counts in each output. #}
{% set input = {
    "2": [[1.0, 0, -1.0, 0], [0, 1.0, 1.0, 0], [0, -1.0, 1.0, 0], [0, 1.0, 0, -1.0]],
    "4": [[4.0, 0, -5.0, 0, 1.0, 0], [0, -4.0, -4.0, 1.0, 1.0, 0], [0, 4.0, -4.0, -1.0, 1.0, 0],
          [0, -2.0, -1.0, 2.0, 1.0, 0], [0, 2.0, -1.0, -2.0, 1.0, 0], [0, 4.0, 0, -5.0, 0, 1.0]],
} %}
{% set taps = {
    "2": [[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1.0]],
    "4": [["1.0 / 4.0", 0, 0], ["-1.0 / 6.0", "-1.0 / 6.0", "-1.0 / 6.0"], ["-1.0 / 6.0", "1.0 / 6.0", "-1.0 / 6.0"],
          ["1.0 / 24.0", "1.0 / 12.0", "1.0 / 6.0"], ["1.0 / 24.0", "-1.0 / 12.0", "1.0 / 6.0"], [0, 0, 1.0]],
} %}
{% set output = {
    "2": [[1.0, 0, 0, 0], [1.0, 1.0, 0, 0], [1.0, -1.0, 0, 0], [0, -1.0, 0, 0]],
    "4": [[1.0, 0, 0, 0], [1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0], [1.0, 2.0, 4.0, 8.0], [1.0, -2.0, 4.0, -8.0],
          [0, 0, 0, 1.0]],
} %}
{# The same for F(3, 4), which makes the gradients of three taps of six inputs and of four outputs' gradients, `gradient`. #}
{% set gradient = [
    ["1.0 / 4.0", 0, 0, 0], ["-1.0 / 6.0", "-1.0 / 6.0", "-1.0 / 6.0", "-1.0 / 6.0"],
    ["-1.0 / 6.0", "1.0 / 6.0", "-1.0 / 6.0", "1.0 / 6.0"], ["1.0 / 24.0", "1.0 / 12.0", "1.0 / 6.0", "1.0 / 3.0"],
    ["1.0 / 24.0", "-1.0 / 12.0", "1.0 / 6.0", "-1.0 / 3.0"], [0, 0, 0, 1.0],
] %}
{% set gradient_output = [[1.0, 1.0, 1.0, 1.0, 1.0, 0], [0, 1.0, -1.0, 2.0, -2.0, 0], [0, 1.0, 1.0, 4.0, 4.0, 1.0]] %}
{# The sum of the variables `name`_0, _1 and so on, each as often as `factors` say. #}
{% macro weighted(factors, name) -%}
{% for factor in factors %}
{% if factor != 0 %}
{{ " + " if not loop.first and factors[:loop.index0] | select | list }}({{ factor }}) * {{ name }}_{{ loop.index0 }}
{%- endif %}
{% endfor %}
{%- endmacro %}
