//! A trained checkpoint written back: the values that were trained and nothing else change, all of it or nothing is there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anced::encoder::{Checkpoint, Encoder, EncoderOptions, Error, Overrides, Side};
use anced::onnx::Runtime;
use anced::settings::Settings;
use anced::telemetry::Metrics;
use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

/// Type, shape and bytes by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const FIXTURES: [&str; 3] = ["bert-mean", "roberta-ance", "roberta-ance-st"];
/// Beside each checkpoint lie values to compare with, which are no part of it.
const REFERENCE: [&str; 3] = ["expected.safetensors", "training.safetensors", "steps.safetensors"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference").join(name)
}

fn open(folder: &Path) -> Checkpoint {
    Checkpoint::open(folder, &Overrides::default()).unwrap()
}

/// The files below a folder by their paths in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name.to_owned(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn copy(source: &Path, target: &Path) {
    for (name, bytes) in files(source) {
        std::fs::create_dir_all(target.join(&name).parent().unwrap()).unwrap();
        std::fs::write(target.join(name), bytes).unwrap();
    }
}

fn tensors(bytes: &[u8]) -> Tensors {
    let read = SafeTensors::deserialize(bytes).unwrap();
    read.iter().map(|(name, view)| (name.into(), (view.dtype(), view.shape().into(), view.data().into()))).collect()
}

fn metadata(bytes: &[u8]) -> Option<HashMap<String, String>> {
    SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Tensors that no embedding depends on: nobody trains them.
fn is_unused(name: &str) -> bool {
    name.contains("pooler") || name.contains("classifier") || name.contains("position_ids")
}

/// Values for every tensor that can be trained, by the names that a checkpoint asks for: its own, a little changed.
fn trained(folder: &Path) -> HashMap<String, Vec<f32>> {
    let mut values = HashMap::new();
    for (file, prefix) in [
        ("model.safetensors", ""),
        ("2_Dense/model.safetensors", "2_Dense/"),
        ("3_LayerNorm/model.safetensors", "3_LayerNorm/"),
    ] {
        let Ok(bytes) = std::fs::read(folder.join(file)) else { continue };
        for (name, (dtype, _, data)) in tensors(&bytes).into_iter().filter(|(name, _)| !is_unused(name)) {
            let own: Vec<f32> = match dtype {
                Dtype::F32 => floats(&data),
                Dtype::F16 => {
                    data.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
                }
                other => panic!("{name}: {other:?}"),
            };
            let changed = own.iter().enumerate().map(|(at, value)| value * 1.01 + 0.001 * (at % 7) as f32).collect();
            values.insert(format!("{prefix}{name}"), changed);
        }
    }
    values
}

fn embeddings(folder: &Path) -> Vec<Vec<f32>> {
    let library = std::env::var_os("ANCED_ONNXRUNTIME").map(PathBuf::from);
    let runtime = Runtime::load(library.as_deref(), 0).unwrap();
    let options = EncoderOptions::from(&Settings::default());
    let encoder = Encoder::open(folder, &options, &runtime, &Arc::new(Metrics::new().unwrap())).unwrap();
    assert!(encoder.checkpoint().own_onnx().is_none(), "the written ONNX file is not taken for a foreign one");
    let texts = serde_json::from_slice(&std::fs::read(fixture("texts.json")).unwrap()).unwrap();
    encoder.encode_blocking(texts, Side::Passage).unwrap().vectors
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn nothing_trained_gives_the_same_checkpoint() {
    for name in FIXTURES {
        let source = fixture(name);
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("written");
        open(&source).write_trained(&target, &|_| None).unwrap();
        assert_eq!(names(parent.path()), ["written"]);

        let (mut old, mut new) = (files(&source), files(&target));
        old.retain(|file, _| !REFERENCE.contains(&file.as_str()));
        let onnx = new.remove("onnx/model.onnx").unwrap();
        assert_eq!(onnx, open(&target).to_onnx().unwrap().unwrap(), "{name}");
        assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>(), "{name}");
        for (file, bytes) in &old {
            if file.ends_with(".safetensors") {
                assert_eq!(tensors(bytes), tensors(&new[file]), "{name}/{file}");
                assert_eq!(metadata(bytes), metadata(&new[file]), "{name}/{file}");
            } else {
                assert_eq!(bytes, &new[file], "{name}/{file}");
            }
        }
        let mode = |folder: &Path| folder.join("model.safetensors").metadata().unwrap().permissions();
        assert_eq!(mode(&source), mode(&target), "who may read {name}");
        assert_eq!(embeddings(&source), embeddings(&target), "{name}");
    }
}

#[test]
fn trained_values_are_written_and_unused_tensors_kept() {
    for name in FIXTURES {
        let source = fixture(name);
        let parent = tempfile::tempdir().unwrap();
        let (target, mut values) = (parent.path().join("written"), trained(&source));
        open(&source).write_trained(&target, &|name| values.get(name).map(Vec::as_slice)).unwrap();

        let (old, new) = (files(&source), files(&target));
        let (mut kept, mut changed) = (0, 0);
        for file in new.keys().filter(|file| file.ends_with("model.safetensors")) {
            let prefix = file.strip_suffix("model.safetensors").unwrap();
            let (before, after) = (tensors(&old[file]), tensors(&new[file]));
            assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
            for (tensor, (dtype, shape, bytes)) in &after {
                assert_eq!((dtype, shape), (&before[tensor].0, &before[tensor].1), "{name}/{file}/{tensor}");
                match values.remove(&format!("{prefix}{tensor}")) {
                    Some(values) => {
                        assert_eq!(floats(bytes), values, "{name}/{file}/{tensor}");
                        assert_ne!(bytes, &before[tensor].2, "{name}/{file}/{tensor}");
                        changed += 1;
                    }
                    None => {
                        assert_eq!(bytes, &before[tensor].2, "{name}/{file}/{tensor}");
                        kept += 1;
                    }
                }
            }
        }
        assert!(values.is_empty(), "{name}: not written: {:?}", values.keys());
        assert!(changed > 20 && (name != "roberta-ance" || kept >= 4), "{name}: {changed} changed, {kept} kept");
        assert_eq!(old["config.json"], new["config.json"]);
        assert_eq!(new["onnx/model.onnx"], open(&target).to_onnx().unwrap().unwrap());
        assert_ne!(embeddings(&source), embeddings(&target), "{name}");
    }
}

/// The fixture `bert-mean` with its weights in 16 bits, an integer tensor among them, and a type in its configuration.
fn half_precision(folder: &Path, dtype: Option<&str>) {
    copy(&fixture("bert-mean"), folder);
    let file = folder.join("model.safetensors");
    let mut all: Tensors = tensors(&std::fs::read(&file).unwrap());
    for (dtype, _, bytes) in all.values_mut().filter(|(dtype, ..)| *dtype == Dtype::F32) {
        *dtype = Dtype::F16;
        *bytes = floats(bytes).into_iter().flat_map(|value| f16::from_f32(value).to_le_bytes()).collect();
    }
    all.insert("embeddings.position_ids".into(), (Dtype::I64, vec![1, 2], (0_u8..16).collect()));
    all.insert("pooler.extra".into(), (Dtype::F16, vec![2], vec![1, 2, 3, 4]));
    let views =
        all.iter().map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, Some([("format".into(), "pt".into())].into()), &file).unwrap();
    if let Some(dtype) = dtype {
        let file = folder.join("config.json");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen('{', &format!("{{ \"torch_dtype\": \"{dtype}\","), 1)).unwrap();
    }
}

#[test]
fn trained_16_bit_weights_become_32_bit_ones_and_the_configuration_says_so() {
    for dtype in [Some("float16"), None] {
        let parent = tempfile::tempdir().unwrap();
        let [source, same, target] = ["source", "same", "written"].map(|name| parent.path().join(name));
        half_precision(&source, dtype);
        open(&source).write_trained(&same, &|_| None).unwrap();
        let (old, kept) = (files(&source), files(&same));
        assert_eq!(tensors(&old["model.safetensors"]), tensors(&kept["model.safetensors"]));
        assert_eq!(old["config.json"], kept["config.json"]);

        let values = trained(&source);
        open(&source).write_trained(&target, &|name| values.get(name).map(Vec::as_slice)).unwrap();
        let new = files(&target);
        assert_eq!(metadata(&new["model.safetensors"]), Some([("format".into(), "pt".into())].into()));
        let before = tensors(&old["model.safetensors"]);
        for (name, tensor) in tensors(&new["model.safetensors"]) {
            match values.get(&name) {
                Some(values) => {
                    assert_eq!((tensor.0, &tensor.1), (Dtype::F32, &before[&name].1), "{name}");
                    assert_eq!(&floats(&tensor.2), values, "{name}");
                }
                None => assert_eq!(tensor, before[&name], "{name}"),
            }
        }
        let config =
            |bytes: &[u8]| serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes).unwrap();
        let (mut before, mut after) = (config(&old["config.json"]), config(&new["config.json"]));
        assert_eq!(after.remove("torch_dtype").unwrap(), "float32");
        assert_eq!(before.remove("torch_dtype").as_ref().and_then(|value| value.as_str()), dtype);
        assert_eq!(before, after);
        assert!(embeddings(&target).iter().flatten().all(|value| value.is_finite()));
    }
}

#[test]
fn values_that_do_not_fit_are_refused_before_anything_is_written() {
    let source = fixture("roberta-ance-st");
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("written");
    let good = trained(&source);
    let name = "2_Dense/linear.weight";
    let rows = [
        (vec![0.5; 1537], "1537 trained values for shape [48, 32]"),
        (Vec::new(), "0 trained values"),
        ([vec![0.5; 17], vec![f32::NAN; 1519]].concat(), "value 17 is not finite"),
        ([vec![0.5; 1535], vec![f32::NEG_INFINITY]].concat(), "value 1535 is not finite"),
    ];
    for (spoilt, wanted) in rows {
        let give =
            |asked: &str| if asked == name { Some(spoilt.as_slice()) } else { good.get(asked).map(Vec::as_slice) };
        let message = open(&source).write_trained(&target, &give).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(wanted), "{message}");
        assert!(message.contains("2_Dense/model.safetensors"), "{message}");
        assert!(names(parent.path()).is_empty(), "{:?}", names(parent.path()));
    }

    let source = parent.path().join("source");
    half_precision(&source, None);
    let ids = [0.0, 1.0];
    let error = open(&source)
        .write_trained(&target, &|name| (name == "embeddings.position_ids").then_some(ids.as_slice()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("embeddings.position_ids") && error.contains("I64"), "{error}");
    assert_eq!(names(parent.path()), ["source"]);
}

#[test]
fn targets_that_cannot_be_taken_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let source = parent.path().join("source.new");
    copy(&fixture("bert-mean"), &source);
    std::fs::create_dir(parent.path().join("folder")).unwrap();
    std::fs::write(parent.path().join("file"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", parent.path().join("link")).unwrap();
    let before = files(&source);
    for target in
        ["folder", "file", "link", "source.new", "source.new/inside", "source.new/1_Pooling/inside", "source", ".."]
    {
        let error = open(&source).write_trained(&parent.path().join(target), &|_| None).unwrap_err();
        assert!(matches!(error, Error::Target { .. }), "{target}: {error}");
        let is_there = ["folder", "file", "link", "source.new"].contains(&target);
        assert_eq!(error.to_string().contains("is there already"), is_there, "{target}: {error}");
    }
    let error = open(&source).write_trained(&parent.path().join("no/parent"), &|_| None).unwrap_err();
    assert!(matches!(error, Error::Target { .. }) && error.to_string().contains("/no; make it first"), "{error}");
    let mut left = names(parent.path());
    left.sort();
    assert_eq!(left, ["file", "folder", "link", "source.new"]);
    assert!(names(&parent.path().join("folder")).is_empty());
    assert_eq!(std::fs::read(parent.path().join("file")).unwrap(), b"mine");
    assert_eq!(files(&source), before);
}

#[test]
fn what_holds_the_old_weights_otherwise_is_left_out() {
    let parent = tempfile::tempdir().unwrap();
    let [source, target, leftover] = ["source", "written", "written.new"].map(|name| parent.path().join(name));
    copy(&fixture("bert-mean"), &source);
    for file in REFERENCE {
        std::fs::remove_file(source.join(file)).unwrap();
    }
    let kept = ["README.md", "LICENSE", "vocab.txt", "special_tokens_map.json", "1_Pooling/notes.txt"];
    let stale = [
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "training_args.bin",
        "model.fp16.safetensors",
        "model.safetensors.index.json",
        "model.onnx",
        "model.onnx_data",
        "model-q8.gguf",
        "onnx/model_quantized.onnx",
        "openvino/openvino_model.xml",
        ".gitattributes",
        ".cache/anything",
    ];
    for name in kept.iter().chain(&stale) {
        std::fs::create_dir_all(source.join(name).parent().unwrap()).unwrap();
        std::fs::write(source.join(name), format!("contents of {name}")).unwrap();
    }
    // What a killed writer left.
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("half.txt"), "half").unwrap();

    open(&source).write_trained(&target, &|_| None).unwrap();
    let mut expected = files(&source);
    expected.retain(|name, _| !stale.contains(&name.as_str()));
    let mut written = files(&target);
    assert!(written.remove("onnx/model.onnx").is_some());
    assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for name in kept {
        assert_eq!(written[name], format!("contents of {name}").into_bytes());
    }
    assert!(!leftover.exists());

    // A folder that was written can be trained and written again.
    open(&target).write_trained(&parent.path().join("again"), &|_| None).unwrap();
    assert_eq!(files(&target), files(&parent.path().join("again")));
}

#[test]
fn a_transformer_that_is_an_onnx_file_cannot_be_trained() {
    let parent = tempfile::tempdir().unwrap();
    let source = parent.path().join("source");
    copy(&fixture("bert-mean"), &source);
    let mut onnx = open(&source).to_onnx().unwrap().unwrap();
    let at = onnx.windows(5).position(|window| window == b"anced").unwrap();
    onnx[at..at + 5].copy_from_slice(b"other");
    std::fs::create_dir(source.join("onnx")).unwrap();
    std::fs::write(source.join("onnx/model.onnx"), onnx).unwrap();
    let error = open(&source).write_trained(&parent.path().join("written"), &|_| None).unwrap_err().to_string();
    assert!(error.contains("onnx/model.onnx: ") && error.contains("cannot be trained"), "{error}");
    assert_eq!(names(parent.path()), ["source"]);
}

#[test]
fn a_module_outside_of_the_folder_is_not_written() {
    let parent = tempfile::tempdir().unwrap();
    let source = parent.path().join("source");
    copy(&fixture("roberta-ance-st"), &source);
    std::fs::rename(source.join("2_Dense"), parent.path().join("2_Dense")).unwrap();
    let modules = std::fs::read_to_string(source.join("modules.json")).unwrap();
    std::fs::write(source.join("modules.json"), modules.replace("\"2_Dense\"", "\"../2_Dense\"")).unwrap();
    let before = files(&parent.path().join("2_Dense"));
    let error = open(&source).write_trained(&parent.path().join("written"), &|_| None).unwrap_err().to_string();
    assert!(error.contains("2_Dense/model.safetensors: lies outside"), "{error}");
    assert_eq!(files(&parent.path().join("2_Dense")), before);
    assert!(!parent.path().join("written").exists() && !parent.path().join("written.new").exists());
}

const FOLDER: &str = "CHECKPOINT_TEST_FOLDER";

/// Limits on file size that the tokenizer, the weights or the ONNX file exceed stand in for a full disk.
#[test]
fn a_full_disk_leaves_nothing() {
    for (bytes, wanted) in [(2_000, "tokenizer.json"), (50_000, "model.safetensors"), (148_000, "model.onnx")] {
        let folder = tempfile::tempdir().unwrap();
        // The signal is ignored by what is run then too, and a write past the limit is an error.
        let run = Command::new("prlimit")
            .args([&format!("--fsize={bytes}"), "sh", "-c"])
            .arg("trap '' XFSZ; exec \"$0\" --exact write --ignored --nocapture")
            .arg(std::env::current_exe().unwrap())
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{} {printed} {}", run.status, String::from_utf8_lossy(&run.stderr));
        let line = printed.lines().find(|line| line.contains("refused: ")).unwrap();
        assert!(line.contains(wanted) && line.contains("File too large"), "{bytes} bytes: {line}");
        assert!(names(folder.path()).is_empty(), "{bytes} bytes: {:?}", names(folder.path()));
    }
}

#[test]
#[ignore = "run by the test above, under its limit"]
fn write() {
    // Without the test above (`--include-ignored`) there is no limit to meet.
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let target = Path::new(&folder).join("written");
    println!("refused: {}", open(&fixture("bert-mean")).write_trained(&target, &|_| None).unwrap_err());
}
