//! Batching of concurrent texts.
//!
//! No timer: the worker that owns the model takes all that waits, up to a token budget, whenever it is free; what
//! arrives while it runs makes up the next batch. Queries go before passages, but never starve them: after every run
//! of queries one run of passages follows where any wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::model::Model;
use super::{Error, Side};
use crate::telemetry::Metrics;

/// A batch may hold texts up to this many times as long as its shortest: longer ones would make it mostly padding.
const LENGTH_SPREAD: usize = 2;

/// Vectors of some texts and what they cost.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    /// One a text, in order; f32 of `[dimension]`.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, special ones included, padding not.
    pub tokens: usize,
    /// Stage by stage.
    pub times: EncodeTimes,
}

/// How long the stages of encoding took.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodeTimes {
    /// From the queue's entry to the start of the first run.
    pub queue: Duration,
    /// Text to token ids.
    pub tokenize: Duration,
    /// The runs of the model that these texts were part of.
    pub encode: Duration,
}

/// The texts of one caller.
#[derive(Debug)]
struct Request {
    entered: Instant,
    /// Texts whose vectors are not there yet.
    open: AtomicUsize,
    answer: Mutex<Answer>,
}

#[derive(Debug)]
struct Answer {
    encoded: Encoded,
    /// Taken when the answer is sent; none then.
    sender: Option<oneshot::Sender<Result<Encoded, Error>>>,
}

impl Request {
    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits for the answer any more.
    fn abandoned(&self) -> bool {
        self.answer().sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn fail(&self, error: Error) {
        if let Some(sender) = self.answer().sender.take() {
            // The caller may have gone.
            let _ = sender.send(Err(error));
        }
    }
}

/// One text in the queue.
#[derive(Debug)]
struct Item {
    request: Arc<Request>,
    /// Its place in the request.
    position: usize,
    ids: Vec<u32>,
}

/// What the queue and its worker share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    limit: usize,
    budgets: Budgets,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    queries: VecDeque<Item>,
    passages: VecDeque<Item>,
    closed: bool,
}

/// Tokens, padding included, that one run takes at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budgets {
    pub(super) queries: usize,
    pub(super) passages: usize,
}

/// The queue before one model, and the thread that runs it.
#[derive(Debug)]
pub(super) struct Queue {
    shared: Arc<Shared>,
    worker: Option<std::thread::JoinHandle<()>>,
}

impl Queue {
    /// Starts the worker thread. At most `limit` texts of queries wait; passages are bounded by their callers.
    pub(super) fn start(model: Model, limit: usize, budgets: Budgets, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let shared = Arc::new(Shared { state: Mutex::default(), arrived: Condvar::new(), limit, budgets, metrics });
        let of_worker = Arc::clone(&shared);
        let worker = std::thread::Builder::new()
            .name("encoder".into())
            .spawn(move || work(&Closing(of_worker).0, model))
            .map_err(Error::Thread)?;
        Ok(Self { shared, worker: Some(worker) })
    }

    /// Whether the worker still takes texts.
    pub(super) fn is_open(&self) -> bool {
        !self.shared.lock().closed
    }

    /// Texts that wait.
    pub(super) fn depth(&self) -> usize {
        let state = self.shared.lock();
        state.queries.len() + state.passages.len()
    }

    /// Puts texts, as token ids, into the queue; the receiver gets their vectors. Dropping it takes them out again.
    pub(super) fn submit(
        &self,
        texts: Vec<Vec<u32>>,
        side: Side,
        tokenize: Duration,
    ) -> Result<oneshot::Receiver<Result<Encoded, Error>>, Error> {
        let (sender, receiver) = oneshot::channel();
        let count = texts.len();
        let tokens = texts.iter().map(Vec::len).sum();
        let times = EncodeTimes { tokenize, ..EncodeTimes::default() };
        let encoded = Encoded { vectors: vec![Vec::new(); count], tokens, times };
        if count == 0 {
            let _ = sender.send(Ok(encoded));
            return Ok(receiver);
        }
        let request = Arc::new(Request {
            entered: Instant::now(),
            open: AtomicUsize::new(count),
            answer: Mutex::new(Answer { encoded, sender: Some(sender) }),
        });
        let items =
            texts.into_iter().enumerate().map(|(position, ids)| Item { request: Arc::clone(&request), position, ids });
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        match side {
            // A request larger than the whole queue is taken when the queue is empty, else it could never be answered.
            Side::Query if !state.queries.is_empty() && state.queries.len() + count > self.shared.limit => {
                return Err(Error::QueueFull { limit: self.shared.limit });
            }
            Side::Query => state.queries.extend(items),
            Side::Passage => state.passages.extend(items),
        }
        self.shared.metrics.encoder_queue_depth.add(count as i64);
        drop(state);
        self.shared.arrived.notify_one();
        Ok(receiver)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_all();
        if let Some(worker) = self.worker.take() {
            // A worker that panicked has nothing left to wait for.
            let _ = worker.join();
        }
    }
}

/// Closes the queue when its worker ends, also by a panic: nobody waits for an answer that cannot come.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let left = state.queries.len() + state.passages.len();
        self.0.metrics.encoder_queue_depth.sub(left as i64);
        // With its last text a request loses its sender, and its caller learns that the encoder is closed.
        state.queries.clear();
        state.passages.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for texts and takes a run's worth; none once the queue is closed and empty.
    fn take(&self, last: Side) -> Option<(Side, Vec<Item>)> {
        let mut state = self.lock();
        loop {
            let side = match (state.queries.is_empty(), state.passages.is_empty()) {
                (true, true) if state.closed => return None,
                (true, true) => {
                    state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                (false, true) => Side::Query,
                (true, false) => Side::Passage,
                (false, false) if last == Side::Query => Side::Passage,
                (false, false) => Side::Query,
            };
            let (lane, budget) = match side {
                Side::Query => (&mut state.queries, self.budgets.queries),
                Side::Passage => (&mut state.passages, self.budgets.passages),
            };
            let before = lane.len();
            let items = take_up_to(lane, budget);
            self.metrics.encoder_queue_depth.sub((before - lane.len()) as i64);
            if !items.is_empty() {
                return Some((side, items));
            }
        }
    }
}

/// Takes texts from the front up to `budget` tokens, at least one; those whose caller has gone are dropped.
fn take_up_to(lane: &mut VecDeque<Item>, budget: usize) -> Vec<Item> {
    let mut items = Vec::new();
    let mut tokens = 0;
    while let Some(item) = lane.front() {
        if item.request.abandoned() {
            lane.pop_front();
            continue;
        }
        if !items.is_empty() && tokens + item.ids.len() > budget {
            break;
        }
        tokens += item.ids.len();
        items.extend(lane.pop_front());
    }
    items
}

/// Cuts texts, sorted by length, into batches of similar length that stay within `budget` tokens with their padding.
fn batches(mut items: Vec<Item>, budget: usize) -> Vec<Vec<Item>> {
    items.sort_by_key(|item| item.ids.len());
    let mut batches: Vec<Vec<Item>> = Vec::new();
    for item in items {
        let length = item.ids.len();
        match batches.last_mut() {
            Some(batch)
                if (batch.len() + 1) * length <= budget
                    && batch.first().is_some_and(|first| length <= LENGTH_SPREAD * first.ids.len().max(8)) =>
            {
                batch.push(item);
            }
            _ => batches.push(vec![item]),
        }
    }
    batches
}

fn work(shared: &Shared, mut model: Model) {
    let mut last = Side::Passage;
    while let Some((side, items)) = shared.take(last) {
        last = side;
        let budget = match side {
            Side::Query => shared.budgets.queries,
            Side::Passage => shared.budgets.passages,
        };
        for batch in batches(items, budget) {
            run(shared, &mut model, batch);
        }
    }
}

fn run(shared: &Shared, model: &mut Model, batch: Vec<Item>) {
    let started = Instant::now();
    let ids: Vec<&[u32]> = batch.iter().map(|item| item.ids.as_slice()).collect();
    let longest = ids.iter().map(|ids| ids.len()).max().unwrap_or(0);
    shared.metrics.encoder_batch_queries.observe(ids.len() as f64);
    shared.metrics.encoder_batch_tokens.observe((ids.len() * longest) as f64);
    match model.run(&ids) {
        Ok(vectors) => {
            let took = started.elapsed();
            for (item, vector) in batch.iter().zip(vectors) {
                deliver(item, vector, started, took);
            }
        }
        // One of them may be to blame, and the others are somebody else's.
        Err(error) if batch.len() > 1 => {
            tracing::warn!(%error, texts = batch.len(), "a run of the encoder failed, its texts are run one by one");
            for item in batch {
                run(shared, model, vec![item]);
            }
        }
        Err(error) => {
            tracing::error!(%error, "the encoder failed");
            if let Some(item) = batch.first() {
                item.request.fail(error);
            }
        }
    }
}

/// Hands a vector to its request and answers it when it was the last.
fn deliver(item: &Item, vector: Vec<f32>, started: Instant, took: Duration) {
    let request = &item.request;
    let mut answer = request.answer();
    let open = request.open.fetch_sub(1, Ordering::AcqRel);
    let waited = started.saturating_duration_since(request.entered);
    let first = answer.encoded.vectors.iter().all(Vec::is_empty);
    let times = &mut answer.encoded.times;
    if first {
        times.queue = waited;
    }
    // Texts of one request in the same batch share a run: the time since entry less the wait is what it cost.
    times.encode =
        times.encode.max((started + took).saturating_duration_since(request.entered).saturating_sub(times.queue));
    if let Some(slot) = answer.encoded.vectors.get_mut(item.position) {
        *slot = vector;
    }
    if open == 1 {
        let encoded = std::mem::take(&mut answer.encoded);
        if let Some(sender) = answer.sender.take() {
            // The caller may have gone.
            let _ = sender.send(Ok(encoded));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Checkpoint, Overrides};
    use crate::onnx::{Placement, Runtime};
    use crate::settings::Precision;

    fn item(length: usize) -> (Item, oneshot::Receiver<Result<Encoded, Error>>) {
        let (sender, receiver) = oneshot::channel();
        let answer = Mutex::new(Answer { encoded: Encoded::default(), sender: Some(sender) });
        let request = Arc::new(Request { entered: Instant::now(), open: AtomicUsize::new(1), answer });
        (Item { request, position: 0, ids: vec![7; length] }, receiver)
    }

    #[test]
    fn a_text_that_cannot_be_encoded_fails_alone() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/bert-mean");
        let checkpoint = Checkpoint::open(&folder, &Overrides::default()).unwrap();
        let runtime = Runtime::load(None, 1).unwrap();
        let mut model = Model::open(&runtime, Placement::Cpu, Precision::Auto, &checkpoint).unwrap();
        let budgets = Budgets { queries: 100, passages: 100 };
        let metrics = Arc::new(Metrics::new().unwrap());
        let shared = Shared { state: Mutex::default(), arrived: Condvar::new(), limit: 9, budgets, metrics };
        let (mut items, mut receivers): (Vec<_>, Vec<_>) = [3, 4, 5].map(item).into_iter().unzip();
        for item in &items {
            item.request.answer().encoded.vectors = vec![Vec::new()];
        }
        // No vocabulary has it.
        items[1].ids[0] = 1 << 30;
        run(&shared, &mut model, items);
        let answers: Vec<_> = receivers.iter_mut().map(|receiver| receiver.try_recv().unwrap()).collect();
        assert_eq!(answers[0].as_ref().unwrap().vectors[0].len(), checkpoint.dimension);
        assert!(matches!(&answers[1], Err(Error::Onnx(_))), "{:?}", answers[1]);
        assert_eq!(answers[2].as_ref().unwrap().vectors[0].len(), checkpoint.dimension);
    }

    #[test]
    fn a_run_takes_what_fits_and_skips_those_who_left() {
        let (items, mut receivers): (VecDeque<_>, Vec<_>) = [10, 20, 30, 40].map(item).into_iter().unzip();
        let mut lane = items;
        drop(receivers.remove(1));
        let taken = take_up_to(&mut lane, 45);
        assert_eq!(taken.iter().map(|item| item.ids.len()).collect::<Vec<_>>(), [10, 30]);
        assert_eq!(lane.len(), 1);
        assert_eq!(take_up_to(&mut lane, 1).len(), 1, "a text over the budget still runs, alone");
    }

    #[test]
    fn batches_hold_similar_lengths_within_the_budget() {
        let (items, _receivers): (Vec<_>, Vec<_>) = [200, 5, 6, 7, 9, 100, 110, 8].map(item).into_iter().unzip();
        let lengths: Vec<Vec<usize>> =
            batches(items, 250).iter().map(|batch| batch.iter().map(|item| item.ids.len()).collect()).collect();
        assert_eq!(lengths, [vec![5, 6, 7, 8, 9], vec![100, 110], vec![200]]);
    }
}
