// The number of this workgroup in a grid that OpContext::grid folded into x and y.
fn workgroup_index(workgroup: vec3<u32>, grid: vec3<u32>) -> u32 {
    return workgroup.y * grid.x + workgroup.x;
}

// The number of this invocation where every workgroup has 64 of them.
fn invocation_index(workgroup: vec3<u32>, grid: vec3<u32>, local: u32) -> u32 {
    return workgroup_index(workgroup, grid) * 64u + local;
}
{% if launches %}

// What a workgroup has found in the table of launches: its place in its own launch, and where that one's operands begin, in
// bytes (common/operands.wgsl).
struct Launch {
    workgroup: vec3<u32>,
    grid: vec3<u32>,
}

var<private> launch_offsets: array<vec4<u32>, 2>;
{% endif %}
