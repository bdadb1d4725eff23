//! Answer accuracy: the share of questions whose answer stands in one of the first texts (top-20 and top-100 of DPR).

use std::collections::BTreeMap;

use super::{Error, Ranking};
use crate::corpus::{Answers, Query, Store, Words};

/// How many of the first texts are read, as in the paper.
const CUTS: [usize; 2] = [20, 100];

/// `Accuracy@20` and `Accuracy@100` over the queries that have answers; empty where none has. Answers are looked for in
/// texts, not in titles, as DPR does; a document that is gone counts as one without.
///
/// # Errors
/// A store that cannot be read.
pub fn answer_accuracy(store: &Store, queries: &[Query], rankings: &[Ranking]) -> Result<Vec<(String, f64)>, Error> {
    let answers: BTreeMap<&str, Answers> = queries
        .iter()
        .map(|query| (query.id.as_str(), Answers::new(&query.answers)))
        .filter(|(_, answers)| !answers.is_empty())
        .collect();
    if answers.is_empty() {
        return Ok(Vec::new());
    }
    let deepest = CUTS.into_iter().max().unwrap_or(0);
    let mut found = [0_usize; CUTS.len()];
    for ranking in rankings {
        let Some(answers) = answers.get(ranking.query.as_str()) else { continue };
        for (rank, (id, _)) in ranking.documents.iter().take(deepest).enumerate() {
            let stored = store.document(id).map_err(crate::generation::Error::from)?;
            if stored.is_some_and(|stored| answers.are_in(&Words::of(&stored.document.text))) {
                CUTS.iter().zip(&mut found).filter(|(cut, _)| rank < **cut).for_each(|(_, found)| *found += 1);
                break;
            }
        }
    }
    let share = |found: usize| found as f64 / answers.len() as f64;
    Ok(CUTS.iter().zip(found).map(|(cut, found)| (format!("Accuracy@{cut}"), share(found))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::Document;

    #[test]
    fn the_first_text_with_an_answer_counts() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let documents: Vec<Document> = (0..150)
            .map(|at| Document {
                id: format!("d{at}"),
                title: "Paris".into(),
                text: format!("text number {at}"),
                metadata: serde_json::Map::new(),
            })
            .collect();
        store.write(&documents).unwrap();
        let query = |id: &str, answers: &[&str]| Query {
            id: id.into(),
            text: "which".into(),
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        };
        // In order: at rank 20, at 21, at 101, in a title only, not ranked, no answers.
        let queries = [
            query("a", &["nothing", "Number 19"]),
            query("b", &["20"]),
            query("c", &["100"]),
            query("d", &["paris"]),
            query("e", &["number 0"]),
            query("f", &[]),
        ];
        let documents: Vec<(String, f32)> = (0..150).map(|at| (format!("d{at}"), -(at as f32))).collect();
        let ranking = |id: &str| Ranking { query: id.into(), documents: documents.clone() };
        let rankings: Vec<Ranking> = ["a", "b", "c", "d", "f"].map(ranking).to_vec();
        let accuracy = answer_accuracy(&store, &queries, &rankings).unwrap();
        assert_eq!(accuracy, [("Accuracy@20".into(), 0.2), ("Accuracy@100".into(), 0.4)]);
        assert!(answer_accuracy(&store, &queries[5..], &rankings).unwrap().is_empty());
    }
}
