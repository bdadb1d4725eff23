//! The weights of a checkpoint as PyTorch pickles them: refused, with nothing left behind, or a checkpoint that opens.

use anced::encoder::{Checkpoint, Overrides, convert};
use safetensors::SafeTensors;
use tempfile::TempDir;

use super::{Shared, scratch};

/// The smallest one: that of the kept inputs.
const CONFIG: &str = r#"{"model_type": "bert", "vocab_size": 5, "hidden_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 4, "max_position_embeddings": 8, "type_vocab_size": 2}"#;
const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n";

thread_local! {
    static FOLDER: Shared<TempDir> = const { Shared::new() };
}

pub fn run(input: &[u8]) {
    let make = || {
        let folder = scratch();
        let source = folder.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("config.json"), CONFIG).unwrap();
        std::fs::write(source.join("vocab.txt"), VOCABULARY).unwrap();
        folder
    };
    FOLDER.with(|shared| shared.with(u32::MAX, make, |folder| converted(folder, input)));
}

fn converted(folder: &TempDir, input: &[u8]) {
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    std::fs::write(source.join("pytorch_model.bin"), input).unwrap();
    if convert(&source, &target).is_ok() {
        let checkpoint = Checkpoint::open(&target, &Overrides::default()).unwrap();
        assert!(checkpoint.to_onnx().unwrap().is_some());
        let bytes = std::fs::read(target.join("model.safetensors")).unwrap();
        assert!(SafeTensors::deserialize(&bytes).unwrap().len() >= 20);
        std::fs::remove_dir_all(&target).unwrap();
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["source"], "nothing else");
}
