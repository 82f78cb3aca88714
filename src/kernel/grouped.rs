//! Several launches of one kernel in one dispatch: the table that it finds them by.
//!
//! Each workgroup looks up the launch that it belongs to, and reads that one's parameters, grid and places in memory from the
//! table, which takes the place of the parameter block. The buffers are bound once for all of them. Templates know nothing of it,
//! as they ask for all that by the macros of `shaders/common/operands.wgsl`.

use super::{Kernel, WORD_BYTES};

/// Launches that share a dispatch, at most.
pub const MOST_MEMBERS: usize = 16;

/// A launch's row of the table: parameters, where its operands begin, its grid and its first workgroup.
const MEMBER_WORDS: usize = 48;
const MOST_OPERANDS: usize = 8;
pub(super) const MOST_PARAMETERS: usize = MEMBER_WORDS - MOST_OPERANDS - 4;
const TABLE_WORDS: usize = MOST_MEMBERS * MEMBER_WORDS;
/// Bytes of the table.
pub const TABLE_BYTES: usize = TABLE_WORDS * WORD_BYTES;

/// One launch of a dispatch.
#[derive(Debug, Clone)]
pub struct Member {
    /// Words of its parameter block.
    pub parameters: Vec<u32>,
    /// Where its operands begin in what is bound, in bytes.
    pub offsets: Vec<usize>,
    /// Its workgroups.
    pub workgroups: [u32; 3],
}

/// Whether launches of `kernel` with so many parameter words and operands can share a dispatch. Those that multiply by matrix
/// units do not: a driver that cannot compile one is lost with its device, so they run only as a tuner has tried them.
pub fn fits(kernel: &Kernel, parameters: usize, operands: usize) -> bool {
    parameters <= MOST_PARAMETERS && operands <= MOST_OPERANDS && !kernel.on_matrix_units()
}

/// The words of the table of at most [`MOST_MEMBERS`] launches. A workgroup belongs to the last one whose first workgroup does
/// not come after it.
pub fn table(members: &[Member]) -> Vec<u32> {
    let mut words = Vec::with_capacity(TABLE_WORDS);
    let mut first = 0;
    for member in members {
        words.extend(&member.parameters);
        words.resize(words.len().next_multiple_of(MEMBER_WORDS) - MOST_OPERANDS - 4, 0);
        words.extend(member.offsets.iter().map(|&bytes| bytes as u32));
        words.resize(words.len().next_multiple_of(MEMBER_WORDS) - 4, 0);
        words.extend(member.workgroups);
        words.push(first);
        first += member.workgroups.iter().product::<u32>();
    }
    // Nothing belongs to the others.
    words.resize(TABLE_WORDS, u32::MAX);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_launch() {
        let member = |parameters, offsets, workgroups| Member { parameters, offsets, workgroups };
        let words = table(&[member(vec![7, 8], vec![256], [2, 3, 1]), member(vec![9], vec![0, 512], [5, 1, 1])]);
        assert_eq!(words.len(), TABLE_WORDS);
        let row = |number: usize| &words[number * MEMBER_WORDS..][..MEMBER_WORDS];
        assert_eq!((&row(0)[..3], &row(0)[36..38], &row(0)[44..]), (&[7, 8, 0][..], &[256, 0][..], &[2, 3, 1, 0][..]));
        assert_eq!((&row(1)[..2], &row(1)[36..39], &row(1)[44..]), (&[9, 0][..], &[0, 512, 0][..], &[5, 1, 1, 6][..]));
        assert_eq!(row(2)[47], u32::MAX);
    }
}
