//! Feedback: votes on what a search found, and how they become a judgment; [`Feedback`] has the rule.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Split;

/// How many votes on a document for a query count: the last ones.
pub const VOTES: usize = 15;

/// A vote: 0 is not relevant, 1 to 3 are relevant, higher is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grade(u8);

impl Grade {
    /// The grade of a number; none outside 0 to 3.
    pub fn new(number: i64) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| *number <= 3).map(Self)
    }
}

/// What somebody thinks of a document as an answer to a query.
///
/// - **The query** is the text with white space folded: trimmed, and every run of it one space. The same text is one
///   query, whose id is `feedback-` and the first 16 hexadecimal digits of the text's sha256.
/// - **The grade** of a document for a query is what the last [`VOTES`] votes say, whoever cast them: relevant where more
///   of them are above 0 than are 0, with the middle one of those above 0 (of two, the lower); not relevant, grade 0,
///   where fewer are; and no judgment where they are even. So votes count, but a client that repeats its own a thousand
///   times is outvoted by eight later ones.
/// - **The split** is drawn from the text: a share of the queries is kept aside for dev, the rest is trained on, none is
///   ever test. It is kept with the query, so that a query stays where it is when the share is changed. Texts that
///   differ in upper and lower case only stay together, where the first of them was drawn to.
/// - **Files come first.** A text that files judge in dev or test, whatever its case, gets no judgment from feedback:
///   what is measured is not trained on. Where files judge it in train only, feedback adds to that query, and where they
///   judge the same document, their grade holds; a text of other case is a query of its own then, in train too.
/// - **A document that is gone** takes its judgments with it, and gives them back when it is written again.
///
/// Votes are what is stored; judgments are worked out from them when they are read. So an import that comes after the
/// feedback is heeded as one that came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// The query's text as it was asked.
    pub query: String,
    /// The document's id.
    pub document: String,
    /// The vote.
    pub grade: Grade,
    /// An earlier vote on the same document that this one takes the place of; passed over where no such vote counts.
    pub replaces: Option<Grade>,
}

/// The votes that count on a document for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Votes {
    /// Above 0.
    pub up: u64,
    /// 0.
    pub down: u64,
}

/// What feedback led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedbackOutcome {
    /// The id of the query that the judgment belongs to.
    pub query: String,
    /// Where the query is; none where files measure on this text, so that feedback makes no judgment.
    pub split: Option<Split>,
    /// The grade that the document has for the query now; none where there is no judgment.
    pub grade: Option<i32>,
    /// The votes that count.
    pub votes: Votes,
}

/// A query that feedback brought, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FeedbackQuery {
    pub(super) text: String,
    /// What the text drew; files may overrule it.
    pub(super) split: Split,
}

/// The key of a feedback query: the start of its text's sha256.
pub(super) type Key = [u8; 8];
/// The key of all texts that differ from one in upper and lower case and in white space only.
pub(crate) type LooseKey = [u8; 16];

pub(super) fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn key(folded: &str) -> Key {
    start(&Sha256::digest(folded))
}

/// The same for texts that are one query but for case and white space.
pub(crate) fn loose_key(text: &str) -> LooseKey {
    start(&loose_digest(text))
}

pub(super) fn id(key: Key) -> String {
    format!("feedback-{:016x}", u64::from_be_bytes(key))
}

/// The key that an id was made from.
pub(super) fn key_of(id: &str) -> Option<Key> {
    let digits = id.strip_prefix("feedback-").filter(|digits| digits.len() == 16)?;
    let key = u64::from_str_radix(digits, 16).ok()?.to_be_bytes();
    (self::id(key) == id).then_some(key)
}

/// The split that a text draws where `dev_share` (0 to 1) of the queries are kept aside for dev.
pub(super) fn drawn_split(text: &str, dev_share: f64) -> Split {
    let [.., a, b, c, d] = loose_digest(text);
    let place = f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0);
    if place < dev_share { Split::Dev } else { Split::Train }
}

fn loose_digest(text: &str) -> [u8; 32] {
    Sha256::digest(folded(text).to_lowercase()).into()
}

fn start<const LENGTH: usize>(digest: &[u8]) -> [u8; LENGTH] {
    digest.first_chunk().copied().unwrap_or([0; LENGTH])
}

/// The votes after one more; both are grades as bytes, oldest first.
pub(super) fn voted(votes: &[u8], feedback: &Feedback) -> Vec<u8> {
    let mut votes = votes.to_vec();
    if let Some(Grade(replaced)) = feedback.replaces
        && let Some(place) = votes.iter().rposition(|vote| *vote == replaced)
    {
        votes.remove(place);
    }
    votes.push(feedback.grade.0);
    votes.split_off(votes.len().saturating_sub(VOTES))
}

pub(super) fn counts(votes: &[u8]) -> Votes {
    let down = votes.iter().filter(|vote| **vote == 0).count() as u64;
    Votes { up: votes.len() as u64 - down, down }
}

/// The grade that votes add up to, if any.
pub(super) fn grade(votes: &[u8]) -> Option<i32> {
    let Votes { up, down } = counts(votes);
    if up == down {
        return None;
    }
    if up < down {
        return Some(0);
    }
    let mut above: Vec<u8> = votes.iter().copied().filter(|vote| *vote > 0).collect();
    above.sort_unstable();
    above.get((above.len() - 1) / 2).copied().map(i32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(votes: &[i64]) -> Vec<u8> {
        let mut kept = Vec::new();
        for vote in votes {
            let grade = Grade::new(*vote).unwrap();
            kept = voted(&kept, &Feedback { query: "q".into(), document: "d".into(), grade, replaces: None });
        }
        kept
    }

    #[test]
    fn grades_are_0_to_3() {
        assert!((0..=3).all(|number| Grade::new(number).is_some()));
        assert!([-1, 4, 256, i64::MAX, i64::MIN].into_iter().all(|number| Grade::new(number).is_none()));
    }

    #[test]
    fn the_majority_decides_and_an_even_vote_does_not() {
        for (votes, expected) in [
            (&[][..], None),
            (&[1], Some(1)),
            (&[0], Some(0)),
            (&[1, 0], None),
            (&[3, 0, 0], Some(0)),
            (&[3, 0, 1], Some(1)),
            (&[1, 3], Some(1)),
            (&[3, 3, 1, 0, 0], Some(3)),
            (&[1, 2, 2, 3], Some(2)),
        ] {
            assert_eq!(grade(&after(votes)), expected, "{votes:?}");
        }
    }

    #[test]
    fn only_the_last_votes_count_however_many_there_were() {
        let mut votes = vec![1; 1000];
        votes.extend([0; 7]);
        assert_eq!((grade(&after(&votes)), counts(&after(&votes))), (Some(1), Votes { up: 8, down: 7 }));
        votes.push(0);
        assert_eq!((grade(&after(&votes)), after(&votes).len()), (Some(0), VOTES));
    }

    #[test]
    fn a_vote_takes_the_place_of_an_earlier_one_that_counts() {
        let replacing = |grade, replaced| Feedback {
            query: "q".into(),
            document: "d".into(),
            grade: Grade::new(grade).unwrap(),
            replaces: Grade::new(replaced),
        };
        assert_eq!(voted(&[1, 0, 1], &replacing(0, 1)), [1, 0, 0]);
        assert_eq!(voted(&[0], &replacing(0, 1)), [0, 0]);
        assert_eq!(voted(&[], &replacing(2, 3)), [2]);
    }

    #[test]
    fn white_space_is_folded_and_ids_are_read_back() {
        assert_eq!(folded("  a\t b\u{a0}\n c "), "a b c");
        assert_eq!(folded(" \n"), "");
        let id = id(key("find files"));
        assert_eq!(key_of(&id), Some(key("find files")));
        assert_eq!(id, "feedback-a32e463d0035f31d");
        for other in ["feedback-", "feedback-A32E463D0035F31D", "feedback-+32e463d0035f31d", "q1", ""] {
            assert_eq!(key_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_share_of_dev_is_kept_and_case_does_not_matter() {
        let dev =
            |share| (0..2000).filter(|number| drawn_split(&format!("query {number}"), share) == Split::Dev).count();
        assert_eq!((dev(0.0), dev(1.0)), (0, 2000));
        assert!((340..460).contains(&dev(0.2)), "{}", dev(0.2));
        for number in 0..100 {
            let text = format!("Query {number} ÄÖ");
            assert_eq!(drawn_split(&text, 0.5), drawn_split(&text.to_lowercase(), 0.5));
            assert_eq!(loose_key(&text), loose_key(&format!(" {}  ", text.to_uppercase())));
        }
    }
}
