// Results of the products for GPUs: four output channels of one voxel.
@group(0) @binding(3) var<storage, read_write> ys: array<{{ "vec4<" ~ element[3] ~ ">" if vout else element[3] }}>;

fn store(voxel: i32, c: i32, sum: vec4<f32>) {
    if voxel >= p.count {
        return;
    }
    {% if activation %}
    let value = vec4<{{ element[3] }}>(vec4(lrelu(sum.x), lrelu(sum.y), lrelu(sum.z), lrelu(sum.w)));
    {% else %}
    let value = vec4<{{ element[3] }}>(sum);
    {% endif %}
    {% if vout %}
    if 4 * c < p.co {
        ys[voxel * (p.co / 4) + c] = value;
    }
    {% else %}
    {% for k in range(4) %}
    if 4 * c + {{ k }} < p.co {
        ys[voxel * p.co + 4 * c + {{ k }}] = value[{{ k }}];
    }
    {% endfor %}
    {% endif %}
}
