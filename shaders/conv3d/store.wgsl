// Results of the products for GPUs: four output channels of one voxel.
{% set y_type = element[y_binding] %}
@group(0) @binding({{ y_binding }}) var<storage, read_write> ys: array<{{ "vec4<" ~ y_type ~ ">" if vout else y_type }}>;

{% include "conv3d/mask.wgsl" %}
fn store(voxel: i32, c: i32, sum: vec4<f32>) {
    if voxel >= p.count {
        return;
    }
    {% if activation %}
    let value = vec4(lrelu(sum.x), lrelu(sum.y), lrelu(sum.z), lrelu(sum.w));
    {% else %}
    let value = sum;
    {% endif %}
    {% if vout %}
    let at = voxel * (p.co / 4) + c;
    if 4 * c < p.co {
        ys[at] = vec4<{{ y_type }}>(value{{ " * slopes(at)" if masked }});
    }
    {% else %}
    {% for k in range(4) %}
    if 4 * c + {{ k }} < p.co {
        let at = voxel * p.co + 4 * c + {{ k }};
        ys[at] = {{ y_type }}(value[{{ k }}]{{ " * slopes(at)" if masked }});
    }
    {% endfor %}
    {% endif %}
}
