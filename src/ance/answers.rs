//! Candidates that contain an answer of their query: likely positives that nobody judged, and no negatives of DPR.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::Error;
use super::data::TrainingData;
use super::inference::Hit;
use crate::corpus::{Answers, Store, StoredDocument, Words};

/// Documents read at once.
const PAGE: usize = 4096;

/// Takes out of the hits of each train query with answers the documents whose title or text contains one, but for its
/// positives, by the texts as the store holds them now. Returns how many were taken out.
pub(super) fn drop_answers(store: &Store, data: &TrainingData, hits: &mut [Vec<Hit>]) -> Result<usize, Error> {
    let answers: Vec<Answers> = data.train.iter().map(|query| Answers::new(&query.answers)).collect();
    let mut askers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (query, hits) in hits.iter().enumerate().filter(|(query, _)| !answers[*query].is_empty()) {
        let positives = &data.train[query].positives;
        for (document, _) in hits.iter().filter(|hit| positives.binary_search(&(hit.0 as usize)).is_err()) {
            askers.entry(&data.names[*document as usize]).or_default().push(query);
        }
    }
    let numbers: HashMap<&str, u32> = match askers.is_empty() {
        true => return Ok(0),
        false => data.names.iter().enumerate().map(|(number, name)| (name.as_str(), number as u32)).collect(),
    };
    let answering = |stored: &StoredDocument| -> Vec<(usize, u32)> {
        let document = &stored.document;
        let (Some(askers), Some(number)) =
            (askers.get(document.id.as_str()), numbers.get(document.id.as_str()).copied())
        else {
            return Vec::new();
        };
        let (title, text) = (Words::of(&document.title), Words::of(&document.text));
        let has_answer = |query: &usize| answers[*query].are_in(&title) || answers[*query].are_in(&text);
        askers.iter().copied().filter(has_answer).map(|query| (query, number)).collect()
    };
    let (mut after, mut found) = (0, HashSet::new());
    loop {
        let page = store.current(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        found.par_extend(page.par_iter().flat_map_iter(answering));
    }
    for (query, hits) in hits.iter_mut().enumerate() {
        hits.retain(|hit| !found.contains(&(query, hit.0)));
    }
    Ok(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ance::data::TrainQuery;
    use crate::corpus::Document;

    #[test]
    fn what_contains_an_answer_is_no_negative() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let document = |(id, title, text): (&str, &str, &str)| Document {
            id: id.into(),
            title: title.into(),
            text: text.into(),
            metadata: serde_json::Map::new(),
        };
        let texts = [
            ("judged", "Paris", "the capital of France is Paris"),
            ("unjudged", "France", "its capital, PARIS, on the Seine"),
            ("titled", "Paris", "a city"),
            ("other", "Parisians", "who live there"),
        ];
        store.write(&texts.map(document)).unwrap();
        let query = |answers: &[&str]| TrainQuery {
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
            positives: vec![0],
            ..TrainQuery::default()
        };
        let names = texts.map(|(id, ..)| id.to_owned()).to_vec();
        let train = vec![query(&["Paris", "Lutetia"]), query(&[]), query(&["parisians"])];
        let data = TrainingData { names, train, ..TrainingData::default() };
        let mut hits = vec![vec![(0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6)]; 3];
        assert_eq!(drop_answers(&store, &data, &mut hits).unwrap(), 3);
        let left = |query: usize| hits[query].iter().map(|hit| hit.0).collect::<Vec<_>>();
        assert_eq!((left(0), left(1), left(2)), (vec![0, 3], vec![0, 1, 2, 3], vec![0, 1, 2]));
    }
}
