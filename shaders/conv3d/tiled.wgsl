// Workgroup-tiled kernels for GPUs: implicit matrix products, 4 x 4 results an invocation. The inner dimension of the
// forward product, and the columns of the weight gradient, are (tap, channel) flattened in vec4: q = tap * ci / 4 + c.

struct Parameters {
    size: vec3<i32>, // X, Y, Z; a linear layer has its rows along Z
    ci: i32,
    co: i32,
    taps: i32,
    count: i32,      // voxels
    bias_at: i32,    // of the packed bias, in vec4
    chunk: i32,      // voxels of a chunk
    parts: i32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

{% if entry is endingwith("pack") %}
// The weight as a matrix [taps * ci / 4, padded to 4][4][co, padded], then the bias, zero where padded.
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<f32>;
{% if bias %}
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
{% endif %}

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
    let co_padded = (p.co + {{ tn - 1 }}) / {{ tn }} * {{ tn }};
    let o = index % co_padded;
    let k = index / co_padded;
    let vectors = (p.ci + 3) / 4;
    let i = k / 4 % vectors * 4 + k % 4;
    let tap = k / 4 / vectors;
    var value = 0.0;
    if index >= 4 * p.bias_at {
        {% if bias %}
        if o < p.co {
            value = bias[o];
        }
        {% endif %}
    } else if o < p.co && i < p.ci && tap < p.taps {
        {% if transposed %}
        value = weight[(i * p.co + o) * p.taps + p.taps - 1 - tap];
        {% else %}
        value = weight[(o * p.ci + i) * p.taps + tap];
        {% endif %}
    }
    packed[index] = value;
}
{% endif %}

{% if not entry is endingwith("pack") and not entry is endingwith("reduce_weight") %}
@group(0) @binding(1) var<storage, read_write> xs: array<{{ "vec4<" ~ element[1] ~ ">" if vin else element[1] }}>;

// Channels 4c.. of x at `voxel`, zero past the end.
fn channels(voxel: i32, c: i32) -> vec4<f32> {
    {% if vin %}
    return vec4<f32>(xs[voxel * (p.ci / 4) + c]);
    {% else %}
    let k = vec4(4 * c) + vec4(0, 1, 2, 3);
    let at = voxel * p.ci + min(k, vec4(p.ci - 1));
    return select(vec4(0.0), vec4<f32>(vec4(xs[at.x], xs[at.y], xs[at.z], xs[at.w])), k < vec4(p.ci));
    {% endif %}
}

fn offset_of(tap: i32) -> vec3<i32> {
    {% if pointwise %}
    return vec3(0);
    {% else %}
    return vec3(tap / {{ ky * kz }} - {{ kx // 2 }}, tap / {{ kz }} % {{ ky }} - {{ ky // 2 }}, tap % {{ kz }} - {{ kz // 2 }});
    {% endif %}
}

fn position_of(voxel: i32) -> vec3<i32> {
    {% if pointwise %}
    return vec3(0);
    {% else %}
    return vec3(voxel / (p.size.z * p.size.y) % p.size.x, voxel / p.size.z % p.size.y, voxel % p.size.z);
    {% endif %}
}

// Channels of the voxel that `tap` of an output at `position` reads, zero outside of the volume.
fn neighbour(voxel: i32, position: vec3<i32>, offset: vec3<i32>, c: i32) -> vec4<f32> {
    {% if pointwise %}
    return channels(voxel, c);
    {% else %}
    let source = position + offset;
    if all(source >= vec3(0)) && all(source < p.size) {
        return channels(voxel + (offset.x * p.size.y + offset.y) * p.size.z + offset.z, c);
    }
    return vec4(0.0);
    {% endif %}
}
{% endif %}

{% if entry is endingwith("forward") or entry is endingwith("data") %}
// {{ tm }} voxels x {{ tn }} output channels a workgroup, 16 of the inner dimension a step.
{% set threads = tm * tn // 16 %}
{% set loads = tm * 4 // threads %}
@group(0) @binding(2) var<storage, read_write> weights: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> ys: array<{{ "vec4<" ~ element[3] ~ ">" if vout else element[3] }}>;

// A row has four vectors and one of padding, so that neighbouring rows lie in different banks.
var<workgroup> tile_x: array<vec4<f32>, {{ tm * 5 }}>;
var<workgroup> tile_w: array<vec4<f32>, {{ tn * 4 }}>;

@compute @workgroup_size({{ threads }})
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local_index: u32,
) {
    let local = i32(local_index);
    let first = i32(workgroup_index(workgroup, grid)) * {{ tm }};
    let co_first = i32(workgroup.z) * {{ tn // 4 }};
    let co_vectors = (p.co + {{ tn - 1 }}) / {{ tn }} * {{ tn // 4 }};
    let column = local % {{ tn // 4 }};
    let row = local / {{ tn // 4 }};
    let vectors = (p.ci + 3) / 4;
    let inner = p.taps * vectors;
    {% for j in range(loads) %}
    let load_row_{{ j }} = local / 4 + {{ j * threads // 4 }};
    let voxel_{{ j }} = min(first + load_row_{{ j }}, p.count - 1);
    let position_{{ j }} = position_of(voxel_{{ j }});
    {% endfor %}
    {% for r in range(4) %}
    var sum_{{ r }} = vec4(0.0);
    {% endfor %}
    for (var q_first = 0; q_first < inner; q_first += 4) {
        let q = q_first + local % 4;
        let tap = q / vectors;
        let c = q - tap * vectors;
        let offset = offset_of(tap);
        {% for j in range(loads) %}
        var x_{{ j }} = vec4(0.0);
        if q < inner {
            x_{{ j }} = neighbour(voxel_{{ j }}, position_{{ j }}, offset, c);
        }
        tile_x[load_row_{{ j }} * 5 + local % 4] = x_{{ j }};
        {% endfor %}
        if local < {{ tn * 4 }} {
            tile_w[local] = weights[(4 * q_first + local / {{ tn // 4 }}) * co_vectors + co_first + column];
        }
        workgroupBarrier();
        for (var k = 0; k < 4; k += 1) {
            {% for s in range(4) %}
            let w_{{ s }} = tile_w[(4 * k + {{ s }}) * {{ tn // 4 }} + column];
            {% endfor %}
            {% for r in range(4) %}
            {
                let x = tile_x[(row + {{ r * tm // 4 }}) * 5 + k];
                sum_{{ r }} += x.x * w_0 + x.y * w_1 + x.z * w_2 + x.w * w_3;
            }
            {% endfor %}
        }
        workgroupBarrier();
    }
    let c = co_first + column;
    {% if bias %}
    let bias = weights[p.bias_at + c];
    {% endif %}
    {% for r in range(4) %}
    {
        let voxel = first + row + {{ r * tm // 4 }};
        if voxel < p.count {
            var value = sum_{{ r }}{{ " + bias" if bias }};
            {% if activation %}
            value = vec4(lrelu(value.x), lrelu(value.y), lrelu(value.z), lrelu(value.w));
            {% endif %}
            {% if vout %}
            if 4 * c < p.co {
                ys[voxel * (p.co / 4) + c] = vec4<{{ element[3] }}>(value);
            }
            {% else %}
            {% for k in range(4) %}
            if 4 * c + {{ k }} < p.co {
                ys[voxel * p.co + 4 * c + {{ k }}] = {{ element[3] }}(value[{{ k }}]);
            }
            {% endfor %}
            {% endif %}
        }
    }
    {% endfor %}
}
{% endif %}

{% if entry is endingwith("backward_weight") %}
// {{ tn }} output channels x {{ tq }} columns q a workgroup, 16 voxels a step, one chunk of voxels. One column more than there
// are (tap, channel) is the bias: its x is 1. Partial results are [chunk][co][column], a vec4 of input channels each.
{% set threads = tn // 4 * tq %}
{% set loads = 16 * tq // threads %}
{% set d_loads = (4 * tn + threads - 1) // threads %}
@group(0) @binding(2) var<storage, read_write> d_ys: array<{{ "vec4<" ~ element[2] ~ ">" if vout else element[2] }}>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<f32>>;

var<workgroup> tile_x: array<vec4<f32>, {{ 16 * tq }}>;
var<workgroup> tile_d: array<vec4<f32>, {{ 4 * tn }}>;

fn d_y_channels(voxel: i32, c: i32) -> vec4<f32> {
    {% if vout %}
    return vec4<f32>(d_ys[voxel * (p.co / 4) + min(c, p.co / 4 - 1)]);
    {% else %}
    let at = voxel * p.co + min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.co - 1));
    return vec4<f32>(vec4(d_ys[at.x], d_ys[at.y], d_ys[at.z], d_ys[at.w]));
    {% endif %}
}

@compute @workgroup_size({{ threads }})
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local_index: u32,
) {
    let local = i32(local_index);
    let vectors = (p.ci + 3) / 4;
    let columns = p.taps * vectors + 1;
    let column = local % {{ tq }};
    let row = local / {{ tq }};
    let q = i32(workgroup.x) * {{ tq }} + column;
    let co_first = i32(workgroup.z) * {{ tn // 4 }};
    let tap = q / vectors;
    let c = q - tap * vectors;
    let offset = offset_of(tap);
    let start = i32(workgroup.y) * p.chunk;
    let end = min(p.count, start + p.chunk);
    {% for r in range(4) %}
    var sum_{{ r }} = vec4(0.0);
    {% endfor %}
    for (var first = start; first < end; first += 16) {
        {% for j in range(loads) %}
        {
            let load_row = row + {{ j * threads // tq }};
            let voxel = first + load_row;
            var x = vec4(0.0);
            if voxel < end {
                if q + 1 < columns {
                    x = neighbour(voxel, position_of(voxel), offset, c);
                } else {
                    x.x = 1.0;
                }
            }
            tile_x[load_row * {{ tq }} + column] = x;
        }
        {% endfor %}
        {% for j in range(d_loads) %}
        {
            let slot = local + {{ j * threads }};
            if slot < {{ 4 * tn }} {
                let voxel = first + slot / {{ tn // 4 }};
                var d_y = vec4(0.0);
                if voxel < end {
                    d_y = d_y_channels(voxel, co_first + slot % {{ tn // 4 }});
                }
                tile_d[slot] = d_y;
            }
        }
        {% endfor %}
        workgroupBarrier();
        for (var k = 0; k < 16; k += 1) {
            let x = tile_x[k * {{ tq }} + column];
            let d_y = tile_d[k * {{ tn // 4 }} + row];
            {% for r in range(4) %}
            sum_{{ r }} += d_y.{{ "xyzw"[r] }} * x;
            {% endfor %}
        }
        workgroupBarrier();
    }
    let o = 4 * (co_first + row);
    {% for r in range(4) %}
    if o + {{ r }} < p.co && q < columns {
        partial[(i32(workgroup.y) * p.co + o + {{ r }}) * columns + q] = sum_{{ r }};
    }
    {% endfor %}
}
{% endif %}

{% if entry is endingwith("reduce_weight") %}
// Adds the chunks in a fixed order; one invocation has the four input channels of one column.
@group(0) @binding(1) var<storage, read_write> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> d_weight: array<f32>;
{% if bias %}
@group(0) @binding(3) var<storage, read_write> d_bias: array<f32>;
{% endif %}

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
    var sum = vec4(0.0);
    for (var part = 0; part < p.parts; part += 1) {
        sum += partial[part * p.count + index];
    }
    let vectors = (p.ci + 3) / 4;
    let columns = p.taps * vectors + 1;
    let o = index / columns;
    let q = index % columns;
    if q == columns - 1 {
        {% if bias %}
        d_bias[o] = sum.x + select(0.0, d_bias[o], p.accumulate == 1u);
        {% endif %}
        return;
    }
    for (var k = 0; k < 4; k += 1) {
        let i = q % vectors * 4 + k;
        if i < p.ci {
            let at = (o * p.ci + i) * p.taps + q / vectors;
            d_weight[at] = sum[k] + select(0.0, d_weight[at], p.accumulate == 1u);
        }
    }
}
{% endif %}
