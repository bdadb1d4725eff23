//! Filters over metadata (being written).
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {}
