{# The type of `width` neighbours of `element` that are loaded and stored at once: a vector of four, or one. #}
{% macro values(element) %}{{ "vec4<" ~ element ~ ">" if width == 4 else element }}{% endmacro %}
