// Voxel faces, the floor under them and the sky behind them. One bind group serves all three.
// Colours are computed as stored (gamma-encoded), so a fully lit face has exactly its palette colour.

struct View {
  clip_from_world: mat4x4f,
  // xyz: edge of a voxel in metres; w: metres between floor lines.
  voxel_size_m: vec4f,
  // xyz: the grid's size in metres; w: how far the floor reaches beyond it, metres.
  extent_m: vec4f,
  // xyz: unit vector towards the light; w: darkness of the edges between voxels, 0..1.
  light: vec4f,
  sky_top: vec4f,
  sky_bottom: vec4f,
  // rgb: colour; w: pixels for each point, the unit of line widths.
  floor: vec4f,
  floor_line: vec4f,
  shadow: vec4f,
  // xy: the view's size in pixels.
  size_px: vec4f,
  // rgb: the class colour; w: how strongly its relief shows, 0..1.
  palette: array<vec4f, 256>,
}

@group(0) @binding(0) var<uniform> view: View;

struct SkyVertex {
  @builtin(position) clip: vec4f,
  @location(0) height: f32,
}

// One triangle that covers the viewport.
@vertex
fn sky_vertex(@builtin(vertex_index) index: u32) -> SkyVertex {
  let corner = vec2f(f32(index & 1u) * 4.0 - 1.0, f32(index >> 1u) * 4.0 - 1.0);
  return SkyVertex(vec4f(corner, 1.0, 1.0), corner.y * 0.5 + 0.5);
}

// Less than one step of 8 bits, alike in every frame: breaks the bands of a slow gradient (interleaved gradient noise).
fn dither(pixel: vec2f) -> f32 {
  return (fract(52.9829189 * fract(dot(pixel, vec2f(0.06711056, 0.00583715)))) - 0.5) / 255.0;
}

@fragment
fn sky_fragment(in: SkyVertex) -> @location(0) vec4f {
  return vec4f(mix(view.sky_bottom.rgb, view.sky_top.rgb, in.height) + dither(in.clip.xy), 1.0);
}

struct FloorVertex {
  @builtin(position) clip: vec4f,
  @location(0) place_m: vec2f,
}

@vertex
fn floor_vertex(@builtin(vertex_index) index: u32) -> FloorVertex {
  let corner = vec2f(f32(index & 1u), f32(index >> 1u));
  let margin = view.extent_m.w;
  let place_m = corner * (view.extent_m.xy + 2.0 * margin) - margin;
  // A touch below the lowest voxels, so that their bottoms never flicker against it.
  let clip = view.clip_from_world * vec4f(place_m, -0.02 * view.voxel_size_m.z, 1.0);
  return FloorVertex(clip, place_m);
}

// How much of a pixel a line of one and a half points covers, at a distance in a unit of which a pixel spans `per_pixel`.
fn line_cover(distance: vec2f, per_pixel: vec2f) -> vec2f {
  let points = distance / max(per_pixel * view.floor.w, vec2f(1e-9));
  return 1.0 - smoothstep(vec2f(0.25), vec2f(1.25), points);
}

@fragment
fn floor_fragment(in: FloorVertex) -> @location(0) vec4f {
  let metres_per_pixel = fwidth(in.place_m);
  let spacing = view.voxel_size_m.w;
  // Lines are counted from the middle of the grid, where the vehicle stands.
  let from_middle = in.place_m - 0.5 * view.extent_m.xy;
  let to_line = abs(fract(from_middle / spacing + 0.5) - 0.5) * spacing;
  let lines = line_cover(to_line, metres_per_pixel);
  let outside = max(max(-in.place_m, in.place_m - view.extent_m.xy), vec2f(0.0));
  let fade = 1.0 - smoothstep(0.0, 1.0, length(outside) / max(view.extent_m.w, 1e-6));
  let to_border = abs(min(in.place_m, view.extent_m.xy - in.place_m));
  let inside = f32(all(in.place_m >= vec2f(0.0)) && all(in.place_m <= view.extent_m.xy));
  let border = line_cover(to_border, metres_per_pixel) * inside;
  let line = max(max(lines.x, lines.y) * inside, max(border.x, border.y));
  return vec4f(mix(view.floor.rgb, view.floor_line.rgb, line), fade);
}

// What rectangles overlap, in voxels.
const CRACK = 0.003;

struct VoxelVertex {
  @builtin(position) clip: vec4f,
  // Along the rectangle's sides, in voxels.
  @location(0) place: vec2f,
  // rgb: the colour is dark + bright * light, light being 1 where neither corners nor edges darken.
  // w: the last voxel along the first side, and along the second.
  @location(1) @interpolate(flat) dark: vec4f,
  @location(2) @interpolate(flat) bright: vec4f,
  @location(3) @interpolate(flat) openness: vec4f,
}

// `face` is packed as in mesh.rs. Corners are drawn as a strip that faces outwards.
@vertex
fn voxel_vertex(@builtin(vertex_index) index: u32, @location(0) face: vec2u) -> VoxelVertex {
  let voxel = vec3f(vec3u(face.x, face.x >> 10u, face.x >> 20u) & vec3u(1023u, 1023u, 511u));
  let direction = face.x >> 29u;
  let axis = direction >> 1u;
  let positive = direction & 1u;
  let strip = index ^ (1u - positive);
  let last = vec2f((vec2u(face.y) >> vec2u(16u, 24u)) & vec2u(255u));
  // A little larger than it is: corners that lie on the edge of another rectangle would leave pinholes.
  let place = mix(vec2f(-CRACK), last + 1.0 + CRACK, vec2f(f32(strip & 1u), f32(strip >> 1u)));
  let side = f32(positive);
  var offset = vec3f(side, place);
  if axis == 1u {
    offset = vec3f(place.y, side, place.x);
  } else if axis == 2u {
    offset = vec3f(place, side);
  }
  let clip = view.clip_from_world * vec4f((voxel + offset) * view.voxel_size_m.xyz, 1.0);
  var normal = vec3f(0.0);
  normal[axis] = side * 2.0 - 1.0;
  // Tops are fully lit; the sides fall off with their angle to the light.
  let lit = select(0.64 + 0.26 * dot(normal, view.light.xyz), 1.0, direction == 5u);
  // Shadows keep some of the colour and lean to the theme's shadow colour.
  let entry = view.palette[face.y & 255u];
  let shadow = 0.75 * entry.rgb * view.shadow.rgb;
  let light = entry.rgb - shadow;
  let levels = (vec4u(face.y) >> vec4u(8u, 10u, 12u, 14u)) & vec4u(3u);
  let dark = shadow + light * (1.0 - entry.w);
  let bright = light * entry.w * lit;
  return VoxelVertex(clip, place, vec4f(dark, last.x), vec4f(bright, last.y), vec4f(levels) / 3.0);
}

@fragment
fn voxel_fragment(in: VoxelVertex) -> @location(0) vec4f {
  // Not beyond the rectangle: with several samples, the middle of a pixel may lie outside.
  let corner = in.place - clamp(floor(in.place), vec2f(0.0), vec2f(in.dark.w, in.bright.w));
  let along = mix(in.openness.xy, in.openness.zw, corner.y);
  let open = 0.5 + 0.5 * mix(along.x, along.y, corner.x);
  // The edges of voxels show once a voxel covers enough points.
  let pixels = fwidth(in.place);
  let edges = line_cover(min(corner, 1.0 - corner), pixels);
  let large = 1.0 - smoothstep(0.10, 0.28, max(pixels.x, pixels.y) * view.floor.w);
  let edge = view.light.w * large * max(edges.x, edges.y);
  return vec4f(in.dark.rgb + in.bright.rgb * (open * (1.0 - edge)), 1.0);
}

struct LineVertex {
  @builtin(position) clip: vec4f,
  @location(0) @interpolate(flat) color: vec4f,
  // Points from the line's axis, signed, and its half width.
  @location(1) across: vec2f,
  @location(2) @interpolate(flat) hidden: f32,
}

// A rectangle around the line from `a` to `b`, half a width longer at each end so that corners close.
@vertex
fn line_vertex(
  @builtin(vertex_index) index: u32,
  @location(0) a: vec4f,
  @location(1) b: vec4f,
  @location(2) color: vec4f,
  @location(3) width_points: f32,
  @location(4) hidden: f32,
) -> LineVertex {
  let half_size = 0.5 * view.size_px.xy;
  let half_width = 0.5 * width_points;
  let way = (b.xy / b.w - a.xy / a.w) * half_size;
  let along = select(vec2f(1.0, 0.0), way / length(way), length(way) > 1e-4);
  // One more point on each side, over which the line fades.
  let across = (half_width + 1.0) * (f32(index & 1u) * 2.0 - 1.0);
  let lengthwise = (half_width * 0.5) * (f32(index >> 1u) * 2.0 - 1.0);
  let shift_px = (vec2f(-along.y, along.x) * across + along * lengthwise) * view.floor.w;
  var clip = select(a, b, index >= 2u);
  clip += vec4f(shift_px / half_size * clip.w, 0.0, 0.0);
  return LineVertex(clip, color, vec2f(across, half_width), hidden);
}

fn line_color(in: LineVertex) -> vec4f {
  let pixel = 0.5 / view.floor.w;
  let cover = 1.0 - smoothstep(in.across.y - pixel, in.across.y + pixel, abs(in.across.x));
  return vec4f(in.color.rgb, in.color.a * cover);
}

@fragment
fn line_fragment(in: LineVertex) -> @location(0) vec4f {
  return line_color(in);
}

@fragment
fn hidden_line_fragment(in: LineVertex) -> @location(0) vec4f {
  return line_color(in) * vec4f(1.0, 1.0, 1.0, in.hidden);
}
