//! A file of documents, queries or judgments, imported twice: the second time changes nothing.
//!
//! The first line is the file's name, which says what it holds; the rest is the file.

use std::path::Path;

use anced::corpus::{ImportOptions, Split, Store, StoredDocument, import};
use tempfile::TempDir;

use super::{Shared, headed, scratch};

/// Files after which the store is made anew.
const FILES: u32 = 500;

thread_local! {
    static STORE: Shared<(Store, TempDir)> = const { Shared::new() };
}

pub fn run(input: &[u8]) {
    let Some((name, contents)) = headed(input) else { return };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.len() > 40 || !name.bytes().all(is_plain) || name.trim_matches('.').is_empty() {
        return;
    }
    let open = || {
        let folder = scratch();
        (Store::open(&folder.path().join("store")).unwrap(), folder)
    };
    STORE.with(|shared| shared.with(FILES, open, |(store, folder)| twice(store, folder.path(), name, contents)));
}

fn twice(store: &Store, folder: &Path, name: &str, contents: &[u8]) {
    let file = folder.join(name);
    std::fs::write(&file, contents).unwrap();
    let options = ImportOptions { skip_bad: true, split: Some(Split::Train), ..ImportOptions::default() };
    let first = import(store, std::slice::from_ref(&file), &options, &mut |_| {});
    let (documents, queries) = (everything(store), store.query_count().unwrap());
    let second = import(store, std::slice::from_ref(&file), &options, &mut |_| {});
    match (first, second) {
        (Ok(first), Ok(second)) => {
            assert_eq!((first.documents, first.queries), (second.documents, second.queries));
            assert_eq!(first.skipped, second.skipped);
        }
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
        (first, second) => panic!("{first:?}, and the second time {second:?}"),
    }
    let again = everything(store);
    let plain = |documents: &[StoredDocument]| documents.iter().map(|one| one.document.clone()).collect::<Vec<_>>();
    assert_eq!(plain(&documents), plain(&again));
    assert_eq!(queries, store.query_count().unwrap());
    assert!(store.check().unwrap().findings.is_empty());
    for one in &documents {
        assert_eq!(one.document.check(), Ok(()), "{:?}", one.document);
    }
    let ids: Vec<String> = documents.into_iter().map(|one| one.document.id).collect();
    store.delete(&ids).unwrap();
    std::fs::remove_file(&file).unwrap();
}

fn everything(store: &Store) -> Vec<StoredDocument> {
    store.list(None, usize::MAX, usize::MAX).unwrap().0
}
