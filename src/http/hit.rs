//! What a search answers with, and which parts of a hit are written.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::generation::{Hit, SearchResponse, StageTimes};

/// A part of a hit beside id and score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    Title,
    Text,
    Metadata,
    Vector,
}

/// The parts that are written where a request names none.
pub(super) const DEFAULT_PARTS: [Part; 3] = [Part::Title, Part::Text, Part::Metadata];

/// The answer to a search.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SearchAnswer {
    /// The generation that answered.
    #[schema(example = 3)]
    pub(super) generation: u64,
    took_ms: TookMs,
    /// Best first; for `query`.
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<Vec<HitBody>>,
    /// One list a query, in the order of `queries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<QueryHits>>,
}

/// The hits of one query of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueryHits {
    /// Best first.
    hits: Vec<HitBody>,
}

/// Milliseconds, stage by stage.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TookMs {
    /// Waiting for the encoder.
    queue: f64,
    /// Text to token ids.
    tokenize: f64,
    /// The model's forward pass.
    encode: f64,
    /// Nearest neighbours.
    search: f64,
    /// Reading the documents.
    fetch: f64,
    /// All of it.
    total: f64,
}

/// One document found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hit)]
pub(super) struct HitBody {
    /// The document's id.
    id: String,
    /// Inner product or cosine; higher is better.
    #[schema(example = 0.71)]
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// The passage vector; of a document in several pieces (`chunks`) that of the best one, which gave the score.
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
}

impl SearchAnswer {
    /// Writes `results` for a batch and `hits` for one query.
    pub(super) fn new(response: SearchResponse, batch: bool, parts: &[Part]) -> Self {
        let written = |hits: Vec<Hit>| hits.into_iter().map(|hit| HitBody::new(hit, parts)).collect::<Vec<_>>();
        let mut lists = response.results.into_iter().map(written);
        let (hits, results) = match batch {
            true => (None, Some(lists.map(|hits| QueryHits { hits }).collect())),
            false => (Some(lists.next().unwrap_or_default()), None),
        };
        Self { generation: response.generation, took_ms: response.times.into(), hits, results }
    }
}

impl HitBody {
    fn new(hit: Hit, parts: &[Part]) -> Self {
        let Hit { score, document, vector, .. } = hit;
        let wanted = |part| parts.contains(&part);
        Self {
            id: document.id,
            score,
            title: wanted(Part::Title).then_some(document.title),
            text: wanted(Part::Text).then_some(document.text),
            metadata: wanted(Part::Metadata).then_some(document.metadata),
            vector: vector.filter(|_| wanted(Part::Vector)),
        }
    }
}

impl From<StageTimes> for TookMs {
    fn from(times: StageTimes) -> Self {
        let ms = |time: std::time::Duration| time.as_nanos().div_ceil(1000) as f64 / 1e3;
        Self {
            queue: ms(times.queue),
            tokenize: ms(times.tokenize),
            encode: ms(times.encode),
            search: ms(times.search),
            fetch: ms(times.fetch),
            total: ms(times.total),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::corpus::Document;

    fn response(queries: usize) -> SearchResponse {
        let document = Document { id: "a".into(), title: "T".into(), text: String::new(), metadata: Map::new() };
        let hit = Hit { score: 0.71, sequence: 9, document, vector: Some(vec![0.6, 0.8]) };
        let times = StageTimes { total: std::time::Duration::from_nanos(1_234_500), ..StageTimes::default() };
        SearchResponse { generation: 3, times, results: vec![vec![hit]; queries] }
    }

    #[test]
    fn one_query_has_hits_and_a_batch_has_results() {
        let one = serde_json::to_value(SearchAnswer::new(response(1), false, &DEFAULT_PARTS)).unwrap();
        let hit = json!({"id": "a", "score": 0.71_f32, "title": "T", "text": "", "metadata": {}});
        let took = json!({"queue": 0.0, "tokenize": 0.0, "encode": 0.0, "search": 0.0, "fetch": 0.0, "total": 1.235});
        assert_eq!(one, json!({"generation": 3, "took_ms": took, "hits": [hit]}));
        let two = serde_json::to_value(SearchAnswer::new(response(2), true, &[])).unwrap();
        let hits = json!({"hits": [{"id": "a", "score": 0.71_f32}]});
        assert_eq!(two, json!({"generation": 3, "took_ms": took, "results": [hits, hits]}));
    }

    #[test]
    fn vectors_come_only_when_asked_for() {
        let parts = [Part::Vector];
        let answer = serde_json::to_string(&SearchAnswer::new(response(1), false, &parts)).unwrap();
        assert!(answer.ends_with(r#""hits":[{"id":"a","score":0.71,"vector":[0.6,0.8]}]}"#), "{answer}");
    }
}
