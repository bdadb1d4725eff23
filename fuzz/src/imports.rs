//! A file of documents, queries or judgments, imported twice: the second time changes nothing.
//!
//! The first line is the file's name, which says what it holds; the rest is the file.

use std::cell::RefCell;

use anced::corpus::{ImportOptions, Split, Store, StoredDocument, import};
use tempfile::TempDir;

use super::{headed, scratch};

/// Files after which the store is made anew: its log only grows.
const FILES: u32 = 500;

struct World {
    store: Store,
    used: u32,
    folder: TempDir,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

pub fn run(input: &[u8]) {
    let Some((name, contents)) = headed(input) else { return };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.len() > 40 || !name.bytes().all(is_plain) || name.trim_matches('.').is_empty() {
        return;
    }
    WORLD.with_borrow_mut(|world| {
        if world.as_ref().is_some_and(|world| world.used == FILES) {
            *world = None;
        }
        let world = world.get_or_insert_with(|| {
            let folder = scratch();
            World { store: Store::open(&folder.path().join("store")).unwrap(), used: 0, folder }
        });
        world.used += 1;
        twice(world, name, contents);
    });
}

fn twice(World { store, folder, .. }: &World, name: &str, contents: &[u8]) {
    let file = folder.path().join(name);
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
    store.list(None, usize::MAX).unwrap()
}
