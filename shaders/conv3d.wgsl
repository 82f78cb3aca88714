{% if matrix_units is defined and matrix_units %}
enable wgpu_cooperative_matrix;
{% endif %}
// Convolution and linear layer over channels-last tensors; src/layers/conv3d/program.rs says which kernel runs where.
{% include "common/index.wgsl" %}
{% include "common/activation.wgsl" %}

{% if not tiled %}
{% include "conv3d/blocked.wgsl" %}
{% else %}
{% include "conv3d/volume.wgsl" %}
{% if entry is endingwith("pack") or entry is endingwith("reduce_weight") %}
{% include "conv3d/weights.wgsl" %}
{% elif entry is endingwith("transform") %}
{% include "conv3d/transform.wgsl" %}
{% elif matrix_units is defined %}
{% include "conv3d/cooperative.wgsl" %}
{% else %}
{% include "conv3d/tiled.wgsl" %}
{% endif %}
{% endif %}
