// Convolution and linear layer over channels-last tensors; src/layers/conv3d/program.rs says which kernel runs where.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}

{% if tiled %}
{% include "conv3d/tiled.wgsl" %}
{% else %}
{% include "conv3d/blocked.wgsl" %}
{% endif %}
