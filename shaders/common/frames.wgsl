// A window of frames n = b*T + t (src/layers/common.rs, FrameWindow); the first words of a parameter block.
struct FrameWindow {
    first: u32,
    end: u32,
    first_sequence: u32,
    time: u32,
}

// The frames of sequence b that are in the window, as (first, end).
fn frames_of(window: FrameWindow, b: u32) -> vec2<u32> {
    return vec2(max(window.first, b * window.time), min(window.end, (b + 1u) * window.time));
}

// The sequence with which begins what is bound of a tensor without time (FrameWindow::still).
fn first_still(window: FrameWindow) -> u32 {
    return select(0u, window.first, window.time == 1u);
}
