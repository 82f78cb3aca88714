@group(0) @binding(1) var<storage, read_write> xs: array<{{ "vec4<" ~ element[1] ~ ">" if vin else element[1] }}>;

// Channels 4c.. of a voxel, the first of which is at `base` (in vec4 where the channels divide by four).
fn channels(base: i32, c: i32) -> vec4<f32> {
    {% if vin %}
    return vec4<f32>(xs[base]);
    {% else %}
    let k = vec4(4 * c) + vec4(0, 1, 2, 3);
    let at = base + min(vec4(0, 1, 2, 3), vec4(p.ci - 1 - 4 * c));
    return select(vec4(0.0), vec4<f32>(vec4(xs[at.x], xs[at.y], xs[at.z], xs[at.w])), k < vec4(p.ci));
    {% endif %}
}
