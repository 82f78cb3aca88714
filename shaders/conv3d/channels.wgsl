{% from "common/operands.wgsl" import buffer %}
{{ buffer(1, "xs", "vec4<" ~ element[1] ~ ">" if vin else element[1], index="i32") }}

// Channels 4c.. of a voxel, the first of which is at `base` (in vec4 where the channels divide by four).
fn channels(base: i32, c: i32) -> vec4<f32> {
    {% if vin %}
    return load_xs(base);
    {% else %}
    let k = vec4(4 * c) + vec4(0, 1, 2, 3);
    let at = base + min(vec4(0, 1, 2, 3), vec4(p.ci - 1 - 4 * c));
    return select(vec4(0.0), vec4(load_xs(at.x), load_xs(at.y), load_xs(at.z), load_xs(at.w)), k < vec4(p.ci));
    {% endif %}
}
