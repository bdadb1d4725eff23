//! A batch of texts as the inputs of a step's graph.

use crate::onnx::{Error, Objective, Placement, Task};

/// Texts of a batch by token ids, special tokens included, and what is to be learnt from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Queries.
    pub queries: Vec<Vec<u32>>,
    /// Documents, each one or several passages.
    pub documents: Vec<Vec<Vec<u32>>>,
    /// Queries with their documents.
    pub examples: Vec<Example>,
    /// Documents that are no negatives of a query, as (query, document): other positives of it.
    pub judged: Vec<(usize, usize)>,
}

/// A query, a document that answers it and one that does not, by their places in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// The query.
    pub query: usize,
    /// Its positive.
    pub positive: usize,
    /// Its negative, where one was mined.
    pub negative: Option<usize>,
}

/// What lengths are rounded up to, so that few shapes occur: on a GPU each new one costs a search for kernels.
///
/// What is added are padding in attention, and texts of padding whose vectors nothing is learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// Tokens of the longest text of a segment.
    pub length: usize,
    /// Tokens of all texts.
    pub rows: usize,
}

impl Buckets {
    /// No rounding on the CPU.
    pub(super) fn of(placement: Placement) -> Self {
        match placement {
            Placement::Cpu => Self { length: 1, rows: 1 },
            Placement::Cuda(_) => Self { length: 16, rows: 512 },
        }
    }
}

/// Values of an input.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Integers(Vec<i64>),
    Floats(Vec<f32>),
}

/// An input by name, with its shape.
pub(super) type Input = (&'static str, Vec<usize>, Values);

impl Batch {
    /// Tokens of all texts.
    pub fn tokens(&self) -> usize {
        let passages = self.documents.iter().flatten();
        self.queries.iter().chain(passages).map(Vec::len).sum()
    }

    /// The inputs of the graph of `task`.
    ///
    /// # Errors
    /// A batch that the graph would read wrongly: a text without tokens or with more than there are positions, a token
    /// that the vocabulary does not have, a place that no text has, no examples, several passages of a document where
    /// the loss takes one.
    pub(super) fn inputs(&self, task: &Task, buckets: Buckets) -> Result<Vec<Input>, Error> {
        self.check(task)?;
        let mut passages: Vec<&Vec<u32>> = self.documents.iter().flatten().collect();
        let queries: Vec<&Vec<u32>> = self.queries.iter().collect();
        // Any token would do: what follows from these texts is never used.
        let filling = buckets.filling(self.tokens(), &passages);
        passages.extend(&filling);
        let mut rows = Rows::new(task, buckets);
        let query = rows.add(&queries);
        let passage = rows.add(&passages);
        let count = rows.ids.len();
        let list = |name, values| (name, vec![count], Values::Integers(values));
        let mut inputs = vec![
            list("ids", rows.ids),
            list("positions", rows.positions),
            list("cells", rows.cells),
            list("head_cells", rows.head_cells),
            list("strides", rows.strides),
            ("query.rows", query.shape.to_vec(), Values::Integers(query.rows)),
            ("query.mask", query.shape.to_vec(), Values::Integers(query.mask)),
            ("passage.rows", passage.shape.to_vec(), Values::Integers(passage.rows)),
            ("passage.mask", passage.shape.to_vec(), Values::Integers(passage.mask)),
        ];
        if task.loss.chunks {
            self.chunks(&mut inputs);
        }
        match task.loss.objective {
            // Without chunks every passage is a document, the filling included.
            Objective::Pairwise if task.loss.chunks => self.pairs(&mut inputs, self.documents.len())?,
            Objective::Pairwise => self.pairs(&mut inputs, passage.shape[0])?,
            Objective::InBatch if task.loss.chunks => self.rows(&mut inputs, self.documents.len()),
            Objective::InBatch => self.rows(&mut inputs, passage.shape[0]),
        }
        Ok(inputs)
    }

    fn check(&self, task: &Task) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::Batch(reason));
        let longest = task.config.positions.saturating_sub(task.config.first_position);
        for text in self.queries.iter().chain(self.documents.iter().flatten()) {
            if text.is_empty() || text.len() > longest {
                return refuse(format!("a text of {} tokens; from 1 to {longest} can be trained on", text.len()));
            }
            if let Some(id) = text.iter().find(|id| **id as usize >= task.config.vocabulary) {
                return refuse(format!("token {id}, where the vocabulary has {}", task.config.vocabulary));
            }
        }
        if self.examples.is_empty() {
            return refuse("no examples".into());
        }
        let documents = self.documents.len();
        let known = |example: &Example| {
            example.query < self.queries.len()
                && example.positive < documents
                && example.negative.is_none_or(|negative| negative < documents)
        };
        if let Some(example) = self.examples.iter().find(|example| !known(example)) {
            return refuse(format!("{example:?} among {} queries and {documents} documents", self.queries.len()));
        }
        if let Some(chunks) =
            self.documents.iter().map(Vec::len).find(|&chunks| chunks == 0 || (chunks > 1 && !task.loss.chunks))
        {
            return refuse(format!("a document of {chunks} passages, which the loss does not take"));
        }
        Ok(())
    }

    fn chunks(&self, inputs: &mut Vec<Input>) {
        let most = self.documents.iter().map(Vec::len).max().unwrap_or(1);
        let shape = vec![self.documents.len(), most];
        let (mut places, mut kept) = (Vec::new(), Vec::new());
        let mut first = 0_i64;
        for document in &self.documents {
            let count = document.len();
            places.extend((0..most).map(|chunk| if chunk < count { first + chunk as i64 } else { first }));
            kept.extend((0..most).map(|chunk| if chunk < count { 1.0 } else { 0.0 }));
            first += count as i64;
        }
        inputs.push(("chunk.passages", shape.clone(), Values::Integers(places)));
        inputs.push(("chunk.kept", shape, Values::Floats(kept)));
    }

    fn pairs(&self, inputs: &mut Vec<Input>, documents: usize) -> Result<(), Error> {
        let (mut positive, mut negative) = (Vec::new(), Vec::new());
        for example in &self.examples {
            let Some(other) = example.negative else {
                return Err(Error::Batch("an example without a negative, which the pairwise loss needs".into()));
            };
            positive.push((example.query * documents + example.positive) as i64);
            negative.push((example.query * documents + other) as i64);
        }
        inputs.push(("pair.positive", vec![self.examples.len()], Values::Integers(positive)));
        inputs.push(("pair.negative", vec![self.examples.len()], Values::Integers(negative)));
        Ok(())
    }

    fn rows(&self, inputs: &mut Vec<Input>, documents: usize) {
        let count = self.examples.len();
        let real = self.documents.len();
        let mut kept: Vec<f32> =
            (0..count * documents).map(|at| if at % documents < real { 1.0 } else { 0.0 }).collect();
        for (row, example) in self.examples.iter().enumerate() {
            for &(query, document) in &self.judged {
                if query == example.query && document != example.positive && document < documents {
                    kept[row * documents + document] = 0.0;
                }
            }
        }
        let of =
            |place: fn(&Example) -> usize| Values::Integers(self.examples.iter().map(|e| place(e) as i64).collect());
        inputs.push(("rows.query", vec![count], of(|example| example.query)));
        inputs.push(("rows.positive", vec![count], of(|example| example.positive)));
        inputs.push(("rows.kept", vec![count, documents], Values::Floats(kept)));
    }
}

impl Buckets {
    /// Texts that fill the rows up, none longer than the longest passage.
    fn filling(&self, tokens: usize, passages: &[&Vec<u32>]) -> Vec<Vec<u32>> {
        let longest = passages.iter().map(|text| text.len()).max().unwrap_or(1);
        let mut missing = tokens.next_multiple_of(self.rows.max(1)) - tokens;
        let mut filling = Vec::new();
        while missing > 0 {
            let length = missing.min(longest);
            filling.push(vec![0; length]);
            missing -= length;
        }
        filling
    }
}

/// Tokens of all texts in one list, and their cells (see [`packed`](crate::onnx::bert)).
#[derive(Debug)]
struct Rows {
    /// Lengths of segments are multiples of it.
    length: usize,
    /// Or this, where the multiple would be longer.
    longest: usize,
    first_position: i64,
    heads: i64,
    ids: Vec<i64>,
    positions: Vec<i64>,
    cells: Vec<i64>,
    head_cells: Vec<i64>,
    strides: Vec<i64>,
    /// Cells of the segments so far.
    used: i64,
}

#[derive(Debug)]
struct Cells {
    shape: [usize; 2],
    rows: Vec<i64>,
    mask: Vec<i64>,
}

impl Rows {
    fn new(task: &Task, buckets: Buckets) -> Self {
        Self {
            length: buckets.length.max(1),
            longest: task.config.positions,
            first_position: task.config.first_position as i64,
            heads: task.config.heads as i64,
            ids: Vec::new(),
            positions: Vec::new(),
            cells: Vec::new(),
            head_cells: Vec::new(),
            strides: Vec::new(),
            used: 0,
        }
    }

    /// Adds a segment of texts, padded to its longest.
    fn add(&mut self, texts: &[&Vec<u32>]) -> Cells {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let length = longest.next_multiple_of(self.length).min(self.longest.max(longest));
        let mut cells = Cells {
            shape: [texts.len(), length],
            rows: vec![0; texts.len() * length],
            mask: vec![0; texts.len() * length],
        };
        for (number, text) in texts.iter().enumerate() {
            for (at, &id) in text.iter().enumerate() {
                let cell = number * length + at;
                cells.rows[cell] = self.ids.len() as i64;
                cells.mask[cell] = 1;
                self.ids.push(i64::from(id));
                self.positions.push(self.first_position + at as i64);
                self.cells.push(self.used + cell as i64);
                let first_head = (number as i64) * self.heads * length as i64 + at as i64;
                self.head_cells.push(self.used * self.heads + first_head);
                self.strides.push(length as i64);
            }
        }
        self.used += (texts.len() * length) as i64;
        cells
    }
}
