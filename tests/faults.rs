//! What keeps a server from starting: each fault ends it with the right code and a text that names the fault and the
//! remedy, and takes nothing away from the data.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Outcome, Server, outcome, tiny_model};
use serde_json::json;

/// A start that fails: more arguments and variables, the exit code, and parts of what is said.
struct Fault<'a> {
    name: &'a str,
    arguments: Vec<String>,
    variables: Vec<(&'a str, String)>,
    code: i32,
    says: &'a [&'a str],
}

impl<'a> Fault<'a> {
    fn new(name: &'a str, code: i32, says: &'a [&'a str]) -> Self {
        Self { name, arguments: Vec::new(), variables: Vec::new(), code, says }
    }

    fn with<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    fn where_(mut self, variable: &'a str, value: impl Into<String>) -> Self {
        self.variables.push((variable, value.into()));
        self
    }
}

/// Runs `anced serve` until it ends by itself.
fn serve(data: &Path, arguments: &[String], variables: &[(&str, String)]) -> Outcome {
    let mut all = vec!["serve".to_owned(), "--data".into(), data.display().to_string()];
    for (flag, value) in [("--listen", "127.0.0.1:0".to_owned()), ("--model", text(&tiny_model()))] {
        if !arguments.iter().any(|argument| argument == flag) {
            all.extend([flag.to_owned(), value]);
        }
    }
    all.extend_from_slice(arguments);
    outcome(&all, variables)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn assert_fault(fault: &str, outcome: &Outcome, code: i32, says: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{fault}: {outcome:?}");
    for part in says {
        assert!(outcome.stderr.contains(part), "{fault}: `{part}` is not in {outcome:?}");
    }
    assert!(!outcome.stderr.contains("panicked"), "{fault}: {outcome:?}");
    assert!(outcome.stdout.is_empty(), "{fault}: {outcome:?}");
}

#[test]
fn settings_and_surroundings_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, contents).unwrap();
        text(&file)
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let unknown_key = file("unknown.toml", "exspansion_search = 64\n");
    let no_toml = file("broken.toml", "device = \n");
    let bad_value = file("value.toml", "device = \"gpu\"\n");
    let no_library = file("libonnxruntime.so", "this is no library");
    let faults = [
        Fault::new("no ONNX Runtime", 1, &["/nowhere/libonnxruntime.so", "make setup", "ANCED_ONNXRUNTIME"])
            .where_("ANCED_ONNXRUNTIME", "/nowhere/libonnxruntime.so"),
        Fault::new("a file that is no library", 1, &["ONNX Runtime could not be loaded", "make setup"])
            .where_("ANCED_ONNXRUNTIME", no_library),
        Fault::new("a port that is taken", 1, &["cannot listen", "another address with --listen"])
            .with(["--listen", &taken]),
        Fault::new("a key that nobody knows", 2, &["exspansion_search"]).with(["--config", &unknown_key]),
        Fault::new("a settings file that is none", 2, &["settings"]).with(["--config", &no_toml]),
        Fault::new("a value of the file that does not fit", 2, &["gpu", "auto, cpu, cuda"])
            .with(["--config", &bad_value]),
        Fault::new("no settings file", 2, &["/nowhere.toml", "--config"]).with(["--config", "/nowhere.toml"]),
        Fault::new("a variable that nobody knows", 2, &["expansion_serch"]).where_("ANCED_EXPANSION_SERCH", "64"),
        Fault::new("a variable that does not fit", 2, &["CONNECTIVITY", "ANCED_"]).where_("ANCED_CONNECTIVITY", "many"),
        Fault::new("a flag that nobody knows", 2, &["--modell"]).with(["--modell", "x"]),
        Fault::new("a flag's value that does not fit", 2, &["--connectivity", "many"]).with(["--connectivity", "many"]),
        Fault::new("a value out of range", 2, &["connectivity", "2 to 512"]).with(["--connectivity", "1"]),
        Fault::new("a log filter that is none", 2, &["log filter"]).with(["--log-filter", "anced=loud"]),
        Fault::new("an open address without keys", 2, &["write_key", "ANCED_WRITE_KEY", "127.0.0.1"])
            .with(["--listen", "0.0.0.0:0"]),
        Fault::new("a key that nobody can send", 2, &["write_key", "visible ASCII"]).where_("ANCED_WRITE_KEY", "a b"),
        Fault::new("fp16 without CUDA", 1, &["fp16", "CUDA"]).with(["--precision", "fp16", "--device", "cpu"]),
    ];
    for fault in faults {
        let data = tempfile::tempdir().unwrap();
        let outcome = serve(data.path(), &fault.arguments, &fault.variables);
        assert_fault(fault.name, &outcome, fault.code, fault.says);
        assert!(!data.path().join("LIVE").exists(), "{}", fault.name);
    }
    let no_folder = file("file", "");
    let outcome = serve(Path::new(&no_folder), &[], &[]);
    assert_fault("a data folder that is a file", &outcome, 1, &[&no_folder]);
}

#[test]
fn a_data_folder_has_one_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let holder = format!("process {}", server.pid());
    let says = ["the data folder is in use", &holder, "--data"];
    assert_fault("a second server", &serve(data.path(), &[], &[]), 1, &says);
    let path = text(data.path());
    for verb in [vec!["index"], vec!["import", "tests/fixtures/import/beir"]] {
        let mut arguments: Vec<String> = verb.iter().map(|part| (*part).to_owned()).collect();
        arguments.extend(["--data".into(), path.clone()]);
        assert_fault(verb[0], &outcome(&arguments, &[]), 1, &says);
    }
    assert!(server.search_ids("still there", 1).is_empty());
    server.kill();
    assert!(Server::start(data.path()).stop().success(), "a killed server holds nothing");
}

fn copy_folder(source: &Path, target: &Path) {
    std::fs::create_dir_all(target).unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let place = target.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &place) } else { std::fs::copy(&path, &place).map(drop).unwrap() }
    }
}

/// Changes a file of a checkpoint's copy.
fn spoilt(file: &str, spoil: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&tiny_model(), folder.path());
    let path = folder.path().join(file);
    match spoil(std::fs::read(&path).unwrap()) {
        Some(contents) => std::fs::write(&path, contents).unwrap(),
        None => std::fs::remove_file(&path).unwrap(),
    }
    folder
}

fn replaced(from: &'static str, to: &'static str) -> impl FnOnce(Vec<u8>) -> Option<Vec<u8>> {
    move |contents| {
        let text = String::from_utf8(contents).unwrap();
        assert!(text.contains(from), "{from} is not in {text}");
        Some(text.replace(from, to).into_bytes())
    }
}

#[test]
fn a_checkpoint_that_cannot_be_served_is_named_with_its_file() {
    let missing = tempfile::tempdir().unwrap().path().join("no-model");
    let empty = tempfile::tempdir().unwrap();
    let first_weight = |contents: &[u8]| 8 + u64::from_le_bytes(contents[..8].try_into().unwrap()) as usize;
    let not_a_number = |mut contents: Vec<u8>| {
        let start = first_weight(&contents);
        contents[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        Some(contents)
    };
    let cut = |contents: Vec<u8>| Some(contents[..contents.len() / 2].to_vec());
    let gone = |_| None;
    let folders: [(&str, PathBuf, Option<tempfile::TempDir>, &[&str]); 2] = [
        ("a missing folder", missing, None, &["no-model", "no such checkpoint folder", "make setup", "--model"]),
        ("an empty folder", empty.path().to_path_buf(), Some(empty), &["config.json"]),
    ];
    let spoilt: [(&str, tempfile::TempDir, &[&str]); 10] = [
        ("another family", spoilt("config.json", replaced("\"bert\"", "\"t5\"")), &["config.json", "`t5`", "roberta"]),
        ("no JSON", spoilt("config.json", cut), &["config.json"]),
        ("weights cut short", spoilt("model.safetensors", cut), &["model.safetensors", "again"]),
        ("no weights", spoilt("model.safetensors", gone), &["model.safetensors", "no such file"]),
        ("weights that are none", spoilt("model.safetensors", |_| Some(vec![7; 100])), &["model.safetensors"]),
        ("NaN", spoilt("model.safetensors", not_a_number), &["model.safetensors", "not finite", "damaged"]),
        (
            "another shape",
            spoilt("config.json", replaced("\"intermediate_size\": 64", "\"intermediate_size\": 65")),
            &["model.safetensors", "shape", "65"],
        ),
        ("no tokenizer", spoilt("tokenizer.json", gone), &["tokenizer.json"]),
        ("a tokenizer cut short", spoilt("tokenizer.json", cut), &["tokenizer.json"]),
        ("modules cut short", spoilt("modules.json", cut), &["modules.json"]),
    ];
    let all = folders
        .iter()
        .map(|(name, path, _, says)| (*name, path.clone(), *says))
        .chain(spoilt.iter().map(|(name, folder, says)| (*name, folder.path().to_path_buf(), *says)));
    let data = tempfile::tempdir().unwrap();
    for (name, folder, says) in all {
        assert_fault(name, &serve(data.path(), &["--model".into(), text(&folder)], &[]), 1, says);
        let inspected = outcome(&["model", "inspect", &text(&folder)], &[]);
        assert_fault(name, &inspected, 1, says);
        assert_eq!(std::fs::read_dir(data.path().join("generations")).unwrap().count(), 0, "{name}: remains");
    }
    // Nothing of all that is in the way of a sound one.
    let server = Server::start(data.path());
    let answer = server.post("/documents", &json!({"documents": [{"id": "a", "text": "a text"}]}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.get("/admin/status").json()["generation"]["number"], 1);
}

#[test]
fn a_data_folder_that_may_not_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;

    let data = tempfile::tempdir().unwrap();
    let may_write = |mode| std::fs::set_permissions(data.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    may_write(0o555);
    // Root may write all the same, but without that capability as little as others.
    let mut starter = Vec::new();
    if std::fs::write(data.path().join("probe"), "").is_ok() {
        starter = vec!["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
        let probe = Command::new(starter[0]).args([starter[1], "test", "-w"]).arg(data.path()).status();
        if !probe.is_ok_and(|status| status.code() == Some(1)) {
            println!("skipped: this user may write everywhere, and setpriv (util-linux) is not there to change that");
            return may_write(0o755);
        }
        std::fs::remove_file(data.path().join("probe")).unwrap();
    }
    let mut server = Server::spawn_by(&starter, data.path(), &[]);
    let status = server.wait();
    let log = server.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&text(data.path())) && log.contains("right to write"), "{log}");
    may_write(0o755);
}
