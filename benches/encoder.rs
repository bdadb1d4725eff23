//! How long all-MiniLM-L6-v2 takes: one query, a batch of queries, a batch of passages.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use anced::encoder::{Encoder, EncoderOptions, Side};
use anced::onnx::Runtime;
use anced::settings::Settings;
use anced::telemetry::Metrics;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn encoder() -> Encoder {
    let settings = Settings::load(None, &[]).unwrap();
    let runtime = Runtime::load(settings.onnxruntime.as_deref(), settings.threads).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
    Encoder::open(&folder, &EncoderOptions::from(&settings), &runtime, &Arc::new(Metrics::new().unwrap())).unwrap()
}

fn encode(criterion: &mut Criterion) {
    let encoder = encoder();
    let query = "find all files larger than 10 megabytes in the home directory".to_owned();
    let passage = "dense retrieval trains the encoder on the hardest negatives that its own index returns ".repeat(8);
    let cases = [
        ("1 query", vec![query.clone()], Side::Query),
        ("64 queries", vec![query; 64], Side::Query),
        ("32 passages of 128 tokens", vec![passage; 32], Side::Passage),
    ];
    let mut group = criterion.benchmark_group("encode");
    group.sample_size(20);
    for (name, texts, side) in cases {
        let tokens: usize = encoder.tokenize(&texts, side).unwrap().iter().map(Vec::len).sum();
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| encoder.encode_blocking(texts.clone(), side).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
