//! Numbers and messages as people read them and paths as they type them, in the window and on the command line alike.

use std::path::Path;

/// `1,215,095`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.9 GiB`, `128 MiB`.
pub fn bytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 {
        format!("{:.1} GiB", mib / 1024.0)
    } else if mib >= 10.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{mib:.1} MiB")
    }
}

/// `53.1 %`, or a dash where there was nothing to score.
pub fn percent(fraction: Option<f64>) -> String {
    fraction.map_or("-".into(), |fraction| format!("{:.1} %", 100.0 * fraction))
}

/// `1:02:03`, `2:03`.
pub fn duration(secs: f64) -> String {
    let secs = secs.round().clamp(0.0, 1e9) as u64;
    let (hours, minutes, secs) = (secs / 3600, secs / 60 % 60, secs % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{secs:02}") } else { format!("{minutes}:{secs:02}") }
}

/// `frames 3 to 6`, or `frames 0 to 15, every 5th`, of a clip of `frames` frames.
pub fn frames(first: usize, step: usize, frames: usize) -> String {
    let last = first + frames.saturating_sub(1) * step;
    let ending = match step % 10 {
        _ if (11..=13).contains(&(step % 100)) => "th",
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    };
    let every = if step == 1 { String::new() } else { format!(", every {step}{ending}") };
    format!("frames {first} to {last}{every}")
}

/// A message without its line breaks, which libraries and file names bring along.
pub fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A path as a POSIX shell takes it for one argument that is no option, for commands that are proposed.
pub fn shell_quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let text = if text.starts_with('-') { format!("./{text}") } else { text.into_owned() };
    shlex::try_quote(&text).map_or_else(|_| text.clone(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1_215_095].map(thousands), ["0", "999", "1,000", "1,215,095"]);
        assert_eq!([1 << 20, 128 << 20, 2 << 30].map(bytes), ["1.0 MiB", "128 MiB", "2.0 GiB"]);
        assert_eq!([Some(0.531), None].map(percent), ["53.1 %", "-"]);
        assert_eq!([5.0, 123.4, 3723.0].map(duration), ["0:05", "2:03", "1:02:03"]);
    }

    #[test]
    fn frames_of_a_clip() {
        assert_eq!(frames(3, 1, 4), "frames 3 to 6");
        assert_eq!(frames(0, 5, 4), "frames 0 to 15, every 5th");
        for (step, every) in [(2, "every 2nd"), (3, "every 3rd"), (12, "every 12th"), (21, "every 21st")] {
            assert!(frames(1, step, 2).ends_with(every), "{}", frames(1, step, 2));
        }
    }

    #[test]
    fn paths_for_the_shell() {
        for (path, quoted) in [
            ("runs/tiny-t2-001", "runs/tiny-t2-001"),
            ("runs/my run", "'runs/my run'"),
            ("it's", "\"it's\""),
            ("$HOME/a", "'$HOME/a'"),
            ("a;b", "'a;b'"),
            ("~", "'~'"),
            ("-x", "./-x"),
            ("", "''"),
        ] {
            assert_eq!(shell_quoted(Path::new(path)), quoted);
            if !path.is_empty() && !path.starts_with('-') {
                assert_eq!(shlex::split(quoted), Some(vec![path.to_owned()]));
            }
        }
    }
}
