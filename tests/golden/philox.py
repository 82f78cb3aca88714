"""Philox4x32-10 in numpy: the random numbers of `src/rng.rs`, many at a time."""

import numpy as np

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Four random words for each 128-bit counter: `[4, n] -> [4, n]`, 32-bit words held in uint64."""
    c0, c1, c2, c3 = counter.astype(np.uint64)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> HALF) ^ c1 ^ np.uint64(k0),
            p1 & LOW,
            (p0 >> HALF) ^ c3 ^ np.uint64(k1),
            p0 & LOW,
        )
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def unit(words: np.ndarray) -> np.ndarray:
    """Uniform numbers in (0, 1] from the upper 24 bits of each word."""
    return ((words >> np.uint64(8)) + np.uint64(1)).astype(np.float64) / 2.0**24


def normal(seed: int, step: int, stream: int, count: int) -> np.ndarray:
    """The standard normal numbers 0..count of the stream `(seed, step, stream)`, f64 (Box-Muller)."""
    index = np.arange(count, dtype=np.uint64)
    counter = np.stack([index, *(np.full_like(index, word) for word in (stream, step, 0))])
    words = philox(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return np.sqrt(-2.0 * np.log(unit(words[0]))) * np.cos(2.0 * np.pi * unit(words[1]))


def check() -> None:
    """Known-answer vectors of the Random123 distribution, as tested in `src/rng.rs`."""
    expected = {
        0x00000000: [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8],
        0xFFFFFFFF: [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
    }
    for word, answer in expected.items():
        assert philox(np.full((4, 1), word), (word, word))[:, 0].tolist() == answer
