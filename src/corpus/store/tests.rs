//! Tests of the store against a model in memory.
