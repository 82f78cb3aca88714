// Results of the products for GPUs: four output channels of one voxel.
{% from "common/operands.wgsl" import buffer %}
{% set y_type = element[y_binding] %}
{{ buffer(y_binding, "ys", "vec4<" ~ y_type ~ ">" if vout else y_type, index="i32") }}

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
        store_ys(at, value{{ " * slopes(at)" if masked }});
    }
    {% else %}
    {% for k in range(4) %}
    if 4 * c + {{ k }} < p.co {
        let at = voxel * p.co + 4 * c + {{ k }};
        store_ys(at, value[{{ k }}]{{ " * slopes(at)" if masked }});
    }
    {% endfor %}
    {% endif %}
}
