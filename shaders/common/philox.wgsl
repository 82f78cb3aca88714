// Philox4x32-10; the same numbers as src/rng.rs.
fn mul_wide(a: u32, b: u32) -> vec2<u32> {
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 16u);
    let cross = a0 * b1 + (middle & 0xffffu);
    return vec2(a * b, a1 * b1 + (middle >> 16u) + (cross >> 16u));
}

fn philox(counter_in: vec4<u32>, key_in: vec2<u32>) -> vec4<u32> {
    var counter = counter_in;
    var key = key_in;
    for (var round = 0u; round < 10u; round += 1u) {
        let p0 = mul_wide(counter.x, 0xD2511F53u);
        let p1 = mul_wide(counter.z, 0xCD9E8D57u);
        counter = vec4(p1.y ^ counter.y ^ key.x, p1.x, p0.y ^ counter.w ^ key.y, p0.x);
        key += vec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return counter;
}

fn unit(word: u32) -> f32 {
    return f32((word >> 8u) + 1u) / 16777216.0;
}

// Standard normal number `index` of the stream (seed, step, stream).
fn philox_normal(seed: vec2<u32>, step: u32, stream: u32, index: u32) -> f32 {
    let words = philox(vec4(index, stream, step, 0u), seed);
    return sqrt(-2.0 * log(unit(words.x))) * cos(6.283185307179586 * unit(words.y));
}
