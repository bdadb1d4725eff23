//! What a run learns from and is measured by, by token ids: a snapshot of the store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::replace;
use super::{Error, Event, Listener};
use crate::corpus::{Judgment, Query, Split, Store, View, loose_key};
use crate::encoder::{Checkpoint, Side, TextEncoder};
use crate::evaluation::JudgedSplit;

/// Documents read and tokenised at once.
const PAGE: usize = 4096;

/// After how many tokens texts are cut, special ones included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// Of queries.
    pub query: usize,
    /// Of passages.
    pub passage: usize,
}

/// A query by token ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrainQuery {
    /// As the user wrote it, for BM25.
    pub(super) text: String,
    pub(super) ids: Vec<u32>,
    /// Documents with a grade of at least 1 for this query or another that reads the same, in the order of their numbers.
    pub(super) positives: Vec<usize>,
    /// Answers, where the set has them: no document that contains one is a negative.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) answers: Vec<String>,
}

/// Documents, train queries and dev queries of a store.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingData {
    /// The documents' own ids by number.
    pub(super) names: Vec<String>,
    /// The passage of each document, in one or several pieces.
    pub(super) passages: Vec<Vec<Vec<u32>>>,
    /// The sequence of each document whose passage is what a generation of the same checkpoint encodes too: cut by
    /// neither, or by both at the same place. None for documents of several pieces.
    pub(super) sequences: Vec<Option<u64>>,
    /// Queries with at least one positive that is there, in the order of their ids.
    pub(super) train: Vec<TrainQuery>,
    /// The names and token ids of dev queries, those that a generation is measured with.
    pub(super) dev: Vec<(String, Vec<u32>)>,
    pub(super) judgments: Vec<Judgment>,
}

impl TrainingData {
    /// As [`read`](Self::read), but once a run: a run that goes on finds what it began with in `file`, whatever was
    /// written to the store since.
    ///
    /// # Errors
    /// As [`read`](Self::read), and a file that cannot be written or is damaged.
    pub(super) fn kept(
        file: &Path,
        store: &Store,
        checkpoint: &Checkpoint,
        lengths: Lengths,
        listener: Listener<'_>,
    ) -> Result<Self, Error> {
        match File::open(file) {
            Ok(kept) => serde_json::from_reader(BufReader::new(kept))
                .map_err(|error| Error::State { file: file.to_path_buf(), reason: error.to_string() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let data = Self::read(store, checkpoint, lengths, listener)?;
                data.keep(file)?;
                Ok(data)
            }
            Err(error) => Err(Error::io(file)(error)),
        }
    }

    fn keep(&self, file: &Path) -> Result<(), Error> {
        replace(file, |place| {
            let mut writer = BufWriter::new(File::create(place).map_err(Error::io(place))?);
            let written = serde_json::to_writer(&mut writer, self).map_err(std::io::Error::from);
            written.and_then(|()| writer.flush()).map_err(Error::io(place))
        })
    }

    /// Reads and tokenises what the store holds now, all of it as of one moment: of a document that is written meanwhile
    /// there would be two, and the one that is no positive of its query a negative.
    ///
    /// # Errors
    /// A store that cannot be read, a tokenizer that fails, no train query whose positive is there, an error of
    /// `listener`.
    pub fn read(
        store: &Store,
        checkpoint: &Checkpoint,
        lengths: Lengths,
        listener: Listener<'_>,
    ) -> Result<Self, Error> {
        let view = store.view()?;
        let passages_of = TextEncoder::open(checkpoint, lengths.passage)?;
        let queries_of = TextEncoder::open(checkpoint, lengths.query)?;
        let (mut names, mut passages, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        let is_cut_alike = passages_of.length() == checkpoint.max_seq_length;
        let mut after = 0;
        loop {
            let page = view.current(after, PAGE)?;
            let Some(last) = page.last() else { break };
            listener(Event::Alive)?;
            after = last.sequence;
            let texts: Vec<String> =
                page.iter().map(|stored| checkpoint.passage(&stored.document.title, &stored.document.text)).collect();
            let pieces = passages_of.pieces(&texts)?;
            sequences.extend(page.iter().zip(texts.iter().zip(&pieces)).map(|(stored, (text, pieces))| {
                let [ids] = pieces.as_slice() else { return None };
                (is_cut_alike || passages_of.is_whole(text, ids)).then_some(stored.sequence)
            }));
            passages.extend(pieces);
            names.extend(page.into_iter().map(|stored| stored.document.id));
        }
        let train = train_queries(&view, &names, &queries_of)?;
        // The queries of the gate, so that the measures of a round and of a generation can be compared.
        let JudgedSplit { queries, judgments } = JudgedSplit::of(view.judged_queries(Split::Dev)?);
        warn_of_measured(&train, &queries, Split::Dev);
        let test: Vec<Query> = view.judged_queries(Split::Test)?.into_iter().map(|(query, _)| query).collect();
        warn_of_measured(&train, &test, Split::Test);
        let texts: Vec<String> = queries.iter().map(|query| query.text.clone()).collect();
        let ids = queries_of.tokenize(&texts, Side::Query)?;
        let dev = queries.into_iter().map(|query| query.id).zip(ids).collect();
        Ok(Self { names, passages, sequences, train, dev, judgments })
    }

    /// How many documents, train queries and dev queries there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.names.len(), self.train.len(), self.dev.len())
    }
}

/// The train queries of which a positive is among the documents `names`.
fn train_queries(view: &View<'_>, names: &[String], encoder: &TextEncoder) -> Result<Vec<TrainQuery>, Error> {
    let numbers: HashMap<&str, usize> =
        names.iter().enumerate().map(|(number, name)| (name.as_str(), number)).collect();
    let mut train = Vec::new();
    for (Query { text, answers, .. }, judgments) in view.judged_queries(Split::Train)? {
        let relevant = judgments.iter().filter(|judgment| judgment.grade >= 1);
        let mut positives: Vec<usize> =
            relevant.filter_map(|judgment| numbers.get(judgment.document.as_str()).copied()).collect();
        positives.sort_unstable();
        if !positives.is_empty() {
            train.push(TrainQuery { text, ids: Vec::new(), positives, answers });
        }
    }
    if train.is_empty() {
        let reason = "no train query has a positive among the documents; import train judgments or send feedback";
        return Err(Error::Data(reason.into()));
    }
    let texts: Vec<String> = train.iter().map(|query| query.text.clone()).collect();
    for (query, ids) in train.iter_mut().zip(encoder.tokenize(&texts, Side::Query)?) {
        query.ids = ids;
    }
    join_positives(&mut train);
    Ok(train)
}

/// Gives queries that read the same, by their tokens or but for case and white space, the positives of all of them: what
/// answers one is no negative of another.
fn join_positives(train: &mut [TrainQuery]) {
    // Each query's group, by the number of a query in it.
    let mut groups: Vec<usize> = (0..train.len()).collect();
    let root = |groups: &[usize], mut at: usize| {
        while groups[at] != at {
            at = groups[at];
        }
        at
    };
    let (mut by_ids, mut by_text) = (HashMap::new(), HashMap::new());
    for (at, query) in train.iter().enumerate() {
        let alike = [*by_ids.entry(&query.ids).or_insert(at), *by_text.entry(loose_key(&query.text)).or_insert(at)];
        for other in alike {
            let (one, other) = (root(&groups, at), root(&groups, other));
            groups[one.max(other)] = one.min(other);
        }
    }
    let mut joined: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    for (at, query) in train.iter().enumerate() {
        joined.entry(root(&groups, at)).or_default().extend(&query.positives);
    }
    for (at, query) in train.iter_mut().enumerate() {
        query.positives = joined.get(&root(&groups, at)).into_iter().flatten().copied().collect();
    }
}

/// What is learned by heart must not pass for what is found: files may judge one text in two splits.
fn warn_of_measured(train: &[TrainQuery], others: &[Query], split: Split) {
    let queries = measured(train, others);
    if queries > 0 {
        tracing::warn!(
            queries,
            "train queries have the text of a {split} query: measures on {split} are better than those of unseen queries; \
             judge each text in one split"
        );
    }
}

/// How many train queries have the text of one of these, whatever its case and white space.
fn measured(train: &[TrainQuery], others: &[Query]) -> usize {
    let others: HashSet<_> = others.iter().map(|query| loose_key(&query.text)).collect();
    train.iter().filter(|query| others.contains(&loose_key(&query.text))).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Document, Feedback, Grade, Query, Source};
    use crate::encoder::Overrides;
    use crate::evaluation::judged_split;

    /// A thumb down alone says that a hit was wrong, not that nothing could be found: it has no measure.
    #[test]
    fn rounds_are_measured_with_the_queries_of_the_gate() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let document = |id: &str| Document {
            id: id.into(),
            title: String::new(),
            text: format!("dense retrieval {id}"),
            metadata: serde_json::Map::new(),
        };
        store.write(&["d1", "d2"].map(document)).unwrap();
        let judgment = |(query, split): (&str, Split)| Judgment {
            query: query.into(),
            document: "d1".into(),
            grade: 1,
            split,
            source: Source::File,
        };
        let query = |id: &str| Query { id: id.into(), text: format!("query {id}"), answers: Vec::new() };
        store.write_queries(&["train", "dev"].map(query)).unwrap();
        store.write_judgments(&[("train", Split::Train), ("dev", Split::Dev)].map(judgment)).unwrap();
        for (query, grade) in [("a wrong hit", 0), ("a right hit", 1)] {
            let grade = Grade::new(grade).unwrap();
            let vote = Feedback { query: query.into(), document: "d2".into(), grade, replaces: None };
            store.write_feedback(&vote, 1.0).unwrap().unwrap();
        }
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/bert-mean");
        let checkpoint = Checkpoint::open(&model, &Overrides::default()).unwrap();
        let data = TrainingData::read(&store, &checkpoint, Lengths { query: 16, passage: 16 }, &mut |_| Ok(()));
        let data = data.unwrap();
        let gate = judged_split(&store, Split::Dev).unwrap();
        assert_eq!(
            data.dev.iter().map(|(id, _)| id).collect::<Vec<_>>(),
            gate.queries.iter().map(|query| &query.id).collect::<Vec<_>>()
        );
        assert_eq!((data.dev.len(), &data.judgments), (2, &gate.judgments));
    }

    #[test]
    fn a_text_of_both_splits_is_noticed() {
        let query = |text: &str| TrainQuery { text: text.into(), ..TrainQuery::default() };
        let train = [query("List files"), query("remove a folder"), query(" list  FILES ")];
        let other = |text: &str| Query { id: text.into(), text: text.into(), answers: Vec::new() };
        assert_eq!(measured(&train, &[other("list files"), other("copy")]), 2);
        assert_eq!(measured(&train, &[other("list")]), 0);
    }

    #[test]
    fn queries_that_read_the_same_share_their_positives() {
        let query = |text: &str, ids: &[u32], positives: &[usize]| TrainQuery {
            text: text.into(),
            ids: ids.to_vec(),
            positives: positives.to_vec(),
            answers: Vec::new(),
        };
        let mut train = [
            query("List files", &[1, 2], &[7]),
            query("copy a file", &[4], &[5]),
            query("list the files", &[3, 2], &[9]),
            // Other tokens and the same text, then the same tokens and another text.
            query("list  FILES", &[3, 2], &[2, 7]),
            query("copy", &[4], &[5, 6]),
        ];
        join_positives(&mut train);
        let positives = train.map(|query| query.positives);
        assert_eq!(positives, [vec![2, 7, 9], vec![5, 6], vec![2, 7, 9], vec![2, 7, 9], vec![5, 6]]);
    }

    #[test]
    fn what_is_written_meanwhile_is_read_by_the_next_run() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let document = |number: usize, text: &str| Document {
            id: format!("d{number}"),
            title: String::new(),
            text: format!("{text} {number}"),
            metadata: serde_json::Map::new(),
        };
        let documents = PAGE + 10;
        store.write(&(0..documents).map(|number| document(number, "a text")).collect::<Vec<_>>()).unwrap();
        let query = Query { id: "q".into(), text: "a text 0".into(), answers: Vec::new() };
        store.write_queries(&[query]).unwrap();
        let judgment =
            Judgment { query: "q".into(), document: "d0".into(), grade: 1, split: Split::Train, source: Source::File };
        store.write_judgments(&[judgment]).unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/bert-mean");
        let checkpoint = Checkpoint::open(&model, &Overrides::default()).unwrap();
        let mut pages = 0;
        let data = TrainingData::read(&store, &checkpoint, Lengths { query: 16, passage: 16 }, &mut |_| {
            // After the first page: the positive would come once more.
            pages += 1;
            if pages == 1 {
                store.write(&[document(0, "another text")])?;
            }
            Ok(())
        });
        let data = data.unwrap();
        assert_eq!((pages, data.names.len(), &data.train[0].positives), (2, documents, &vec![0]));
        assert_eq!(data.names.iter().filter(|name| *name == "d0").count(), 1);
    }
}
