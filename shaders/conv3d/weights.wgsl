// The weight before the products for GPUs, and the sum of its partial gradients after them.

{% if entry is endingwith("pack") %}
// The weight as a matrix {{ "[co, padded][taps * ci, padded], two values of f16 a word" if half else "[taps * ci, padded][co, padded]" }}, where ci is padded to {{ 8 if half else 4 }} and
// all taps to a whole step; then the bias in f32. Zero where padded, or without a bias.
{% set weight_binding, bias_binding = 1, 3 %}
{% include "conv3d/weight.wgsl" %}
@group(0) @binding(2) var<storage, read_write> packed: array<{{ "u32" if half else "f32" }}>;

fn matrix(row: i32, o: i32) -> f32 {
    let padded = (p.ci + {{ 7 if half else 3 }}) / {{ 8 if half else 4 }} * {{ 8 if half else 4 }};
    return weight_at(o, row % padded, row / padded, p.kernel.x * p.kernel.y * p.kernel.z);
}

@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = i32(invocation_index(workgroup, grid, local));
    if index >= p.count {
        return;
    }
    if index < 4 * p.bias_at {
        {% if half %}
        let rows = 8 * p.bias_at / p.co_padded;
        let row = 2 * index % rows;
        let o = 2 * index / rows;
        packed[index] = pack2x16float(vec2(matrix(row, o), matrix(row + 1, o)));
        {% else %}
        packed[index] = matrix(index / p.co_padded, index % p.co_padded);
        {% endif %}
        return;
    }
    var value = 0.0;
    {% if bias %}
    let o = index - 4 * p.bias_at;
    if o < p.co {
        value = bias[o];
    }
    {% endif %}
    packed[index] = {{ "bitcast<u32>(value)" if half else "value" }};
}
{% endif %}

{% if entry is endingwith("reduce_weight") %}
// Adds the chunks in a fixed order: a workgroup has {{ columns }} columns of four input channels, of which an invocation adds every
// {{ slices }}th chunk.
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> d_weight: array<f32>;
{% if bias %}
@group(0) @binding(3) var<storage, read_write> d_bias: array<f32>;
{% endif %}

var<workgroup> sums: array<vec4<f32>, {{ columns * slices }}>;

@compute @workgroup_size({{ columns * slices }})
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local_index: u32,
) {
    let local = i32(local_index);
    let index = i32(workgroup_index(workgroup, grid)) * {{ columns }} + local % {{ columns }};
    var sum = vec4(0.0);
    if index < p.count {
        for (var part = local / {{ columns }}; part < p.parts; part += {{ slices }}) {
            sum += partial[part * p.count + index];
        }
    }
    sums[local] = sum;
    workgroupBarrier();
    if local >= {{ columns }} || index >= p.count {
        return;
    }
    for (var slice = 1; slice < {{ slices }}; slice += 1) {
        sum += sums[slice * {{ columns }} + local];
    }
    let vectors = (p.ci + 3) / 4;
    let taps = p.kernel.x * p.kernel.y * p.kernel.z;
    let row = taps * vectors + 1;
    let o = index / row;
    let q = index % row;
    if q == row - 1 {
        {% if bias %}
        d_bias[o] = sum.x + select(0.0, d_bias[o], p.accumulate == 1u);
        {% endif %}
        return;
    }
    for (var k = 0; k < 4; k += 1) {
        let i = q % vectors * 4 + k;
        if i < p.ci {
            let at = (o * p.ci + i) * taps + q / vectors;
            d_weight[at] = sum[k] + select(0.0, d_weight[at], p.accumulate == 1u);
        }
    }
}
{% endif %}
