//! What a search answered to one query.

use std::cmp::Ordering;
use std::collections::HashSet;

/// The documents found for a query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranking {
    /// The query's id.
    pub query: String,
    /// Document ids with their scores, higher is better. The order does not matter: the scores are what is measured.
    pub documents: Vec<(String, f32)>,
}

/// The order of documents whose scores are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ties {
    /// The greater id first, as in trec_eval.
    Descending,
    /// The smaller id first, as in the evaluation script of MS MARCO.
    Ascending,
}

impl Ranking {
    /// The ids, best first. An id that comes twice counts once, with its better score; a score that is not a number is
    /// below all others.
    pub(super) fn ordered(&self, ties: Ties) -> Vec<&str> {
        let mut documents: Vec<(&str, f32)> = self
            .documents
            .iter()
            .map(|(id, score)| (id.as_str(), if score.is_nan() { f32::NEG_INFINITY } else { *score }))
            .collect();
        documents.sort_unstable_by(|(one, one_score), (other, other_score)| {
            other_score.partial_cmp(one_score).unwrap_or(Ordering::Equal).then_with(|| match ties {
                Ties::Descending => other.cmp(one),
                Ties::Ascending => one.cmp(other),
            })
        });
        let mut seen = HashSet::with_capacity(documents.len());
        documents.into_iter().map(|(id, _)| id).filter(|id| seen.insert(*id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(documents: &[(&str, f32)]) -> Ranking {
        Ranking { query: "q".into(), documents: documents.iter().map(|(id, score)| ((*id).into(), *score)).collect() }
    }

    #[test]
    fn scores_decide_and_ids_break_ties() {
        let ranking = ranking(&[("b", 1.0), ("a", 1.0), ("d", -0.0), ("c", 0.0), ("e", 3.0)]);
        assert_eq!(ranking.ordered(Ties::Descending), ["e", "b", "a", "d", "c"]);
        assert_eq!(ranking.ordered(Ties::Ascending), ["e", "a", "b", "c", "d"]);
    }

    #[test]
    fn an_id_counts_once_and_nan_comes_last() {
        let ranking = ranking(&[("a", f32::NAN), ("b", -1e30), ("c", 1.0), ("b", 2.0)]);
        assert_eq!(ranking.ordered(Ties::Ascending), ["b", "c", "a"]);
    }
}
