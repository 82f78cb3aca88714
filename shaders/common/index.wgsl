// The number of this workgroup in a grid that OpContext::grid folded into x and y.
fn workgroup_index(workgroup: vec3<u32>, grid: vec3<u32>) -> u32 {
    return workgroup.y * grid.x + workgroup.x;
}

// The number of this invocation where every workgroup has 64 of them.
fn invocation_index(workgroup: vec3<u32>, grid: vec3<u32>, local: u32) -> u32 {
    return workgroup_index(workgroup, grid) * 64u + local;
}
