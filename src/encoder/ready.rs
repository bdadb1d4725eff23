//! An encoder: a checkpoint made ready to run.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::model::Model;
use super::queue::{Budgets, Queue};
use super::text::TextEncoder;
use super::{Checkpoint, Encoded, Error, Overrides, Side};
use crate::onnx::{Placement, Runtime};
use crate::settings::{Device, Precision, Settings};
use crate::telemetry::Metrics;

/// On a CPU a run of passages is kept this short, in tokens, so that queries never wait long behind one.
const CPU_PASSAGE_TOKENS: usize = 256;

/// Comes when the texts are encoded.
type Answer = oneshot::Receiver<Result<Encoded, Error>>;

/// How an encoder runs, whichever checkpoint it is made of.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// Where.
    pub device: Device,
    /// In which arithmetic.
    pub precision: Precision,
    /// Tokens, padding included, of one run at most.
    pub token_budget: usize,
    /// Texts of queries that may wait.
    pub queue_limit: usize,
    /// What is set over the checkpoint.
    pub overrides: Overrides,
}

impl From<&Settings> for EncoderOptions {
    fn from(settings: &Settings) -> Self {
        Self {
            device: settings.device,
            precision: settings.precision,
            token_budget: settings.token_budget,
            queue_limit: settings.queue_limit,
            overrides: Overrides {
                pooling: settings.pooling,
                similarity: settings.similarity,
                max_seq_length: settings.max_seq_length,
                separator: settings.separator.clone(),
                chunks: (settings.chunks > 1).then_some(settings.chunks),
            },
        }
    }
}

/// Text in, vectors out; shared by any number of callers.
#[derive(Debug)]
pub struct Encoder {
    checkpoint: Checkpoint,
    text: Arc<TextEncoder>,
    queue: Queue,
    placement: Placement,
    precision: &'static str,
    dimension: usize,
}

impl Encoder {
    /// Opens a checkpoint folder and runs it once, so that a checkpoint that cannot answer is found out here.
    ///
    /// # Errors
    /// Whatever keeps the checkpoint from answering: files, tensors, device, runtime.
    pub fn open(
        folder: &Path,
        options: &EncoderOptions,
        runtime: &Runtime,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Error> {
        let checkpoint = Checkpoint::open(folder, &options.overrides)?;
        let text = Arc::new(TextEncoder::open(&checkpoint, checkpoint.max_seq_length)?);
        let placement = runtime.place(options.device)?;
        let model = Model::open(runtime, placement, options.precision, &checkpoint)?;
        let dimension = model.dimension();
        let precision = model.precision;
        let budgets = Budgets {
            queries: options.token_budget,
            passages: match placement {
                Placement::Cpu => options.token_budget.min(CPU_PASSAGE_TOKENS),
                Placement::Cuda(_) => options.token_budget,
            },
        };
        let queue = Queue::start(model, options.queue_limit, budgets, Arc::clone(metrics))?;
        let encoder = Self { checkpoint, text, queue, placement, precision, dimension };
        encoder.warm()?;
        Ok(encoder)
    }

    /// Runs one text of every length bucket: the first run of a new shape is slow.
    fn warm(&self) -> Result<(), Error> {
        let mut length = 8;
        let mut texts = vec![String::new()];
        while length < self.checkpoint.max_seq_length {
            texts.push("a ".repeat(length));
            length *= 2;
        }
        for text in texts {
            self.encode_blocking(vec![text], Side::Query)?;
        }
        Ok(())
    }

    /// Encodes texts together with whatever else waits. Dropping the future takes them out of the queue.
    ///
    /// # Errors
    /// A full queue (queries only), a tokenizer or runtime that fails, a closed encoder.
    pub async fn encode(&self, texts: Vec<String>, side: Side) -> Result<Encoded, Error> {
        let started = Instant::now();
        let ids = match (side, texts.len()) {
            (Side::Query, ..=1) => self.text.tokenize(&texts, side)?,
            _ => self.apart(move |text| text.tokenize(&texts, side)).await?,
        };
        self.queue.submit(ids, side, started.elapsed())?.await.map_err(|_| Error::Closed)?
    }

    /// As [`encode`](Self::encode), for threads outside the asynchronous runtime.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_blocking(&self, texts: Vec<String>, side: Side) -> Result<Encoded, Error> {
        let started = Instant::now();
        let ids = self.text.tokenize(&texts, side)?;
        self.queue.submit(ids, side, started.elapsed())?.blocking_recv().map_err(|_| Error::Closed)?
    }

    /// Encodes documents, each in as many pieces as the checkpoint cuts it into: `[documents][pieces][dimension]`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub async fn encode_passages(&self, texts: &[String]) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let (started, texts) = (Instant::now(), texts.to_vec());
        let pieces = self.apart(move |text| text.pieces(&texts)).await?;
        let (counts, receiver) = self.submit_pieces(pieces, started)?;
        Ok(by_document(receiver.await.map_err(|_| Error::Closed)??, &counts))
    }

    /// As [`encode_passages`](Self::encode_passages), for threads outside the asynchronous runtime.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_passages_blocking(&self, texts: &[String]) -> Result<Vec<Vec<Vec<f32>>>, Error> {
        let started = Instant::now();
        let (counts, receiver) = self.submit_pieces(self.text.pieces(texts)?, started)?;
        Ok(by_document(receiver.blocking_recv().map_err(|_| Error::Closed)??, &counts))
    }

    fn submit_pieces(&self, pieces: Vec<Vec<Vec<u32>>>, started: Instant) -> Result<(Vec<usize>, Answer), Error> {
        let counts = pieces.iter().map(Vec::len).collect();
        let answer = self.queue.submit(pieces.into_iter().flatten().collect(), Side::Passage, started.elapsed())?;
        Ok((counts, answer))
    }

    /// Tokenises on a thread that may be held up: many texts, or long ones, take longer than other requests may wait.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TextEncoder) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let text = Arc::clone(&self.text);
        match tokio::task::spawn_blocking(move || work(&text)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down.
            Err(_) => Err(Error::Closed),
        }
    }

    /// As [`encode_blocking`](Self::encode_blocking), for texts that were tokenised before.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_tokens(&self, ids: Vec<Vec<u32>>, side: Side) -> Result<Encoded, Error> {
        let receiver = self.queue.submit(ids, side, std::time::Duration::ZERO)?;
        receiver.blocking_recv().map_err(|_| Error::Closed)?
    }

    /// The token ids of some texts, special tokens included, as the model reads them.
    ///
    /// # Errors
    /// A tokenizer that fails.
    pub fn tokenize(&self, texts: &[String], side: Side) -> Result<Vec<Vec<u32>>, Error> {
        self.text.tokenize(texts, side)
    }

    /// What it is made of.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Components of a vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Where it really runs.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// What it computes in: `fp32`, `fp16`, or `file` for a folder's own ONNX file.
    pub fn precision(&self) -> &'static str {
        self.precision
    }

    /// Whether it takes texts: false once its thread ended, which only a bug in the runtime brings about.
    pub fn is_open(&self) -> bool {
        self.queue.is_open()
    }

    /// Texts that wait.
    pub fn queue_depth(&self) -> usize {
        self.queue.depth()
    }
}

/// Vectors of pieces, one document after the other, by document.
fn by_document(encoded: Encoded, counts: &[usize]) -> Vec<Vec<Vec<f32>>> {
    let mut vectors = encoded.vectors.into_iter();
    counts.iter().map(|&count| vectors.by_ref().take(count).collect()).collect()
}
