//! Measures, TREC run and qrels files, the BM25 baseline.
