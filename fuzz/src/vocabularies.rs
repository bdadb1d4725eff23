//! The vocabulary files of before: refused, or a tokenizer that tokenizes.
//!
//! The first line is the file's name; the rest is the file.

use anced::encoder::{Checkpoint, Overrides, Side, TextEncoder, convert};
use tempfile::TempDir;

use super::{Shared, copy, headed, instead, repository, scratch};

/// The files by the family that they are of.
const FILES: [(&str, &str); 4] =
    [("vocab.txt", "bert"), ("tokenizer_config.json", "bert"), ("vocab.json", "roberta"), ("merges.txt", "roberta")];

thread_local! {
    static FOLDER: Shared<TempDir> = const { Shared::new() };
}

pub fn run(input: &[u8]) {
    let Some((name, contents)) = headed(input) else { return };
    let Some((_, family)) = FILES.iter().find(|(file, _)| *file == name) else { return };
    let make = || {
        let folder = scratch();
        for (family, checkpoint) in [("bert", "bert-mean"), ("roberta", "roberta-ance")] {
            let place = folder.path().join(family);
            copy(&repository("tests/fixtures/reference").join(checkpoint), &place);
            std::fs::remove_file(place.join("tokenizer.json")).unwrap();
        }
        for (file, text) in [
            ("bert/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlist\nfile\n##s\n"),
            (
                "roberta/vocab.json",
                r#"{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "l": 5, "i": 6, "li": 7}"#,
            ),
            ("roberta/merges.txt", "#version: 0.2\nl i\n"),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        folder
    };
    let run = |folder: &mut TempDir| {
        let source = folder.path().join(family);
        let target = folder.path().join("target");
        instead(&source, name, contents, |_| {
            if convert(&source, &target).is_ok() {
                let checkpoint = Checkpoint::open(&target, &Overrides::default()).unwrap();
                let encoder = TextEncoder::open(&checkpoint, 16).unwrap();
                let texts = ["list files".to_owned(), "a".repeat(300), String::new()];
                let ids = encoder.tokenize(&texts, Side::Passage);
                assert!(ids.iter().flatten().all(|ids| ids.len() <= encoder.length()));
                std::fs::remove_dir_all(&target).unwrap();
            }
        });
    };
    FOLDER.with(|shared| shared.with(u32::MAX, make, run));
}
