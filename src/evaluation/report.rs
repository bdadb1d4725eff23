//! Rankings against judgments: a value a measure and query, and their means.

use std::collections::{BTreeMap, HashMap};

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::measures::Measure;
use super::ranking::{Ranking, Ties};
use crate::corpus::Judgment;

/// What an evaluation gave. It serialises as a map from a measure's name to its mean, in the order that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    queries: Vec<String>,
    /// A column a measure, each as long as `queries`.
    columns: Vec<(Measure, Vec<f64>)>,
}

impl Report {
    /// The queries that count: those with a judgment, by id.
    pub fn queries(&self) -> &[String] {
        &self.queries
    }

    /// The measures with their means over all queries, in the order that was asked for; 0 where there are no queries.
    pub fn means(&self) -> impl Iterator<Item = (Measure, f64)> + '_ {
        let mean = |values: &[f64]| values.iter().fold(0.0, |sum, value| sum + value) / values.len().max(1) as f64;
        self.columns.iter().map(move |(measure, values)| (*measure, mean(values)))
    }

    /// The mean of one measure, if it was asked for.
    pub fn mean(&self, measure: Measure) -> Option<f64> {
        self.means().find(|(other, _)| *other == measure).map(|(_, mean)| mean)
    }

    /// Each query's value of one measure, by query id; `None` if the measure was not asked for.
    pub fn per_query(&self, measure: Measure) -> Option<impl Iterator<Item = (&str, f64)> + '_> {
        let (_, values) = self.columns.iter().find(|(other, _)| *other == measure)?;
        Some(self.queries.iter().map(String::as_str).zip(values.iter().copied()))
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (measure, mean) in self.means() {
            map.serialize_entry(&measure, &mean)?;
        }
        map.end()
    }
}

/// Measures the rankings against the judgments; whose split is whose is the caller's business.
///
/// As in `ir_measures`, every query with a judgment counts: one without a ranking is worth 0, and so is one whose
/// judgments are all 0. Rankings of queries without a judgment are left out. Of two judgments of one document for one
/// query, or two rankings of one query, the later one holds.
pub fn evaluate(rankings: &[Ranking], judgments: &[Judgment], measures: &[Measure]) -> Report {
    let mut judged: BTreeMap<&str, HashMap<&str, i32>> = BTreeMap::new();
    for judgment in judgments {
        judged.entry(&judgment.query).or_default().insert(&judgment.document, judgment.grade);
    }
    let rankings: HashMap<&str, &Ranking> = rankings.iter().map(|ranking| (ranking.query.as_str(), ranking)).collect();

    let mut columns: Vec<(Measure, Vec<f64>)> =
        measures.iter().map(|measure| (*measure, Vec::with_capacity(judged.len()))).collect();
    for (query, grades) in &judged {
        let ordered = |ties| rankings.get(query).map_or_else(Vec::new, |ranking| ranking.ordered(ties));
        let (descending, ascending) = (ordered(Ties::Descending), ordered(Ties::Ascending));
        for (measure, values) in &mut columns {
            let ordered = match measure.ties() {
                Ties::Descending => &descending,
                Ties::Ascending => &ascending,
            };
            values.push(measure.of(ordered, grades));
        }
    }
    Report { queries: judged.into_keys().map(str::to_owned).collect(), columns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Source, Split};

    fn judgment(query: &str, document: &str, grade: i32) -> Judgment {
        Judgment { query: query.into(), document: document.into(), grade, split: Split::Test, source: Source::File }
    }

    fn ranking(query: &str, documents: &[(&str, f32)]) -> Ranking {
        Ranking { query: query.into(), documents: documents.iter().map(|(id, score)| ((*id).into(), *score)).collect() }
    }

    #[test]
    fn every_judged_query_counts_and_no_other() {
        let judgments = [judgment("found", "a", 1), judgment("empty", "a", 1), judgment("worthless", "a", 0)];
        let rankings =
            [ranking("found", &[("a", 1.0)]), ranking("worthless", &[("a", 1.0)]), ranking("unjudged", &[("a", 1.0)])];
        let report = evaluate(&rankings, &judgments, &Measure::STANDARD);
        assert_eq!(report.queries(), ["empty", "found", "worthless"]);
        for (measure, mean) in report.means() {
            assert!((mean - 1.0 / 3.0).abs() < 1e-12, "{measure}");
            assert_eq!(
                report.per_query(measure).unwrap().collect::<Vec<_>>(),
                [("empty", 0.0), ("found", 1.0), ("worthless", 0.0)]
            );
        }
        assert_eq!(report.mean(Measure::Ndcg(7)), None);
    }

    #[test]
    fn ties_are_broken_as_the_measure_breaks_them() {
        let rankings = [ranking("q", &[("a", 1.0), ("b", 1.0)])];
        let measures = [Measure::Ndcg(1), Measure::Mrr(1), Measure::Recall(1)];
        let values = |document| {
            let report = evaluate(&rankings, &[judgment("q", document, 1)], &measures);
            report.means().map(|(_, mean)| mean).collect::<Vec<_>>()
        };
        assert_eq!(values("a"), [0.0, 1.0, 0.0]);
        assert_eq!(values("b"), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn a_report_is_written_in_the_order_asked_for() {
        let rankings = [ranking("q", &[("a", 2.0), ("b", 1.0)])];
        let report = evaluate(&rankings, &[judgment("q", "b", 1)], &[Measure::Recall(100), Measure::Mrr(10)]);
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"Recall@100":1.0,"MRR@10":0.5}"#);
        let nothing = evaluate(&rankings, &[], &[Measure::Mrr(10)]);
        assert_eq!(serde_json::to_string(&nothing).unwrap(), r#"{"MRR@10":0.0}"#);
    }
}
