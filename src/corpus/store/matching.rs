//! Filters answered from the postings.

use std::ops::Bound;

use heed::{RoTxn, WithoutTls};
use roaring::RoaringTreemap;

use super::{Store, number, stored};
use crate::corpus::filter::{Bounds, Node};
use crate::corpus::metadata::{self, Scalar};
use crate::corpus::{Error, Filter};

type Reader<'txn> = RoTxn<'txn, WithoutTls>;

impl Store {
    /// The sequences of the current documents that match.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn matching(&self, filter: &Filter) -> Result<RoaringTreemap, Error> {
        self.read("evaluate a filter", |transaction| self.node(transaction, &filter.root))
    }

    fn node(&self, transaction: &Reader<'_>, node: &Node) -> Result<RoaringTreemap, heed::Error> {
        match node {
            Node::And(nodes) => self.all_of(transaction, nodes),
            Node::Or(nodes) => {
                let mut any = RoaringTreemap::new();
                for node in nodes {
                    any |= self.node(transaction, node)?;
                }
                Ok(any)
            }
            Node::Not(node) => Ok(self.every(transaction)? - self.node(transaction, node)?),
            Node::Any { field, values } => {
                let mut any = RoaringTreemap::new();
                for value in values {
                    self.collect(transaction, &metadata::key(field, value), &mut any)?;
                }
                Ok(any)
            }
            Node::Range { field, bounds } => self.range(transaction, field, bounds),
        }
    }

    fn all_of(&self, transaction: &Reader<'_>, nodes: &[Node]) -> Result<RoaringTreemap, heed::Error> {
        let Some((first, rest)) = nodes.split_first() else { return self.every(transaction) };
        let mut all = self.node(transaction, first)?;
        for node in rest {
            if all.is_empty() {
                break;
            }
            all &= self.node(transaction, node)?;
        }
        Ok(all)
    }

    fn every(&self, transaction: &Reader<'_>) -> Result<RoaringTreemap, heed::Error> {
        let mut every = RoaringTreemap::new();
        self.collect(transaction, metadata::EVERY_DOCUMENT, &mut every)?;
        Ok(every)
    }

    fn collect(&self, transaction: &Reader<'_>, key: &[u8], into: &mut RoaringTreemap) -> Result<(), heed::Error> {
        let Some(postings) = self.tables.postings.get_duplicates(transaction, key)? else { return Ok(()) };
        for posting in postings {
            into.insert(number(posting?.1)?.0);
        }
        Ok(())
    }

    fn range(&self, transaction: &Reader<'_>, field: &str, bounds: &Bounds) -> Result<RoaringTreemap, heed::Error> {
        let mut matching = RoaringTreemap::new();
        let Some((like, _)) = bounds.lower.as_ref().or(bounds.upper.as_ref()) else { return Ok(matching) };
        let start = metadata::key_start(field, like);
        let from = match &bounds.lower {
            Some((lower, _)) => [&start[..], &metadata::sortable(lower)].concat(),
            None => start.clone(),
        };
        let to = bounds.upper.as_ref().map(|(upper, _)| metadata::sortable(upper));
        let entries = self.tables.postings.range(transaction, &(Bound::Included(&from[..]), Bound::Unbounded))?;
        for entry in entries {
            let (key, posting) = entry?;
            let Some(value) = key.strip_prefix(&start[..]) else { break };
            if to.as_ref().is_some_and(|to| is_past(value, to)) {
                break;
            }
            let (sequence, _) = number(posting)?;
            let inside = match metadata::decode(like, value) {
                Some(scalar) => bounds.contain(&scalar),
                None => self.has_inside(transaction, sequence, field, bounds)?,
            };
            if inside {
                matching.insert(sequence);
            }
        }
        Ok(matching)
    }

    /// Looks into the document itself: the key of a long string holds only its beginning.
    fn has_inside(
        &self,
        transaction: &Reader<'_>,
        sequence: u64,
        field: &str,
        bounds: &Bounds,
    ) -> Result<bool, heed::Error> {
        let Some(json) = self.tables.documents.get(transaction, &sequence.to_be_bytes())? else { return Ok(false) };
        let mut inside = false;
        metadata::walk(&stored(sequence, json)?.document.metadata, &mut |path, scalar: Scalar| {
            inside |= path == field && bounds.contain(&scalar);
        });
        Ok(inside)
    }
}

/// Whether the value part of a key, and all that follow, are above an upper bound.
fn is_past(value: &[u8], bound: &[u8]) -> bool {
    // A bound of full length may have been cut, so that longer strings with this beginning may still be below it.
    value > bound && !(bound.len() == metadata::STRING_BYTES && value.starts_with(bound))
}
