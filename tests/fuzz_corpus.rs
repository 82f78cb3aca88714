//! The inputs that fuzzing found worth keeping (`fuzz/`), and changes of them, read in the usual test build: nothing but a
//! refusal in one sentence may come of any, and no memory by a length that an input claims.
//!
//! `SEP4D_INPUTS=1000000 cargo test --release --test fuzz_corpus` tries so many changes for each reader.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sep4d::rng::philox;

#[path = "../fuzz/src/lib.rs"]
mod readers;

/// Changed inputs for each reader in the test suite.
const FEW: u32 = 500;
/// No input is longer.
const LONGEST: usize = 1 << 16;
/// What reading such inputs may take beyond what the process had before, KiB.
const MOST_KIB: u64 = 64 << 10;

/// What breaks readers of numbers and texts.
const TOKENS: [&[u8]; 24] = [
    b"0",
    b"-1",
    b"1e999",
    b"-1e-400",
    b"NaN",
    b"inf",
    b"4294967296",
    b"18446744073709551616",
    b"9223372036854775807",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\xff",
    b"\0",
    b"\xef\xbb\xbf",
    b"null",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

fn corpus(reader: &readers::Reader) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(reader.name)
}

/// What is kept for a reader, and what it accepts.
fn inputs(reader: &readers::Reader) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(corpus(reader)).expect("there is a corpus").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).chain((reader.valid)()).collect()
}

/// Random numbers of one input.
struct Dice(u32, u32);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.1 += 1;
        philox([self.0, self.1, 0, 0], [0xF022, 0])[0] as usize % end.max(1)
    }
}

/// One to four changes of one of `all`.
fn changed(all: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = all[dice.below(all.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + 1 + dice.below(16)).min(bytes.len());
        match dice.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].repeat(1 + dice.below(3));
                bytes.splice(at..at, part);
            }
            5 => {
                let token = TOKENS[dice.below(TOKENS.len())].iter().copied();
                bytes.splice(at..at, token);
            }
            // A number, or whatever a word is, gives way to something else.
            6 => {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
                let begin = bytes[..at].iter().rposition(|byte| !is_word(byte)).map_or(0, |before| before + 1);
                let end = bytes[at..].iter().position(|byte| !is_word(byte)).map_or(bytes.len(), |length| at + length);
                bytes.splice(begin..end, TOKENS[dice.below(TOKENS.len())].iter().copied());
            }
            _ => {
                let other = &all[dice.below(all.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[dice.below(other.len() + 1)..]);
            }
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// The most memory that this process has had, KiB; 0 where the system does not tell.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn every_reader_takes_or_refuses_whatever_it_is_given() {
    let wanted = std::env::var("SEP4D_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW);
    for reader in readers::READERS {
        let all = inputs(&reader);
        let (began, before, mut slowest) = (Instant::now(), peak_kib(), Duration::ZERO);
        let mut read = |bytes: &[u8]| {
            let began = Instant::now();
            let done = std::panic::catch_unwind(|| (reader.read)(bytes));
            assert!(done.is_ok(), "{} fails on {}", reader.name, bytes.escape_ascii());
            slowest = slowest.max(began.elapsed());
        };
        all.iter().for_each(|bytes| read(bytes));
        for number in 0..wanted {
            read(&changed(&all, &mut Dice(number, 0)));
        }
        let (secs, grown) = (began.elapsed().as_secs(), peak_kib() - before);
        let name = reader.name;
        println!(
            "{name}: {} kept and {wanted} changed inputs in {secs} s, the slowest {slowest:?}, {grown} KiB",
            all.len()
        );
        assert!(grown < MOST_KIB, "{name} takes {grown} KiB");
    }
    readers::clean_up();
}
