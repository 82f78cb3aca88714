//! Numbers as people read them, in the window and on the command line alike.

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
}
