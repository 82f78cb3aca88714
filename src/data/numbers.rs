//! Frame numbers: how they are spaced, which are missing, and which of them make a clip.

/// A sentence names no more runs of numbers than this.
const MOST_RUNS: usize = 4;

/// A run of numbers `first, first + step, ..., last`.
type Run = (usize, usize);

/// By how much the numbers grow, but for gaps: 5 for 0, 5, 10, 20. It is 1 where they grow unevenly, and where there are
/// fewer than three of them.
pub(super) fn step(numbers: &[usize]) -> usize {
    let differences = || numbers.windows(2).map(|pair| pair[1] - pair[0]);
    match differences().min() {
        Some(least) if numbers.len() > 2 && differences().all(|difference| difference % least == 0) => least,
        _ => 1,
    }
}

/// The numbers that are missing between the first and the last one.
pub(super) fn gaps(numbers: &[usize], step: usize) -> Vec<Run> {
    let pairs = numbers.windows(2).filter(|pair| pair[1] - pair[0] > step);
    pairs.map(|pair| (pair[0] + step, pair[1] - step)).collect()
}

/// Rising numbers as runs.
pub(super) fn runs(numbers: impl IntoIterator<Item = usize>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    runs
}

/// "3, 7 to 9 and 12 more", where neighbours within a run are `step` apart.
pub(super) fn listed(runs: &[Run], step: usize) -> String {
    let shown = runs.iter().take(MOST_RUNS).map(|(first, last)| match (last - first) / step {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first} to {last}"),
    });
    let text = shown.collect::<Vec<_>>().join(", ");
    match runs.iter().skip(MOST_RUNS).map(|(first, last)| (last - first) / step + 1).sum::<usize>() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// "frame 3 of A" or "frames 3, 7 to 9 of A".
pub(super) fn frames_of(frames: &[usize], sequence: &str) -> String {
    let plural = if frames.len() == 1 { "" } else { "s" };
    format!("frame{plural} {} of {sequence}", listed(&runs(frames.iter().copied()), 1))
}

/// Where in `numbers` the frames of a clip stand that begins at `start` and has `frames` frames, each `apart` after the one
/// before; `None` if one of them is missing.
pub(super) fn clip(numbers: &[usize], start: usize, frames: usize, apart: usize) -> Option<Vec<usize>> {
    let first = *numbers.get(start)?;
    // Without gaps the places are as evenly spaced as the numbers.
    let stride = numbers[start..].iter().position(|number| *number - first >= apart).unwrap_or(0);
    (0..frames)
        .map(|t| {
            let wanted = first.checked_add(t.checked_mul(apart)?)?;
            let guess = start + t * stride;
            if numbers.get(guess) == Some(&wanted) { Some(guess) } else { numbers.binary_search(&wanted).ok() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_step_is_recognised_through_gaps() {
        assert_eq!(step(&[0, 5, 10, 20]), 5);
        assert_eq!(step(&[3, 4, 5, 9]), 1);
        assert_eq!(step(&[0, 5, 12]), 1, "uneven");
        assert_eq!([&[][..], &[7], &[0, 100]].map(step), [1; 3], "too few to tell");
        assert_eq!(gaps(&[0, 5, 10, 25, 35], 5), [(15, 20), (30, 30)]);
        assert_eq!(gaps(&[0, u32::MAX as usize], 1), [(1, u32::MAX as usize - 1)]);
        assert!(gaps(&[2, 3, 4], 1).is_empty());
    }

    #[test]
    fn numbers_are_listed_in_short() {
        assert_eq!(listed(&runs([3, 7, 8, 9]), 1), "3, 7 to 9");
        assert_eq!(listed(&[(5, 10), (20, 40)], 5), "5, 10, 20 to 40");
        assert_eq!(listed(&runs((0..100).step_by(2)), 1), "0, 2, 4, 6 and 46 more");
        assert_eq!(frames_of(&[4], "A"), "frame 4 of A");
        assert_eq!(frames_of(&[4, 5], "A"), "frames 4, 5 of A");
    }

    #[test]
    fn a_clip_needs_every_one_of_its_frames_and_no_other() {
        let numbers = [0, 1, 2, 4, 5, 6, 8];
        assert_eq!(clip(&numbers, 0, 3, 1), Some(vec![0, 1, 2]));
        assert_eq!(clip(&numbers, 1, 3, 1), None, "3 is missing");
        assert_eq!(clip(&numbers, 0, 5, 2), Some(vec![0, 2, 3, 5, 6]), "the gap at 3 is not met");
        assert_eq!(clip(&numbers, 1, 2, 2), None);
        assert_eq!(clip(&numbers, 6, 1, 1), Some(vec![6]));
        assert_eq!(clip(&numbers, 7, 1, 1), None);
        assert_eq!(clip(&[0, usize::MAX], 0, 3, usize::MAX), None);
    }
}
