//! The key of a vector: its document's sequence, and which of the document's pieces it is of.

/// Bits that hold the sequence; the piece's number lies above them, so that the first piece's key is the sequence.
const SEQUENCE_BITS: u32 = 48;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

/// What a vector is stored under, in the graph as its [`raw`](Self::raw) number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub(super) struct Key(u64);

impl Key {
    /// The key of a document's piece; none where the sequence takes more than 48 bits.
    pub(super) fn new(sequence: u64, chunk: u16) -> Option<Self> {
        (sequence <= SEQUENCE_MASK).then_some(Self(u64::from(chunk) << SEQUENCE_BITS | sequence))
    }

    /// A key that [`raw`](Self::raw) gave.
    pub(super) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) fn raw(self) -> u64 {
        self.0
    }

    pub(super) fn sequence(self) -> u64 {
        self.0 & SEQUENCE_MASK
    }

    pub(super) fn chunk(self) -> u16 {
        (self.0 >> SEQUENCE_BITS) as u16
    }

    pub(super) fn is_first(self) -> bool {
        self.0 <= SEQUENCE_MASK
    }

    /// The keys of vectors that stand under these sequences: one that comes again at once is the same document's next
    /// piece. None stands for a sequence or a piece's number that no key can hold.
    pub(super) fn number(sequences: impl Iterator<Item = u64>) -> impl Iterator<Item = (u64, Option<Self>)> {
        let mut last: Option<(u64, u16)> = None;
        sequences.map(move |sequence| {
            let chunk = match last {
                Some((before, chunk)) if before == sequence => chunk.checked_add(1),
                _ => Some(0),
            };
            last = Some((sequence, chunk.unwrap_or(u16::MAX)));
            (sequence, chunk.and_then(|chunk| Self::new(sequence, chunk)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_the_sequence_and_the_piece() {
        for (sequence, chunk) in [(0, 0), (1, 3), (SEQUENCE_MASK, u16::MAX), (4711, 1)] {
            let key = Key::new(sequence, chunk).unwrap();
            assert_eq!((key.sequence(), key.chunk(), key.is_first()), (sequence, chunk, chunk == 0));
            assert_eq!(Key::from_raw(key.raw()), key);
        }
        assert_eq!(Key::new(4711, 0).unwrap().raw(), 4711);
        assert_eq!(Key::new(SEQUENCE_MASK + 1, 0), None);
    }

    #[test]
    fn vectors_of_one_sequence_in_a_row_are_pieces_of_it() {
        let chunks = |sequences: &[u64]| -> Vec<Option<u16>> {
            Key::number(sequences.iter().copied()).map(|(_, key)| key.map(Key::chunk)).collect()
        };
        assert_eq!(chunks(&[5, 5, 6, 5, 5, 5]), [0, 1, 0, 0, 1, 2].map(Some));
        assert_eq!(chunks(&[SEQUENCE_MASK + 1]), [None]);
        assert_eq!(chunks(&vec![7; 65_537])[65_535..], [Some(u16::MAX), None]);
    }
}
