//! How long a search takes among 20,000 vectors of 384 components: by the graph in each
//! quantisation, and exactly.
#![allow(missing_docs, clippy::unwrap_used)]

use anced::index::{Index, IndexOptions};
use anced::onnx::Runtime;
use anced::settings::{Quantization, Settings, Similarity};
use criterion::{Criterion, criterion_group, criterion_main};

const DIMENSION: usize = 384;
const COUNT: u64 = 20_000;

/// Vectors around 100 centres, from a linear congruential generator: repeatable, and clustered as texts are.
fn vectors() -> Vec<Vec<f32>> {
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    let centres: Vec<Vec<f32>> = (0..100).map(|_| (0..DIMENSION).map(|_| next()).collect()).collect();
    (0..COUNT as usize).map(|at| centres[at % 100].iter().map(|value| value + 0.5 * next()).collect()).collect()
}

fn search(criterion: &mut Criterion) {
    let settings = Settings::load(None, &[]).unwrap();
    let runtime = Runtime::load(settings.onnxruntime.as_deref(), settings.threads).unwrap();
    let vectors = vectors();
    let keys: Vec<u64> = (1..=COUNT).collect();
    let queries: Vec<&Vec<f32>> = vectors.iter().step_by(97).collect();
    let mut group = criterion.benchmark_group("10 of 20,000");
    group.sample_size(20);
    for quantization in [Quantization::F32, Quantization::F16, Quantization::Bf16, Quantization::I8] {
        let options = IndexOptions { quantization, ..IndexOptions::from(&settings) };
        let index = Index::new(DIMENSION, Similarity::Cosine, options, COUNT as usize, &runtime).unwrap();
        let started = std::time::Instant::now();
        index.add(&keys, &vectors).unwrap();
        println!("{quantization:?}: built in {:.1} s, {} MiB", started.elapsed().as_secs_f64(), index.bytes() >> 20);
        let mut turn = queries.iter().cycle();
        group.bench_function(format!("graph, {quantization:?}"), |bencher| {
            bencher.iter(|| index.search(turn.next().unwrap(), 10, settings.expansion_search, None).unwrap());
        });
        if quantization == Quantization::F32 {
            group.bench_function("exact", |bencher| {
                bencher.iter(|| index.exact(&[turn.next().unwrap()], 10, None).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
