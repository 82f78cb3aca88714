// Register-blocked kernels for CPU adapters. A lane owns a block of voxels; the weights of one step are loaded once per
// subgroup, a vec4 in each lane, and broadcast from there, so loops stay loops and no weight is loaded twice.

struct Parameters {
    size: vec3<i32>, // X, Y, Z; a linear layer has its rows along Z
    ci: i32,
    co: i32,
    kx: i32,
    ky: i32,
    count: i32,      // voxel blocks
    bias_at: i32,    // of the packed bias, in vec4
    chunk: i32,      // voxel blocks of a chunk
    co_first: i32,   // first block of output channels of this launch
    parts: i32,
    accumulate: u32,
}

@group(0) @binding(0) var<uniform> p: Parameters;

{% if entry is endingwith("pack") %}
// The weight in the order in which the forward kernel reads it: [co / cb][kx][ky][ci / 4][kz][cb][4], then the bias, both
// padded with zeros.
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> packed: array<vec4<f32>>;
{% if bias %}
@group(0) @binding(3) var<storage, read_write> bias: array<f32>;
{% endif %}

fn weight_at(o: i32, i: i32, tap: i32, taps: i32) -> f32 {
    if o >= p.co || i >= p.ci {
        return 0.0;
    }
    {% if transposed %}
    return weight[(i * p.co + o) * taps + taps - 1 - tap];
    {% else %}
    return weight[(o * p.ci + i) * taps + tap];
    {% endif %}
}

@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = i32(invocation_index(workgroup, grid, local));
    let within = index % {{ cb }};
    let c = index / {{ cb }} % ((p.ci + 3) / 4);
    let block = index / ({{ cb }} * ((p.ci + 3) / 4));
    let o = block * {{ cb }} + within;
    if block >= p.count {
        return;
    }
    let outer = p.kx * p.ky;
    let taps = outer * {{ kz }};
    for (var k = 0; k < outer; k += 1) {
        {% for z in range(kz) %}
        {
            let tap = k * {{ kz }} + {{ z }};
            packed[(((block * outer + k) * ((p.ci + 3) / 4) + c) * {{ kz }} + {{ z }}) * {{ cb }} + within] = vec4(
                weight_at(o, 4 * c, tap, taps), weight_at(o, 4 * c + 1, tap, taps),
                weight_at(o, 4 * c + 2, tap, taps), weight_at(o, 4 * c + 3, tap, taps));
        }
        {% endfor %}
    }
    {% if bias %}
    if c == 0 && within % 4 == 0 {
        var b = vec4(0.0);
        for (var k = 0; k < 4; k += 1) {
            if o + k < p.co {
                b[k] = bias[o + k];
            }
        }
        packed[p.bias_at + o / 4] = b;
    }
    {% endif %}
}
{% endif %}

{% if entry is endingwith("forward") or entry is endingwith("data") %}
// One invocation: {{ by }} x {{ bz }} voxels along y and z, {{ cb }} output channels.
@group(0) @binding(1) var<storage, read_write> xs: array<{{ "vec4<f32>" if vin else "f32" }}>;
@group(0) @binding(2) var<storage, read_write> weights: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> ys: array<{{ "vec4<f32>" if vout else "f32" }}>;

{% set loaded = bz + 2 * halo %}
// Channels 4c.. of the voxel at `base` (in vec4 where the channels divide by four).
fn channels(base: i32, c: i32) -> vec4<f32> {
    {% if vin %}
    return xs[base + c];
    {% else %}
    let k = vec4(4 * c) + vec4(0, 1, 2, 3);
    let at = base + min(k, vec4(p.ci - 1));
    return select(vec4(0.0), vec4(xs[at.x], xs[at.y], xs[at.z], xs[at.w]), k < vec4(p.ci));
    {% endif %}
}

fn store(base: i32, c: i32, value: vec4<f32>) {
    {% if vout %}
    if 4 * c < p.co {
        ys[base + c] = value;
    }
    {% else %}
    {% for k in range(4) %}
    if 4 * c + {{ k }} < p.co {
        ys[base + 4 * c + {{ k }}] = value[{{ k }}];
    }
    {% endfor %}
    {% endif %}
}

@compute @workgroup_size(64)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    {% if lanes > 1 %}
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    {% endif %}
) {
    let index = i32(invocation_index(workgroup, grid, local));
    // Lanes past the end repeat the last block, because the broadcasts need every lane.
    var rest = min(index, p.count - 1);
    let co_block = i32(workgroup.z);
    let ci_vectors = (p.ci + 3) / 4;
    let stride = {{ "ci_vectors" if vin else "p.ci" }};
    let out_stride = {{ "p.co / 4" if vout else "p.co" }};
    {% if pointwise %}
    let z0 = rest * {{ bz }};
    {% for z in range(bz) %}
    let at_0_{{ z }} = min(z0 + {{ z }}, p.size.z - 1) * stride;
    {% endfor %}
    {% else %}
    let z_blocks = (p.size.z + {{ bz - 1 }}) / {{ bz }};
    let y_blocks = (p.size.y + {{ by - 1 }}) / {{ by }};
    let z0 = (rest % z_blocks) * {{ bz }};
    rest = rest / z_blocks;
    let y0 = (rest % y_blocks) * {{ by }};
    rest = rest / y_blocks;
    let x0 = rest % p.size.x;
    let frame = (rest / p.size.x) * p.size.x * p.size.y * p.size.z;
    {% for z in range(loaded if zcheck else 0) %}
    let z_{{ z }} = z0 + {{ z - halo }};
    let z_inside_{{ z }} = z_{{ z }} >= 0 && z_{{ z }} < p.size.z;
    let z_at_{{ z }} = clamp(z_{{ z }}, 0, p.size.z - 1) * stride;
    {% endfor %}
    {% endif %}
    {% for v in range(by * bz) %}
    {% for o in range(cb) %}
    var sum_{{ v }}_{{ o }} = 0.0;
    {% endfor %}
    {% endfor %}
    {% if lanes > 1 %}
    let lane = i32(subgroup_lane) & {{ lanes - 1 }};
    {% endif %}
    var at = co_block * {{ cb * kz }} * p.kx * p.ky * ci_vectors{{ " + lane" if lanes > 1 }};
    {% if not pointwise %}
    for (var kx = 0; kx < p.kx; kx += 1) {
        let x = x0 + kx - p.kx / 2;
        let x_inside = x >= 0 && x < p.size.x;
    for (var ky = 0; ky < p.ky; ky += 1) {
        {% for y in range(by) %}
        let y_{{ y }} = y0 + {{ y }} + ky - p.ky / 2;
        let inside_{{ y }} = x_inside && y_{{ y }} >= 0 && y_{{ y }} < p.size.y;
        let row_{{ y }} = select(0, frame + (x * p.size.y + y_{{ y }}) * p.size.z, inside_{{ y }}) * stride;
        {% for z in range(loaded) %}
        {% if zcheck %}
        let at_{{ y }}_{{ z }} = row_{{ y }} + z_at_{{ z }};
        {% else %}
        let at_{{ y }}_{{ z }} = row_{{ y }} + (z0 + {{ z }}) * stride;
        {% endif %}
        {% endfor %}
        {% endfor %}
    {% endif %}
    for (var c = 0; c < ci_vectors; c += 1) {
        {% for y in range(by) %}
        {% for z in range(loaded) %}
        {% if pointwise %}
        let x_{{ y }}_{{ z }} = channels(at_{{ y }}_{{ z }}, c);
        {% else %}
        let x_{{ y }}_{{ z }} = select(vec4(0.0), channels(at_{{ y }}_{{ z }}, c), inside_{{ y }}{% if zcheck %} && z_inside_{{ z }}{% endif %});
        {% endif %}
        {% endfor %}
        {% endfor %}
        {% for kz_tap in range(kz) %}
        {% for group in range(cb // lanes) %}
        {
            let w = weights[at];
            at += {{ lanes }};
            {% for member in range(lanes) %}
            {% set o = group * lanes + member %}
            {
                let q = {% if lanes > 1 %}subgroupBroadcast(w, {{ member }}u){% else %}w{% endif %};
                {% for y in range(by) %}
                {% for z in range(bz) %}
                {% set from = z + kz_tap - kz // 2 + halo %}
                {% if from >= 0 and from < loaded %}
                {% set v = "sum_" ~ (y * bz + z) ~ "_" ~ o %}
                {% set x = "x_" ~ y ~ "_" ~ from %}
                {{ v }} = fma({{ x }}.w, q.w, fma({{ x }}.z, q.z, fma({{ x }}.y, q.y, fma({{ x }}.x, q.x, {{ v }}))));
                {% endif %}
                {% endfor %}
                {% endfor %}
            }
            {% endfor %}
        }
        {% endfor %}
        {% endfor %}
    }
    {% if not pointwise %}
    }
    }
    {% endif %}
    if index < p.count {
        {% for k in range(cb // 4) %}
        let c_{{ k }} = co_block * {{ cb // 4 }} + {{ k }};
        {% if bias %}
        let bias_{{ k }} = weights[p.bias_at + c_{{ k }}];
        {% endif %}
        {% endfor %}
        {% for y in range(by) %}
        {% for z in range(bz) %}
        if {% if pointwise %}z0 + {{ z }} < p.size.z{% else %}y0 + {{ y }} < p.size.y{% if zcheck %} && z0 + {{ z }} < p.size.z{% endif %}{% endif %} {
            {% if pointwise %}
            let to = (z0 + {{ z }}) * out_stride;
            {% else %}
            let to = (frame + (x0 * p.size.y + y0 + {{ y }}) * p.size.z + z0 + {{ z }}) * out_stride;
            {% endif %}
            {% for k in range(cb // 4) %}
            {% set v = "sum_" ~ (y * bz + z) ~ "_" %}
            {
                var value = vec4({{ v ~ (4 * k) }}, {{ v ~ (4 * k + 1) }}, {{ v ~ (4 * k + 2) }}, {{ v ~ (4 * k + 3) }});
                {% if bias %}
                value += bias_{{ k }};
                {% endif %}
                {% if activation %}
                value = vec4(lrelu(value.x), lrelu(value.y), lrelu(value.z), lrelu(value.w));
                {% endif %}
                store(to, c_{{ k }}, value);
            }
            {% endfor %}
        }
        {% endfor %}
        {% endfor %}
    }
}
{% endif %}

{% if entry is endingwith("backward_weight") %}
// One lane: the sums over every eighth voxel block of one chunk, for {{ 4 * ni }} input x {{ 4 * no }} output channels and the
// ky x kz taps of one kx. Partial results are [chunk][8 lanes][co block][ci block][kx][tap, input][output].
@group(0) @binding(1) var<storage, read_write> xs: array<{{ "vec4<f32>" if vin else "f32" }}>;
@group(0) @binding(2) var<storage, read_write> d_ys: array<{{ "vec4<f32>" if vout else "f32" }}>;
@group(0) @binding(3) var<storage, read_write> partial: array<vec4<f32>>;

{% set loaded = bz + 2 * halo %}
{% set rows = by + ky - 1 %}
// Four channels of x; those past the end repeat the last and are never read.
fn x_channels(base: i32, c: i32) -> vec4<f32> {
    {% if vin %}
    return xs[base + min(c, p.ci / 4 - 1)];
    {% else %}
    let at = base + min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.ci - 1));
    return vec4(xs[at.x], xs[at.y], xs[at.z], xs[at.w]);
    {% endif %}
}

fn d_y_channels(base: i32, c: i32) -> vec4<f32> {
    {% if vout %}
    return d_ys[base + min(c, p.co / 4 - 1)];
    {% else %}
    let at = base + min(vec4(4 * c) + vec4(0, 1, 2, 3), vec4(p.co - 1));
    return vec4(d_ys[at.x], d_ys[at.y], d_ys[at.z], d_ys[at.w]);
    {% endif %}
}

@compute @workgroup_size(8)
fn {{ entry }}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let kx = i32(workgroup.x) % p.kx;
    let ci_block = i32(workgroup.x) / p.kx;
    let co_block = i32(workgroup.z) + p.co_first;
    let chunk = i32(workgroup.y);
    let stride = {{ "p.ci / 4" if vin else "p.ci" }};
    let d_stride = {{ "p.co / 4" if vout else "p.co" }};
    {% for t in range(ky * kz) %}
    {% for i in range(4 * ni) %}
    {% for o in range(no) %}
    var sum_{{ t }}_{{ i }}_{{ o }} = vec4(0.0);
    {% endfor %}
    {% endfor %}
    {% endfor %}
    {% for o in range(no) %}
    var bias_{{ o }} = vec4(0.0);
    {% endfor %}
    let end = min(p.count, (chunk + 1) * p.chunk);
    for (var item = chunk * p.chunk + i32(local); item < end; item += 8) {
        {% if pointwise %}
        let z0 = item * {{ bz }};
        {% for z in range(bz) %}
        let at_0_{{ z }} = min(z0 + {{ z }}, p.size.z - 1);
        let x_0_{{ z }}_inside = z0 + {{ z }} < p.size.z;
        {% endfor %}
        {% else %}
        let z_blocks = (p.size.z + {{ bz - 1 }}) / {{ bz }};
        let y_blocks = (p.size.y + {{ by - 1 }}) / {{ by }};
        let z0 = (item % z_blocks) * {{ bz }};
        let y0 = (item / z_blocks % y_blocks) * {{ by }};
        let rest = item / (z_blocks * y_blocks);
        let x0 = rest % p.size.x;
        let frame = (rest / p.size.x) * p.size.x * p.size.y * p.size.z;
        let x = x0 + kx - p.kx / 2;
        let x_inside = x >= 0 && x < p.size.x;
        {% for z in range(loaded if zcheck else 0) %}
        let z_{{ z }} = z0 + {{ z - halo }};
        let z_inside_{{ z }} = z_{{ z }} >= 0 && z_{{ z }} < p.size.z;
        let z_at_{{ z }} = clamp(z_{{ z }}, 0, p.size.z - 1);
        {% endfor %}
        {% for r in range(rows) %}
        let y_{{ r }} = y0 + {{ r - ky // 2 }};
        let inside_{{ r }} = x_inside && y_{{ r }} >= 0 && y_{{ r }} < p.size.y;
        let row_{{ r }} = select(0, frame + (x * p.size.y + y_{{ r }}) * p.size.z, inside_{{ r }});
        {% for z in range(loaded) %}
        let at_{{ r }}_{{ z }} = row_{{ r }} + {% if zcheck %}z_at_{{ z }}{% else %}z0 + {{ z }}{% endif %};
        let x_{{ r }}_{{ z }}_inside = inside_{{ r }}{% if zcheck %} && z_inside_{{ z }}{% endif %};
        {% endfor %}
        {% endfor %}
        {% endif %}
        {% for r in range(rows) %}
        {% for z in range(loaded) %}
        {% for i in range(ni) %}
        let x_{{ r }}_{{ z }}_{{ i }} = select(vec4(0.0), x_channels(at_{{ r }}_{{ z }} * stride, ci_block * {{ ni }} + {{ i }}), x_{{ r }}_{{ z }}_inside);
        {% endfor %}
        {% endfor %}
        {% endfor %}
        {% for y in range(by) %}
        {% for z in range(bz) %}
        {% for o in range(no) %}
        {
            {% if pointwise %}
            let inside = z0 + {{ z }} < p.size.z;
            let to = at_0_{{ z }};
            {% else %}
            let inside = y0 + {{ y }} < p.size.y{% if zcheck %} && z0 + {{ z }} < p.size.z{% endif %};
            let to = select(0, frame + (x0 * p.size.y + y0 + {{ y }}) * p.size.z + z0 + {{ z }}, inside);
            {% endif %}
            let d_y = select(vec4(0.0), d_y_channels(to * d_stride, co_block * {{ no }} + {{ o }}), inside);
            bias_{{ o }} += d_y;
            {% for ty in range(ky) %}
            {% for tz in range(kz) %}
            {% set from = z + tz - kz // 2 + halo %}
            {% if from >= 0 and from < loaded %}
            {% for i in range(4 * ni) %}
            {% set sum = "sum_" ~ (ty * kz + tz) ~ "_" ~ i ~ "_" ~ o %}
            {{ sum }} = fma(d_y, vec4(x_{{ y + ty }}_{{ from }}_{{ i // 4 }}.{{ "xyzw"[i % 4] }}), {{ sum }});
            {% endfor %}
            {% endif %}
            {% endfor %}
            {% endfor %}
        }
        {% endfor %}
        {% endfor %}
        {% endfor %}
    }
    let ci_blocks = (p.ci + {{ 4 * ni - 1 }}) / {{ 4 * ni }};
    let part = chunk * 8 + i32(local);
    let base = (((part * i32(grid.z) + i32(workgroup.z)) * ci_blocks + ci_block) * p.kx + kx) * {{ (ky * kz * 4 * ni + 1) * no }};
    {% for t in range(ky * kz) %}
    {% for i in range(4 * ni) %}
    {% for o in range(no) %}
    partial[base + {{ (t * 4 * ni + i) * no + o }}] = sum_{{ t }}_{{ i }}_{{ o }};
    {% endfor %}
    {% endfor %}
    {% endfor %}
    {% for o in range(no) %}
    partial[base + {{ ky * kz * 4 * ni * no + o }}] = bias_{{ o }};
    {% endfor %}
}
{% endif %}

{% if entry is endingwith("reduce_weight") %}
// Adds the partial results in a fixed order; one invocation has four output channels of one input channel and tap.
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
    // index = [co block][ci block][kx][tap, input][output / 4], after the last tap the bias
    let ci_blocks = (p.ci + {{ 4 * ni - 1 }}) / {{ 4 * ni }};
    let within = index % {{ (ky * kz * 4 * ni + 1) * no }};
    let block = index / {{ (ky * kz * 4 * ni + 1) * no }};
    let kx = block % p.kx;
    let i = block / p.kx % ci_blocks * {{ 4 * ni }} + within / {{ no }} % {{ 4 * ni }};
    let o = ((block / (p.kx * ci_blocks) + p.co_first) * {{ no }} + within % {{ no }}) * 4;
    let tap = kx * {{ ky * kz }} + within / {{ 4 * ni * no }};
    let is_bias = within >= {{ ky * kz * 4 * ni * no }};
    for (var k = 0; k < 4; k += 1) {
        if o + k < p.co {
            if is_bias {
                {% if bias %}
                if kx == 0 && block / p.kx % ci_blocks == 0 {
                    d_bias[o + k] = sum[k] + select(0.0, d_bias[o + k], p.accumulate == 1u);
                }
                {% endif %}
            } else if i < p.ci {
                let at = ((o + k) * p.ci + i) * p.kx * {{ ky * kz }} + tap;
                d_weight[at] = sum[k] + select(0.0, d_weight[at], p.accumulate == 1u);
            }
        }
    }
}
{% endif %}
