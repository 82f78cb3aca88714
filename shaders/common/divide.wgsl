// a / b for 0 <= a < 2^31: software Vulkan divides integers lane by lane, which takes ten times as long.
fn divided(a: i32, b: i32) -> i32 {
    let reciprocal = 1.0 / f32(b);
    let roughly = i32(f32(a) * reciprocal);
    // What is left of a is small, so that its quotient is off by one at most.
    let nearly = roughly + i32(f32(a - roughly * b) * reciprocal);
    let rest = a - nearly * b;
    return nearly + select(0, 1, rest >= b) - select(0, 1, rest < 0);
}

// Position of element `at` of a volume of that size, z the fastest; x runs on from frame to frame.
fn position_in(size: vec3<i32>, at: i32) -> vec3<i32> {
    let column = divided(at, size.z);
    let plane = divided(column, size.y);
    return vec3(plane, column - plane * size.y, at - column * size.z);
}
