//! BM25 over tantivy's in-memory index: the baseline, and the negatives of a first training round.
//!
//! English analysis: words of letters and digits, lower-cased, stop words dropped, stemmed (Porter2).
//! tantivy fixes k1 at 1.2 and b at 0.75.

use std::collections::BTreeMap;

use tantivy::collector::TopDocs;
use tantivy::collector::sort_key::{SortBySimilarityScore, SortByStaticFastValue};
use tantivy::indexer::IndexWriterOptions;
use tantivy::query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery};
use tantivy::schema::{FAST, Field, IndexRecordOption, Schema, TextFieldIndexing, TextOptions};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer, TokenizerManager,
};
use tantivy::{Index, IndexWriter, Order, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term};

use super::error::Error;

const ANALYZER: &str = "english";
const ORDINAL: &str = "ordinal";
const WRITER_THREADS: usize = 2;
/// Bytes that both writer threads buffer together before they write a segment.
const WRITER_MEMORY: usize = 128 << 20;
/// Bytes of the longest word that is indexed; longer ones are blobs that nobody types.
const LONGEST_WORD: usize = 255;

/// An in-memory BM25 index; searches may run on many threads at once.
pub struct Bm25 {
    searcher: Searcher,
    analyzer: TextAnalyzer,
    text: Field,
    /// By ordinal.
    ids: Vec<Box<str>>,
}

impl Bm25 {
    /// Indexes documents given as (id, text), where the text is usually title and text joined by a space. The ids are
    /// not checked for duplicates.
    ///
    /// # Errors
    /// Whatever tantivy says.
    pub fn build(documents: impl Iterator<Item = (String, String)>) -> Result<Self, Error> {
        let analyzer = analyzer().map_err(failed("making the analyzer"))?;
        let mut schema = Schema::builder();
        let indexing =
            TextFieldIndexing::default().set_tokenizer(ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
        let text = schema.add_text_field("text", TextOptions::default().set_indexing_options(indexing));
        let ordinal = schema.add_u64_field(ORDINAL, FAST);
        let tokenizers = TokenizerManager::default();
        tokenizers.register(ANALYZER, analyzer.clone());
        let index = Index::builder()
            .schema(schema.build())
            .tokenizers(tokenizers)
            .create_in_ram()
            .map_err(failed("making the index"))?;

        let options = IndexWriterOptions::builder()
            .num_worker_threads(WRITER_THREADS)
            .memory_budget_per_thread(WRITER_MEMORY / WRITER_THREADS)
            .num_merge_threads(1)
            .build();
        let mut writer: IndexWriter = index.writer_with_options(options).map_err(failed("starting the writer"))?;
        let mut ids = Vec::new();
        for (id, content) in documents {
            let mut document = TantivyDocument::new();
            document.add_text(text, content);
            document.add_u64(ordinal, ids.len() as u64);
            ids.push(id.into_boxed_str());
            writer.add_document(document).map_err(failed("adding a document"))?;
        }
        writer.commit().map_err(failed("writing the index"))?;
        writer.wait_merging_threads().map_err(failed("merging the index"))?;

        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual);
        let reader = reader.try_into().map_err(failed("opening the index"))?;
        Ok(Self { searcher: reader.searcher(), analyzer, text, ids })
    }

    /// The `k` best documents that hold at least one of the query's words, with their scores, best first; documents
    /// with equal scores come in the order in which they were added. The query is plain text, no character of it is
    /// syntax.
    ///
    /// # Errors
    /// Whatever tantivy says.
    pub fn search(&self, query: &str, k: usize) -> Result<Vec<(String, f32)>, Error> {
        let k = k.min(self.ids.len());
        let query = self.any_word_of(query);
        if k == 0 || query.clauses().is_empty() {
            return Ok(Vec::new());
        }
        // The segments' number and order differ from run to run; the ordinal makes the answer the same every time.
        let best = TopDocs::with_limit(k).order_by((
            (SortBySimilarityScore, Order::Desc),
            (SortByStaticFastValue::<u64>::for_field(ORDINAL), Order::Asc),
        ));
        let hits = self.searcher.search(&query, &best).map_err(failed("searching"))?;
        let named = |((score, ordinal), _): ((f32, Option<u64>), _)| {
            let id = self.ids.get(usize::try_from(ordinal?).ok()?)?;
            Some((id.to_string(), score))
        };
        Ok(hits.into_iter().filter_map(named).collect())
    }

    /// How many documents there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    fn any_word_of(&self, query: &str) -> BooleanQuery {
        let mut words: BTreeMap<String, f32> = BTreeMap::new();
        self.analyzer.clone().token_stream(query).process(&mut |token| {
            *words.entry(token.text.clone()).or_default() += 1.0;
        });
        let clause = |(word, count): (String, f32)| {
            let term = TermQuery::new(Term::from_field_text(self.text, &word), IndexRecordOption::WithFreqs);
            (Occur::Should, Box::new(BoostQuery::new(Box::new(term), count)) as Box<dyn Query>)
        };
        BooleanQuery::new(words.into_iter().map(clause).collect())
    }
}

fn analyzer() -> Result<TextAnalyzer, TantivyError> {
    let no_stop_words = || TantivyError::InvalidArgument("no English stop words in this build of tantivy".into());
    Ok(TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(LONGEST_WORD))
        .filter(LowerCaser)
        .filter(StopWordFilter::new(Language::English).ok_or_else(no_stop_words)?)
        .filter(Stemmer::new(Language::English))
        .build())
}

fn failed(action: &'static str) -> impl Fn(TantivyError) -> Error {
    move |source| Error::Bm25 { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(texts: &[&str]) -> Bm25 {
        Bm25::build(texts.iter().enumerate().map(|(number, text)| (format!("d{number}"), (*text).to_owned()))).unwrap()
    }

    fn found(index: &Bm25, query: &str, k: usize) -> Vec<String> {
        index.search(query, k).unwrap().into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn any_word_will_do_and_rarer_words_weigh_more() {
        let index = build(&["the cat sleeps", "a dog sleeps", "a dog barks", "birds sing", "running dogs"]);
        assert_eq!(found(&index, "Does the DOG sleep?", 10), ["d1", "d0", "d2", "d4"]);
        assert_eq!(found(&index, "run", 10), ["d4"], "stemming");
        assert_eq!(found(&index, "dog", 2), ["d1", "d2"], "equal scores come in the order of adding");
    }

    #[test]
    fn the_score_is_bm25() {
        let index = build(&["apple apple pear", "plum", "cherry"]);
        let hits = index.search("apple", 10).unwrap();
        // One of three documents holds the word, twice among three words; the mean length is 5 / 3.
        let idf = (1.0 + (3.0 - 1.0 + 0.5) / (1.0 + 0.5) as f32).ln();
        let expected = idf * 2.0 * (1.2 + 1.0) / (2.0 + 1.2 * (1.0 - 0.75 + 0.75 * 3.0 / (5.0 / 3.0)));
        assert_eq!(hits.len(), 1);
        assert!((hits[0].1 - expected).abs() < 1e-5, "{} {expected}", hits[0].1);
        let twice = index.search("apple apples", 10).unwrap();
        assert!((twice[0].1 - 2.0 * expected).abs() < 1e-5, "a word asked for twice weighs twice");
    }

    #[test]
    fn a_query_is_text_whatever_it_holds() {
        let index = build(&["find files and delete them", "text:find -delete"]);
        for query in
            ["+find -delete", "text:find", "\"find", "find~2", "fin* OR [a TO b}", "(find", "find^9 AND NOT delete"]
        {
            assert_eq!(index.search(query, 10).unwrap().len(), if query.contains("fin*") { 0 } else { 2 }, "{query}");
        }
        for query in ["", " ", "the of", "?!", "a", "\u{0}", "\u{1f600}"] {
            assert_eq!(found(&index, query, 10), Vec::<String>::new(), "{query}");
        }
        assert_eq!(found(&index, &"find ".repeat(100_000), 10).len(), 2);
        assert_eq!(found(&index, &"x".repeat(100_000), 10).len(), 0);
    }

    #[test]
    fn any_k_and_an_empty_index_are_fine() {
        let index = build(&["one two", "two three"]);
        assert_eq!(found(&index, "two", 0).len(), 0);
        assert_eq!(found(&index, "two", usize::MAX).len(), 2);
        let empty = build(&[]);
        assert!(empty.is_empty());
        assert_eq!(found(&empty, "two", 10).len(), 0);
    }

    #[test]
    fn answers_do_not_depend_on_how_the_segments_fell() {
        let texts: Vec<String> = (0..2800).map(|number| format!("word{} common", number % 7)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let first = build(&texts).search("word3 word5 common", 500).unwrap();
        for _ in 0..3 {
            assert_eq!(build(&texts).search("word3 word5 common", 500).unwrap(), first);
        }
        assert_eq!(first[0].0, "d3");
        assert_eq!((first[1].0.as_str(), first[2].0.as_str()), ("d5", "d10"));
    }
}
