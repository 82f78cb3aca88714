// Sum of `value` over the 64 invocations of the workgroup, in a fixed order; all of them get it, and all must call it.
var<workgroup> workgroup_sum_lanes: array<vec2<f32>, 64>;

fn workgroup_sum(value: vec2<f32>, local: u32) -> vec2<f32> {
    workgroup_sum_lanes[local] = value;
    workgroupBarrier();
    for (var width = 32u; width > 0u; width >>= 1u) {
        if local < width {
            workgroup_sum_lanes[local] += workgroup_sum_lanes[local + width];
        }
        workgroupBarrier();
    }
    let sum = workgroup_sum_lanes[0];
    workgroupBarrier();
    return sum;
}
