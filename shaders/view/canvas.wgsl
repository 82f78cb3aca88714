// A rectangle of one colour or of a picture's pixels. The viewport is the rectangle.

// The target converts what is written from linear to gamma-encoded.
override converts = false;

struct Vertex {
  @builtin(position) clip: vec4f,
  // From the rectangle's left top corner, 0..1.
  @location(0) place: vec2f,
}

// One triangle that covers the viewport.
@vertex
fn vertex(@builtin(vertex_index) index: u32) -> Vertex {
  let place = vec2f(f32(index & 1u), f32(index >> 1u)) * 2.0;
  return Vertex(vec4f(place.x * 2.0 - 1.0, 1.0 - place.y * 2.0, 0.0, 1.0), place);
}

// The colour is the blend constant.
@fragment
fn fill() -> @location(0) vec4f {
  return vec4f(1.0);
}

@group(0) @binding(0) var picture: texture_2d<f32>;

@fragment
fn show(in: Vertex) -> @location(0) vec4f {
  let size = textureDimensions(picture);
  let pixel = min(vec2u(in.place * vec2f(size)), size - 1u);
  let color = textureLoad(picture, pixel, 0).rgb;
  if converts {
    let bright = pow((color + 0.055) / 1.055, vec3f(2.4));
    return vec4f(select(bright, color / 12.92, color < vec3f(0.04045)), 1.0);
  }
  return vec4f(color, 1.0);
}
