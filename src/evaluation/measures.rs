//! nDCG, MRR and recall, each for one query.
//!
//! They give what `ir_measures` gives for `nDCG@k`, `RR@k` and `R@k`, down to the order of equal scores, on which its
//! providers differ: trec_eval (nDCG, recall) puts the greater document id first, MS MARCO's script (RR) the smaller.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::ranking::Ties;

/// A measure and its cut-off, written `nDCG@10`, `MRR@10`, `Recall@100`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Measure {
    /// Discounted cumulative gain over the best possible one: the gain is the grade (below 0 it is 0), the discount
    /// log2(rank + 1), the ideal ranking holds every judged document.
    Ndcg(usize),
    /// 1 / rank of the first document with a grade of at least 1, or 0 where it lies behind the cut-off.
    Mrr(usize),
    /// The share of the documents with a grade of at least 1 that the first ones hold.
    Recall(usize),
}

impl Measure {
    /// What every evaluation reports unless it is asked for something else.
    pub const STANDARD: [Self; 4] = [Self::Ndcg(10), Self::Mrr(10), Self::Recall(100), Self::Recall(1000)];

    pub(super) fn ties(self) -> Ties {
        match self {
            Self::Mrr(_) => Ties::Ascending,
            Self::Ndcg(_) | Self::Recall(_) => Ties::Descending,
        }
    }

    /// The value for one query, between 0 and 1; 0 where no document is relevant.
    pub(super) fn of(self, ordered: &[&str], grades: &HashMap<&str, i32>) -> f64 {
        let grade = |document: &&str| grades.get(*document).copied().unwrap_or(0);
        match self {
            Self::Ndcg(cut) => {
                let mut best: Vec<i32> = grades.values().copied().filter(|grade| *grade > 0).collect();
                best.sort_unstable_by(|one, other| other.cmp(one));
                share(discounted_gain(ordered.iter().map(grade).take(cut)), discounted_gain(best.into_iter().take(cut)))
            }
            Self::Mrr(cut) => {
                let first = ordered.iter().take(cut).position(|document| grade(document) >= 1);
                first.map_or(0.0, |position| 1.0 / (position as f64 + 1.0))
            }
            Self::Recall(cut) => {
                let relevant = grades.values().filter(|grade| **grade >= 1).count();
                let found = ordered.iter().take(cut).filter(|document| grade(document) >= 1).count();
                share(found as f64, relevant as f64)
            }
        }
    }
}

fn discounted_gain(grades: impl Iterator<Item = i32>) -> f64 {
    let gain = |(position, grade): (usize, i32)| f64::from(grade.max(0)) / (position as f64 + 2.0).log2();
    // Not `sum`, whose value of nothing is -0.
    grades.enumerate().map(gain).fold(0.0, |sum, gain| sum + gain)
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl fmt::Display for Measure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ndcg(cut) => write!(formatter, "nDCG@{cut}"),
            Self::Mrr(cut) => write!(formatter, "MRR@{cut}"),
            Self::Recall(cut) => write!(formatter, "Recall@{cut}"),
        }
    }
}

impl FromStr for Measure {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Measure(text.to_owned());
        let (name, cut) = text.split_once('@').ok_or_else(unknown)?;
        let cut: usize = cut.parse().ok().filter(|cut| *cut > 0).ok_or_else(unknown)?;
        match name {
            "nDCG" => Ok(Self::Ndcg(cut)),
            "MRR" => Ok(Self::Mrr(cut)),
            "Recall" => Ok(Self::Recall(cut)),
            _ => Err(unknown()),
        }
    }
}

impl From<Measure> for String {
    fn from(measure: Measure) -> Self {
        measure.to_string()
    }
}

impl TryFrom<String> for Measure {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        let names = Measure::STANDARD.map(|measure| measure.to_string());
        assert_eq!(names, ["nDCG@10", "MRR@10", "Recall@100", "Recall@1000"]);
        for measure in Measure::STANDARD {
            assert_eq!(measure.to_string().parse::<Measure>().unwrap(), measure);
        }
        for text in ["", "nDCG", "ndcg@10", "nDCG@0", "nDCG@", "nDCG@-1", "nDCG@1.5", "P@10"] {
            assert!(text.parse::<Measure>().is_err(), "{text}");
        }
    }

    #[test]
    fn values_worked_out_by_hand() {
        let grades = HashMap::from([("a", 3), ("b", 1), ("c", 2), ("d", 0), ("e", -2)]);
        let ordered = ["e", "b", "x", "a"];
        let value = |measure: Measure| measure.of(&ordered, &grades);

        // Gains 0 1 0 3 over the ideal 3 2 1; the negative grade gains nothing, instead of taking something away.
        let ideal = 3.0 + 2.0 / 3f64.log2() + 1.0 / 2.0;
        let found = 1.0 / 3f64.log2() + 3.0 / 5f64.log2();
        assert!((value(Measure::Ndcg(10)) - found / ideal).abs() < 1e-12);
        assert!((value(Measure::Ndcg(2)) - (1.0 / 3f64.log2()) / (3.0 + 2.0 / 3f64.log2())).abs() < 1e-12);
        assert_eq!(value(Measure::Ndcg(1)), 0.0);
        assert_eq!(value(Measure::Mrr(10)), 0.5);
        assert_eq!(value(Measure::Mrr(1)), 0.0);
        assert_eq!(value(Measure::Recall(100)), 2.0 / 3.0);
        assert_eq!(value(Measure::Recall(2)), 1.0 / 3.0);
    }

    #[test]
    fn nothing_relevant_and_nothing_found_are_zero() {
        let none = HashMap::from([("a", 0)]);
        let some = HashMap::from([("a", 1)]);
        for measure in Measure::STANDARD {
            assert_eq!(measure.of(&["a"], &none).to_string(), "0");
            assert_eq!(measure.of(&[], &some).to_string(), "0");
            assert_eq!(measure.of(&["a"], &some), 1.0);
        }
    }
}
