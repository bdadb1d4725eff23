//! The encoders of a data folder's generations, apart from any server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anced::encoder::{Encoder, Overrides, Side};
use anced::generation::Machine;
use anced::settings::{Device, Settings, Similarity};
use anced::telemetry::Metrics;
use serde_json::Value;

pub struct References {
    data: PathBuf,
    machine: Machine,
    encoders: HashMap<u64, Encoder>,
    passages: HashMap<(u64, String), Vec<f32>>,
}

impl References {
    pub fn new(data: &Path) -> Self {
        let settings = Settings { device: Device::Cpu, ..Settings::default() };
        let machine = Machine::new(&settings, Arc::new(Metrics::new().unwrap())).unwrap();
        Self { data: data.into(), machine, encoders: HashMap::new(), passages: HashMap::new() }
    }

    fn encoder(&mut self, generation: u64) -> &Encoder {
        self.encoders.entry(generation).or_insert_with(|| {
            let checkpoint = self.data.join(format!("generations/{generation:06}/checkpoint"));
            self.machine.encoder(&checkpoint, Overrides::default()).unwrap()
        })
    }

    fn vector(&mut self, generation: u64, text: String, side: Side) -> Vec<f32> {
        let encoder = self.encoder(generation);
        let vector = encoder.encode_blocking(vec![text], side).unwrap().vectors.remove(0);
        let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
        match encoder.checkpoint().similarity {
            Similarity::Cosine => vector.iter().map(|value| value / length).collect(),
            Similarity::Dot => vector,
        }
    }

    /// How far the scores of an answer are at most from those that a generation's encoder gives the query and the text
    /// of each hit, in shares of the score that the query has with itself where that is above 1.
    pub fn apart(&mut self, generation: u64, query: &str, hits: &Value) -> f32 {
        let asked = self.vector(generation, query.into(), Side::Query);
        let size = asked.iter().map(|value| value * value).sum::<f32>().max(1.0);
        let mut apart = 0.0_f32;
        for hit in hits.as_array().unwrap() {
            let [title, text] = ["title", "text"].map(|part| hit[part].as_str().unwrap());
            let passage = self.encoder(generation).checkpoint().passage(title, text);
            let key = (generation, passage.clone());
            if !self.passages.contains_key(&key) {
                let vector = self.vector(generation, passage, Side::Passage);
                self.passages.insert(key.clone(), vector);
            }
            let expected: f32 = asked.iter().zip(&self.passages[&key]).map(|(one, other)| one * other).sum();
            apart = apart.max((hit["score"].as_f64().unwrap() as f32 - expected).abs() / size);
        }
        apart
    }

    /// Compares every score of an answer with those of the generation that it states.
    pub fn check(&mut self, query: &str, answer: &Value) -> u64 {
        let generation = answer["generation"].as_u64().unwrap();
        let apart = self.apart(generation, query, &answer["hits"]);
        assert!(apart <= 1e-4, "not generation {generation}, {apart} apart: {answer}");
        generation
    }
}
