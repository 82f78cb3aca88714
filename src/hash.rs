//! Fingerprints: whether something is what it was.

use sha2::{Digest, Sha256};

/// The SHA-256 of a list of texts; shown are its first 16 hexadecimal digits.
#[derive(Debug, Clone, Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// That of a list of one text.
    pub fn of(text: &str) -> Fingerprint {
        Fingerprint::default().and(text)
    }

    /// That of the list with one text more.
    #[must_use]
    pub fn and(mut self, text: &str) -> Fingerprint {
        // With its length, so that no two lists are the same text.
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.clone().finalize().iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_same_letters_differ() {
        // printf '\1\0\0\0\0\0\0\0a' | sha256sum
        assert_eq!(Fingerprint::of("a").to_string(), "ae6121c88ba555f6");
        assert_ne!(Fingerprint::of("ab").and("c").to_string(), Fingerprint::of("a").and("bc").to_string());
    }
}
