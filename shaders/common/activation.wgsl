// Leaky ReLU with the model's slope, and its derivative from the input or the output (they have the same sign).
const LRELU_SLOPE: f32 = 0.1;

fn lrelu(x: f32) -> f32 {
    return select(LRELU_SLOPE * x, x, x > 0.0);
}

fn lrelu_slope(x: f32) -> f32 {
    return select(LRELU_SLOPE, 1.0, x > 0.0);
}
