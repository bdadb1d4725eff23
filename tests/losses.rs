//! Losses against what follows from the serving encoder's vectors, and what a step makes of its batches.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use anced::encoder::{Encoder, Side};
use anced::onnx::{Batch, Buckets, Error, Example, Loss, Moments, Objective, TrainingOptions, TrainingSession, Update};
use common::training::{apart, dot, dropping, encoder, fixture, options, session, texts, with_dropout};

const MODELS: [&str; 2] = ["bert-mean", "roberta-ance"];

/// A batch as texts.
struct Texts {
    queries: Vec<String>,
    documents: Vec<Vec<String>>,
    examples: Vec<Example>,
    judged: Vec<(usize, usize)>,
}

impl Texts {
    /// Four queries and nine documents; the first query has three positives, and the second example has no negative.
    fn new(passages: impl Fn(usize) -> usize) -> Self {
        let lengths = |number: usize| 2 + number * 7 % 17;
        let mut passage = texts(60, lengths).into_iter().skip(10);
        let example = |query, positive, negative| Example { query, positive, negative };
        Self {
            queries: texts(4, |number| 1 + 2 * number),
            documents: (0..9).map(|number| passage.by_ref().take(passages(number)).collect()).collect(),
            examples: vec![
                example(0, 0, Some(5)),
                example(0, 1, None),
                example(1, 2, Some(6)),
                example(2, 3, Some(0)),
                example(3, 4, Some(8)),
            ],
            // The last one is in the batch as another query's negative.
            judged: vec![(0, 0), (0, 1), (0, 8), (1, 2), (2, 3), (3, 4)],
        }
    }

    fn with_negatives_only(mut self) -> Self {
        self.examples.retain(|example| example.negative.is_some());
        self
    }

    fn without_negatives(mut self) -> Self {
        self.documents.truncate(5);
        self.judged.retain(|&(_, document)| document < 5);
        for example in &mut self.examples {
            example.negative = None;
        }
        self
    }

    fn batch(&self, encoder: &Encoder) -> Batch {
        let documents = self.documents.iter().map(|passages| encoder.tokenize(passages, Side::Passage).unwrap());
        Batch {
            queries: encoder.tokenize(&self.queries, Side::Query).unwrap(),
            documents: documents.collect(),
            examples: self.examples.clone(),
            judged: self.judged.clone(),
        }
    }

    /// The loss, in 64 bits, of the vectors that a server would answer with.
    fn loss(&self, encoder: &Encoder, loss: Loss) -> f64 {
        let vectors = |texts: &[String], side| encoder.encode_blocking(texts.to_vec(), side).unwrap().vectors;
        let queries = vectors(&self.queries, Side::Query);
        let documents: Vec<_> = self.documents.iter().map(|passages| vectors(passages, Side::Passage)).collect();
        let score = |query: usize, document: usize| {
            let scores = documents[document].iter().map(|passage| dot(&queries[query], passage));
            f64::from(loss.scale) * scores.fold(f64::NEG_INFINITY, f64::max)
        };
        let pairwise = |example: &Example| {
            let difference = score(example.query, example.negative.unwrap()) - score(example.query, example.positive);
            difference.max(0.0) + (-difference.abs()).exp().ln_1p()
        };
        let in_batch = |example: &Example| {
            let wanted = score(example.query, example.positive);
            let others = (0..documents.len())
                .filter(|&other| other == example.positive || !self.judged.contains(&(example.query, other)))
                .map(|other| score(example.query, other) - wanted);
            let (largest, others) = (others.clone().fold(f64::NEG_INFINITY, f64::max), others);
            largest + others.map(|other| (other - largest).exp()).sum::<f64>().ln()
        };
        let losses = self.examples.iter().map(|example| match loss.objective {
            Objective::Pairwise => pairwise(example),
            Objective::InBatch => in_batch(example),
        });
        losses.sum::<f64>() / self.examples.len() as f64
    }
}

const fn loss(objective: Objective, scale: f32, chunks: bool) -> Loss {
    Loss { objective, scale, chunks }
}

/// A number of passages a document, from 1 to 4.
fn chunks(number: usize) -> usize {
    1 + number * 3 % 4
}

/// Every kind of loss with a batch for it.
fn cases() -> Vec<(&'static str, Loss, Texts)> {
    let one = |_| 1;
    let (pairwise, in_batch) = (Objective::Pairwise, Objective::InBatch);
    vec![
        ("pairwise", loss(pairwise, 1.0, false), Texts::new(one).with_negatives_only()),
        ("pairwise, scaled", loss(pairwise, 20.0, false), Texts::new(one).with_negatives_only()),
        ("in-batch", loss(in_batch, 1.0, false), Texts::new(one)),
        ("in-batch, scaled", loss(in_batch, 20.0, false), Texts::new(one)),
        ("in-batch without mined negatives", loss(in_batch, 20.0, false), Texts::new(one).without_negatives()),
        ("pairwise MaxP", loss(pairwise, 1.0, true), Texts::new(chunks).with_negatives_only()),
        ("in-batch MaxP", loss(in_batch, 1.0, true), Texts::new(chunks)),
        ("in-batch MaxP, scaled", loss(in_batch, 20.0, true), Texts::new(chunks)),
        ("MaxP of one passage each", loss(in_batch, 20.0, true), Texts::new(one)),
    ]
}

/// Loss and gradient of a batch; the weights stay.
fn still(training: &mut TrainingSession, batch: &Batch) -> Update {
    training.step(std::slice::from_ref(batch), 0.0, 1).unwrap()
}

#[test]
fn losses_are_those_of_the_vectors_that_are_served() {
    for model in MODELS {
        let encoder = encoder(&fixture(model));
        for (name, loss, texts) in cases() {
            let wanted = texts.loss(&encoder, loss);
            let batch = texts.batch(&encoder);
            let ours = f64::from(still(&mut session(&fixture(model), loss, options()), &batch).loss);
            // The inner products of roberta-ance are about 40: 32 bits of them are good for 1e-5 times the scale.
            let tolerance = if loss.scale == 1.0 { 1e-5 } else { 1e-4 * wanted.max(1.0) };
            println!("{model}, {name}: {wanted}, off by {:.1e}", (ours - wanted).abs());
            assert!((ours - wanted).abs() <= tolerance, "{model}, {name}: {ours} not {wanted}");
        }
    }
}

/// The mask of judged documents is no formality: without it the loss is another.
#[test]
fn other_positives_of_a_query_are_no_negatives() {
    let folder = fixture("bert-mean");
    let encoder = encoder(&folder);
    let texts = Texts::new(|_| 1);
    let batch = texts.batch(&encoder);
    let mut training = session(&folder, loss(Objective::InBatch, 20.0, false), options());
    let masked = still(&mut training, &batch).loss;
    let all = still(&mut training, &Batch { judged: Vec::new(), ..batch.clone() }).loss;
    // Without the only positives of the other three queries.
    let of_first = batch.judged.iter().copied().filter(|&(query, _)| query == 0).collect();
    let others_only = still(&mut training, &Batch { judged: of_first, ..batch }).loss;
    assert!(all > masked + 0.05, "{all}, {masked}");
    assert_eq!(others_only, masked, "an example's own positive counts, judged or not");
}

fn zeros(length: usize, like: &Moments) -> Moments {
    Moments { first: vec![0.0; length], second: vec![0.0; length], loss_scale: like.loss_scale }
}

/// Compares `gradient` along a direction with central differences of the loss; returns by how much they differ, as a
/// share of the steepest slope.
fn off_along(training: &mut TrainingSession, batch: &Batch, gradient: &[f32], direction: &[f32]) -> f64 {
    let weights = training.weights().unwrap();
    let moments = training.moments().unwrap();
    let steepest = (dot(gradient, gradient) * dot(direction, direction)).sqrt();
    // Far enough that the loss changes by more than its rounding, near enough that it is straight and that no other
    // passage becomes the best.
    let distance = 1e-3 / steepest;
    let mut at = |share: f64| {
        let moved =
            weights.iter().zip(direction).map(|(w, d)| (f64::from(*w) + share * f64::from(*d)) as f32).collect();
        training.restore(moved, zeros(weights.len(), &moments)).unwrap();
        f64::from(still(training, batch).loss)
    };
    let measured = (at(distance) - at(-distance)) / (2.0 * distance);
    training.restore(weights, moments).unwrap();
    (measured - dot(gradient, direction)).abs() / steepest
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for model in MODELS {
        let encoder = encoder(&fixture(model));
        for (name, loss, texts) in cases() {
            // At scale 20 the best document of roberta-ance wins by far, and nothing is left to differentiate.
            if model == "roberta-ance" && loss.scale > 1.0 {
                continue;
            }
            let batch = texts.batch(&encoder);
            let mut training = session(&fixture(model), loss, options());
            still(&mut training, &batch);
            let gradient = training.gradient().unwrap();
            assert!(dot(&gradient, &gradient) > 1e-6, "{model}, {name}");
            // The gradient; every third of its elements once, twice, not at all; the gradient of one example.
            let part: Vec<f32> = gradient.iter().enumerate().map(|(at, g)| g * (at % 3) as f32).collect();
            let some = Batch { examples: batch.examples[..1].to_vec(), ..batch.clone() };
            still(&mut training, &some);
            let other = training.gradient().unwrap();
            for (what, direction) in [("the gradient", &gradient), ("part of it", &part), ("an example's", &other)] {
                let off = off_along(&mut training, &batch, &gradient, direction);
                println!("{model}, {name}, along {what}: off by {:.3} %", off * 100.0);
                assert!(off < 0.01, "{model}, {name}, along {what}: off by {:.2} %", off * 100.0);
            }
        }
    }
}

#[test]
fn padding_to_buckets_changes_nothing() {
    for model in MODELS {
        let encoder = encoder(&fixture(model));
        for (name, loss, texts) in cases() {
            let batch = texts.batch(&encoder);
            assert!(!batch.tokens().is_multiple_of(64), "{name}: nothing to fill up");
            let mut plain = session(&fixture(model), loss, options());
            let mut padded = session(&fixture(model), loss, options()).with_buckets(Buckets { length: 16, rows: 64 });
            let (a, b) = (still(&mut plain, &batch), still(&mut padded, &batch));
            let tolerance = 1e-5_f32.max(1e-6 * a.loss.abs());
            assert!((a.loss - b.loss).abs() <= tolerance, "{model}, {name}: {a:?}, {b:?}");
            let (g, h) = (plain.gradient().unwrap(), padded.gradient().unwrap());
            let largest = g.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
            let off = apart(&g, &h);
            assert!(off <= 1e-6 * largest.max(1.0), "{model}, {name}: off by {off}, largest {largest}");
        }
    }
}

#[test]
fn a_step_of_two_batches_takes_their_mean() {
    let folder = fixture("bert-mean");
    let encoder = encoder(&folder);
    let loss = loss(Objective::InBatch, 20.0, false);
    let batches = [Texts::new(|_| 1).batch(&encoder), Texts::new(|_| 1).without_negatives().batch(&encoder)];
    let mut single = session(&folder, loss, options());
    let losses = batches.each_ref().map(|batch| still(&mut single, batch).loss);
    let gradients = batches.each_ref().map(|batch| {
        still(&mut single, batch);
        single.gradient().unwrap()
    });
    let mean: Vec<f32> = gradients[0].iter().zip(&gradients[1]).map(|(a, b)| (a + b) / 2.0).collect();

    // Clipped to half of what it is.
    let clip = (dot(&mean, &mean).sqrt() / 2.0) as f32;
    let mut both = session(&folder, loss, TrainingOptions { accumulation: 2, clip, ..options() });
    let before = both.weights().unwrap();
    let update = both.step(&batches, 1e-3, 1).unwrap();
    assert!((update.loss - (losses[0] + losses[1]) / 2.0).abs() <= 1e-6, "{update:?}, {losses:?}");
    assert!((update.norm - dot(&mean, &mean).sqrt()).abs() <= 1e-6 * update.norm, "{update:?}");
    let sum: Vec<f32> = mean.iter().map(|g| 2.0 * g).collect();
    let largest = sum.iter().fold(0.0_f32, |largest, g| largest.max(g.abs()));
    assert!(apart(&both.gradient().unwrap(), &sum) <= 1e-6 * largest);

    // AdamW's first step: bias correction leaves the gradient over its size.
    let share = f64::from(clip) / (update.norm + 1e-6);
    let wanted: Vec<f32> = before
        .iter()
        .zip(&mean)
        .map(|(w, g)| {
            let g = f64::from(*g) * share;
            (f64::from(*w) - 1e-3 * g / (g.abs() + 1e-8)) as f32
        })
        .collect();
    let off = apart(&both.weights().unwrap(), &wanted);
    assert!(off <= 2e-6, "off by {off}");

    // What one step gathered is not in the next one.
    let update = both.step(&batches[..1], 0.0, 2).unwrap();
    both.restore(before, zeros(mean.len(), &single.moments().unwrap())).unwrap();
    let again = both.step(&batches[..1], 0.0, 1).unwrap();
    assert_ne!(update.loss, again.loss);
    assert_eq!(again.loss, losses[0]);
    assert_eq!(both.gradient().unwrap(), gradients[0]);
}

#[test]
fn dropout_is_repeated_by_its_seed_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    with_dropout("bert-mean", 0.1, &model);
    let encoder = encoder(&model);
    let loss = loss(Objective::InBatch, 5.0, false);
    // Of different shapes: which numbers are drawn must depend on the run alone.
    let batches = [Texts::new(|_| 1).batch(&encoder), Texts::new(|_| 1).without_negatives().batch(&encoder)];
    let losses = |options: TrainingOptions, runs: std::ops::Range<usize>| -> Vec<f32> {
        let mut training = session(&model, loss, options);
        runs.map(|run| still(&mut training, &batches[run % 2]).loss).collect()
    };
    let whole = losses(options(), 0..4);
    assert_eq!((whole[0], whole[1]), (whole[2], whole[3]), "nothing is dropped without a seed");

    let first = losses(dropping(7, 0), 0..400);
    assert!((2..400).all(|run| first[run] != first[run - 2]), "the same values are dropped in two runs");
    assert_eq!(losses(dropping(7, 0), 0..12), first[..12], "the same seed");
    assert_ne!(losses(dropping(8, 0), 0..12), first[..12], "another seed");
    for start in [1, 5, 10] {
        assert_eq!(losses(dropping(7, start as u64), start..start + 8), first[start..start + 8], "from {start} on");
    }
    for (number, whole) in whole[..2].iter().enumerate() {
        let some: Vec<f64> = first.iter().skip(number).step_by(2).map(|loss| f64::from(*loss)).collect();
        let mean = some.iter().sum::<f64>() / some.len() as f64;
        let off = (mean - f64::from(*whole)) / f64::from(*whole);
        println!("batch {number}: {whole} without dropout, {mean} with it");
        assert!(off.abs() < 0.1, "batch {number}: {mean} on average, {whole} without dropout");
    }
}

#[test]
fn a_configuration_without_dropout_drops_nothing() {
    let folder = fixture("bert-mean");
    let batch = Texts::new(|_| 1).batch(&encoder(&folder));
    let loss = loss(Objective::InBatch, 20.0, false);
    let plain = still(&mut session(&folder, loss, options()), &batch);
    assert_eq!(still(&mut session(&folder, loss, dropping(1, 0)), &batch), plain);
}

#[test]
fn batches_that_do_not_fit_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    with_dropout("bert-mean", 0.1, &model);
    let good = Texts::new(|_| 1).with_negatives_only().batch(&encoder(&model));
    let change = |change: fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        batch
    };
    let longest = change(|batch| batch.queries[0] = vec![7; 64]);
    let cases = [
        ("0 tokens", change(|batch| batch.queries[1].clear())),
        ("0 tokens", change(|batch| batch.documents[8][0].clear())),
        ("65 tokens; from 1 to 64", change(|batch| batch.documents[2][0] = vec![7; 65])),
        ("token 512, where the vocabulary has 512", change(|batch| batch.queries[3][0] = 512)),
        ("token 4294967295", change(|batch| batch.documents[3][0][1] = u32::MAX)),
        ("no examples", change(|batch| batch.examples.clear())),
        ("no examples", Batch::default()),
        ("query: 4", change(|batch| batch.examples[0].query = 4)),
        ("positive: 9", change(|batch| batch.examples[1].positive = 9)),
        ("negative: Some(9)", change(|batch| batch.examples[2].negative = Some(9))),
        ("0 passages", change(|batch| batch.documents[7].clear())),
        ("2 passages", change(|batch| batch.documents[6].push(vec![7]))),
        ("without a negative", change(|batch| batch.examples[3].negative = None)),
    ];
    let options = TrainingOptions { accumulation: 2, ..dropping(3, 0) };
    let loss = loss(Objective::Pairwise, 5.0, false);
    let mut untouched = session(&model, loss, options);
    let mut training = session(&model, loss, options);
    for (says, batch) in cases {
        // Behind a good batch too: the whole step counts or none of it, dropout included.
        for batches in [vec![batch.clone()], vec![good.clone(), batch.clone()]] {
            let error = training.step(&batches, 1e-3, 1).unwrap_err();
            assert!(matches!(&error, Error::Batch(reason) if reason.contains(says)), "{says}: {error}");
        }
    }
    assert!(training.step(&[], 1e-3, 1).unwrap_err().to_string().contains("0 batches"));
    for step in 1..=3 {
        let batches = [good.clone(), longest.clone()];
        assert_eq!(training.step(&batches, 1e-3, step).unwrap(), untouched.step(&batches, 1e-3, step).unwrap());
    }
    assert_eq!(training.weights().unwrap(), untouched.weights().unwrap());

    let mut single = session(&model, loss, dropping(3, 0));
    let error = single.step(&[good.clone(), good.clone()], 1e-3, 1).unwrap_err().to_string();
    assert!(error.contains("2 batches a step, made for 1"), "{error}");
    assert!(single.step(&[good], 1e-3, 1).unwrap().loss.is_finite());

    let weights = single.weights().unwrap();
    let moments = single.moments().unwrap();
    let error = single.restore(weights[1..].to_vec(), moments).unwrap_err().to_string();
    assert!(error.contains(&format!("{} elements", weights.len())), "{error}");
    assert_eq!(single.weights().unwrap(), weights);
}

#[test]
fn training_that_diverges_says_so_and_keeps_finite_weights() {
    let folder = fixture("bert-mean");
    let batch = Texts::new(|_| 1).batch(&encoder(&folder));
    let mut training = session(&folder, loss(Objective::InBatch, 20.0, false), options());
    let (mut step, mut before) = (1, training.weights().unwrap());
    let error = loop {
        match training.step(std::slice::from_ref(&batch), 1e15, step) {
            Ok(_) => before = training.weights().unwrap(),
            Err(error) => break error,
        }
        step += 1;
        assert!(step < 50, "a rate of 1e15 goes well");
    };
    assert!(matches!(error, Error::Diverged { step: named, .. } if named == step), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("diverged at step {step}")) && text.contains("lower the learning rate"), "{text}");
    assert!(step > 1);
    assert!(before.iter().all(|weight| weight.is_finite()));
    assert_eq!(training.weights().unwrap(), before);
}
