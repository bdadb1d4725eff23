//! Runs of training: they learn, they go on exactly where they were cut off, and what they write can be served.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anced::ance::{Error, Recipe, STATE_FILE, Schedule, Source as _, Triple, Triples};
use anced::encoder::{Checkpoint, Encoder, Overrides, Side};
use anced::onnx::{Adam, Loss, Objective, Optimizer};
use common::random::Random;
use common::training::{apart, encoder, files, fixture, open, run, session, texts, try_open, with_dropout};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

const TRIPLES: usize = 40;

/// Queries and documents of the vocabulary of both fixtures; nothing but training tells which belong together.
fn triples() -> Triples {
    let encoder = encoder(&fixture("bert-mean"));
    let queries = encoder.tokenize(&texts(TRIPLES, |number| 2 + number % 5), Side::Query).unwrap();
    let documents = texts(2 * TRIPLES, |number| 4 + number * 7 % 15).split_off(TRIPLES / 2);
    let documents = encoder.tokenize(&documents, Side::Passage).unwrap();
    let triple = |query| Triple { query, positive: query, negative: Some(query + 1 + query % 19) };
    let documents = documents.into_iter().map(|document| vec![document]).collect();
    Triples::new(queries, documents, (0..TRIPLES).map(triple).collect(), &[(0, 7), (3, 30)]).unwrap()
}

fn recipe(objective: Objective, steps: u64) -> Recipe {
    Recipe {
        loss: Loss { objective, scale: 10.0, chunks: false },
        schedule: Schedule { learning_rate: 1e-3, warmup: 4, steps },
        batch: 8,
        ..Recipe::default()
    }
}

fn tensors(bytes: &[u8]) -> HashMap<String, Vec<u8>> {
    let read = SafeTensors::deserialize(bytes).unwrap();
    read.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())).collect()
}

#[test]
fn the_loss_falls() {
    let source = triples();
    for objective in [Objective::InBatch, Objective::Pairwise] {
        for optimizer in [Optimizer::AdamW(Adam::default()), Optimizer::Lamb(Adam::default())] {
            let mut recipe = Recipe { optimizer, ..recipe(objective, 60) };
            recipe.schedule.learning_rate = 5e-3;
            recipe.loss.scale = 20.0;
            let mut trainer = open(&fixture("bert-mean"), recipe, None);
            let losses = run(&mut trainer, &source, 60);
            assert!(trainer.is_done());
            let mean = |some: &[f32]| some.iter().sum::<f32>() / some.len() as f32;
            let (first, last) = (mean(&losses[..5]), mean(&losses[55..]));
            println!("{objective:?}, {optimizer:?}: {first} to {last}");
            assert!(last < 0.5 * first, "{objective:?}, {optimizer:?}: {first} to {last}");
        }
    }
}

const JOB: &str = "TRAINER_TEST_JOB";
const KIND: &str = "TRAINER_TEST_KIND";

/// Runs that are killed: without and with dropout, gathered steps, LAMB, another head.
const KINDS: [&str; 3] = ["plain", "dropout", "gathered"];

fn job(kind: &str, folder: &Path) -> (PathBuf, Recipe) {
    let model = folder.join("model");
    let plain = recipe(Objective::InBatch, 40);
    match kind {
        "plain" => (fixture("bert-mean"), plain),
        "dropout" => (model, Recipe { dropout: true, ..plain }),
        "gathered" => {
            let optimizer = Optimizer::Lamb(Adam { weight_decay: 0.01, ..Adam::default() });
            (model, Recipe { dropout: true, accumulation: 2, batch: 5, optimizer, ..plain })
        }
        other => panic!("{other}"),
    }
}

#[test]
#[ignore = "run by the tests below, in processes of their own"]
fn train() {
    // Without the tests below (`--include-ignored`) there is nothing to do.
    let Some(folder) = std::env::var_os(JOB).map(PathBuf::from) else { return };
    let (model, recipe) = job(&std::env::var(KIND).unwrap(), &folder);
    let (state, written) = (folder.join("state"), folder.join("written"));
    let mut trainer = open(&model, recipe, Some(&state));
    let source = triples();
    println!("\nfrom {}", trainer.steps());
    while !trainer.is_done() {
        // A line for each step, or the end of them: who kills it decides how far it comes, however busy the machine is.
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let step = trainer.step(&source).unwrap().step;
        println!("step {step}");
        if step.is_multiple_of(3) || trainer.is_done() {
            println!("save {step}");
            trainer.save(&state).unwrap();
            println!("saved {step}");
        }
    }
    if !written.exists() {
        println!("write");
        trainer.write_checkpoint(&written).unwrap();
    }
    println!("done");
}

/// When a process is killed.
enum Kill {
    Never,
    /// So long after its start.
    Start(Duration),
    /// So long after so many steps of its own, or after the save that follows them began.
    Steps(usize, bool, Duration),
}

/// Runs a job's process; gives the lines that it printed.
fn process(kind: &str, folder: &Path, kill: &Kill) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "train", "--ignored", "--nocapture"])
        .envs([(JOB, folder.as_os_str()), (KIND, kind.as_ref())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.stdout.take().unwrap();
    let mut steer = child.stdin.take().filter(|_| matches!(kill, Kill::Steps(..)));
    let mut go_on = || steer.as_mut().map_or(Ok(()), |input| input.write_all(b"\n"));
    go_on().unwrap();
    if let Kill::Start(after) = kill {
        std::thread::sleep(*after);
        child.kill().unwrap();
    }
    let (mut printed, mut steps, mut due) = (Vec::new(), 0, true);
    for line in BufReader::new(out).lines().map(Result::unwrap) {
        if line.starts_with("step ") {
            steps += 1;
            if due {
                // One that has come to its end reads no more.
                let _ = go_on();
            }
        }
        if let Kill::Steps(wanted, in_save, after) = kill
            && due
            && steps >= *wanted
            && (!in_save || line.starts_with("save ") || line == "write")
        {
            std::thread::sleep(*after);
            child.kill().unwrap();
            due = false;
        }
        printed.push(line);
    }
    let status = child.wait().unwrap();
    assert!(status.success() || status.code().is_none(), "{status}: {printed:#?}");
    printed
}

#[test]
fn a_run_that_is_killed_ends_as_one_that_is_not() {
    let mut random = Random::from_seed("training");
    let mut while_saving = 0;
    for kind in KINDS {
        let [whole, cut] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for folder in [&whole, &cut] {
            with_dropout("bert-mean", 0.1, &folder.path().join("model"));
        }
        let printed = process(kind, whole.path(), &Kill::Never);
        assert!(printed.iter().any(|line| line == "done"), "{printed:#?}");

        let (mut kills, mut in_saves, mut starts) = (0, 0, Vec::new());
        loop {
            let wait = Duration::from_micros(random.below(4_000));
            let kill = match random.below(8) {
                _ if kills >= 14 => Kill::Never,
                0 => Kill::Start(wait * 50),
                1..=3 => Kill::Steps(1 + random.below(7) as usize, false, wait),
                _ => Kill::Steps(1 + random.below(7) as usize, true, wait),
            };
            let printed = process(kind, cut.path(), &kill);
            starts.extend(printed.iter().find_map(|line| line.strip_prefix("from ").map(str::to_owned)));
            if printed.iter().any(|line| line == "done") {
                break;
            }
            kills += 1;
            let last = printed.last().map_or("", |line| line);
            in_saves += usize::from(last.starts_with("save ") || last == "write");
        }
        while_saving += in_saves;
        println!("{kind}: {kills} kills, {in_saves} of them while saving; gone on from {starts:?}");
        assert!(kills >= 4, "{kills} kills prove little");

        let states = [&whole, &cut].map(|folder| std::fs::read(folder.path().join("state").join(STATE_FILE)).unwrap());
        let [whole_state, cut_state] = states.each_ref().map(|bytes| tensors(bytes));
        assert_eq!(whole_state.len(), 3);
        for (name, values) in &whole_state {
            assert!(values == &cut_state[name], "{kind}: {name} differs");
        }
        assert!(states[0] == states[1], "{kind}: the headers differ");
        let written = [&whole, &cut].map(|folder| files(&folder.path().join("written")));
        assert!(written[0] == written[1], "{kind}: the checkpoints differ");
        // Killed saves leave nothing for good.
        assert_eq!(files(&cut.path().join("state")).into_keys().collect::<Vec<_>>(), [STATE_FILE]);
        assert!(!cut.path().join("written.new").exists());
    }
    assert!(while_saving > 0, "no kill met a save");
}

/// A state of six steps in `folder`, and the bytes of its file.
fn saved(folder: &Path, recipe: &Recipe) -> Vec<u8> {
    let mut trainer = open(&fixture("bert-mean"), recipe.clone(), None);
    run(&mut trainer, &triples(), 6);
    trainer.save(folder).unwrap();
    std::fs::read(folder.join(STATE_FILE)).unwrap()
}

/// Opens a run with a state that it cannot go on from; gives what is said.
fn refused(model: &Path, recipe: &Recipe, folder: &Path) -> String {
    let before = files(folder);
    let error = try_open(model, recipe.clone(), Some(folder)).unwrap_err();
    assert!(files(folder) == before, "{error}: the folder is not as it was");
    let text = error.to_string();
    assert!(matches!(&error, Error::State { file, .. } if *file == folder.join(STATE_FILE)), "{text}");
    assert!(text.contains(&folder.join(STATE_FILE).display().to_string()), "{text}");
    assert!(text.contains("start training anew"), "{text}");
    text
}

#[test]
fn a_state_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let recipe = recipe(Objective::InBatch, 20);
    let model = fixture("bert-mean");
    assert_eq!(open(&model, recipe.clone(), Some(&state)).steps(), 0, "no folder yet");
    let bytes = saved(&state, &recipe);
    assert_eq!(open(&model, recipe.clone(), Some(&state)).steps(), 6);

    let mut others = vec![recipe.clone(); 6];
    others[0].seed += 1;
    others[1].batch += 1;
    others[2].schedule.learning_rate *= 1.000_001;
    others[3].loss.objective = Objective::Pairwise;
    others[4].optimizer = Optimizer::Lamb(Adam::default());
    others[5].accumulation = 2;
    for other in &others {
        let text = refused(&model, other, &state);
        assert!(text.contains("another recipe") && text.contains("seed: 1"), "{text}");
    }
    for other in ["roberta-ance", "roberta-ance-st"] {
        assert!(refused(&fixture(other), &recipe, &state).contains("other weights"));
    }
    // The same model, one weight changed in its last bit.
    let near = folder.path().join("near");
    with_dropout("bert-mean", 0.0, &near);
    assert_eq!(open(&near, recipe.clone(), Some(&state)).steps(), 6, "the same weights elsewhere");
    let mut weights = std::fs::read(near.join("model.safetensors")).unwrap();
    let last = weights.len() - 4;
    weights[last] ^= 1;
    std::fs::write(near.join("model.safetensors"), weights).unwrap();
    assert!(refused(&near, &recipe, &state).contains("other weights"));
    assert!(std::fs::read(state.join(STATE_FILE)).unwrap() == bytes);
}

#[test]
fn a_damaged_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, model) = (folder.path().join(STATE_FILE), fixture("bert-mean"));
    let recipe = recipe(Objective::InBatch, 20);
    let bytes = saved(folder.path(), &recipe);
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        refused(&model, &recipe, folder.path())
    };
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for length in [0, 7, 8, 100, header - 1, header, header + 1, bytes.len() / 2, bytes.len() - 1] {
        let text = refused(&bytes[..length]);
        assert!(text.contains("not a sound training state"), "{length} bytes: {text}");
    }
    // Every byte of the header and some of the values; what a flip leaves readable is another run's or not whole.
    let some_values = (header..bytes.len()).step_by(20_011).chain([header, bytes.len() - 1]);
    for at in (0..header).chain(some_values) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 7);
        let text = refused(&flipped);
        let says = ["not a sound training state", "another recipe", "other weights", "this version reads"];
        assert!(says.iter().any(|says| text.contains(says)), "byte {at}: {text}");
    }

    let again = |change: &dyn Fn(&str) -> String, names: [&str; 3], key: &str| {
        let read = SafeTensors::deserialize(&bytes).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = change(&metadata.metadata().as_ref().unwrap()["anced"]);
        let views: Vec<(&str, TensorView<'_>)> = ["weights", "first", "second"]
            .iter()
            .zip(names)
            .map(|(old, new)| (new, read.tensor(old).unwrap()))
            .collect();
        safetensors::serialize(views, Some(HashMap::from([(key.to_owned(), text)]))).unwrap()
    };
    let same = |text: &str| text.to_owned();
    let names = ["weights", "first", "second"];
    std::fs::write(&file, again(&same, names, "anced")).unwrap();
    assert_eq!(open(&model, recipe.clone(), Some(folder.path())).steps(), 6, "nothing changed yet");
    let format = |text: &str| text.replacen("\"format\":1", "\"format\":2", 1);
    assert!(refused(&again(&format, names, "anced")).contains("format 2, this version reads 1"));
    let step = |text: &str| text.replacen("\"step\":6", "\"step\":7", 1);
    assert!(refused(&again(&step, names, "anced")).contains("digest"));
    let unknown = |text: &str| text.replacen("\"batch\":8", "\"batch\":8,\"bottles\":3", 1);
    assert!(refused(&again(&unknown, names, "anced")).contains("bottles"));
    assert!(refused(&again(&same, names, "other")).contains("no header of anced"));
    assert!(refused(&again(&same, ["weights", "first", "third"], "anced")).contains("second"));
    // Weights of another model under a name that they are not known by.
    assert!(refused(&again(&same, ["first", "weights", "second"], "anced")).contains("digest"));

    // A folder in the file's place is no state; nor is it written over.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let trainer = open(&model, recipe.clone(), Some(folder.path()));
    let error = trainer.save(folder.path()).unwrap_err();
    assert!(error.to_string().contains(STATE_FILE), "{error}");
    assert!(file.is_dir() && std::fs::read_dir(folder.path()).unwrap().count() == 1);
}

/// A limit on file size stands in for a full disk.
#[test]
fn a_state_that_cannot_be_saved_leaves_the_former_one() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let (_, recipe) = job("plain", folder.path());
    let before = saved(&state, &recipe);
    for bytes in [100, 200_000] {
        // The signal is ignored by what is run then too, and a write past the limit is an error.
        let run = Command::new("prlimit")
            .args([&format!("--fsize={bytes}"), "sh", "-c"])
            .arg("trap '' XFSZ; exec \"$0\" --exact train_without_room --ignored --nocapture")
            .arg(std::env::current_exe().unwrap())
            .env(JOB, folder.path())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{} {printed} {}", run.status, String::from_utf8_lossy(&run.stderr));
        let line = printed.lines().find(|line| line.contains("refused: ")).unwrap();
        assert!(line.contains(STATE_FILE) && line.contains("File too large"), "{bytes} bytes: {line}");
        let left = files(&state);
        assert!(left[STATE_FILE] == before && left.len() == 1, "{:?}", left.keys());
        assert!(!state.join("training.new").exists());
    }
    // What a killed save left is in nobody's way.
    std::fs::create_dir(state.join("training.new")).unwrap();
    std::fs::write(state.join("training.new/.tmpAbCdEf"), "half a state").unwrap();
    let mut trainer = open(&fixture("bert-mean"), recipe.clone(), Some(&state));
    assert_eq!(trainer.steps(), 6);
    run(&mut trainer, &triples(), 1);
    trainer.save(&state).unwrap();
    assert_eq!(files(&state).len(), 1);
    assert_eq!(open(&fixture("bert-mean"), recipe, Some(&state)).steps(), 7);
}

#[test]
#[ignore = "run by the test above, under its limit"]
fn train_without_room() {
    let Some(folder) = std::env::var_os(JOB).map(PathBuf::from) else { return };
    let (model, recipe) = job("plain", &folder);
    let mut trainer = open(&model, recipe, Some(&folder.join("state")));
    run(&mut trainer, &triples(), 1);
    println!("\nrefused: {}", trainer.save(&folder.join("state")).unwrap_err());
    // The run itself goes on.
    run(&mut trainer, &triples(), 1);
}

#[test]
fn a_state_in_a_folder_that_may_not_be_written_stays() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(Objective::InBatch, 20);
    let before = saved(folder.path(), &recipe);
    let may_write = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    may_write(0o555);
    if std::fs::write(folder.path().join("probe"), "").is_ok() {
        println!("skipped: this user may write to folders without the right to, as root may");
        return may_write(0o755);
    }
    let mut trainer = open(&fixture("bert-mean"), recipe, Some(folder.path()));
    run(&mut trainer, &triples(), 1);
    let error = trainer.save(folder.path()).unwrap_err();
    may_write(0o755);
    assert!(error.to_string().contains("training.new"), "{error}");
    assert!(files(folder.path())[STATE_FILE] == before);
}

#[test]
fn a_run_that_diverges_leaves_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = recipe(Objective::InBatch, 20);
    recipe.schedule.learning_rate = 1e15;
    let mut trainer = open(&fixture("bert-mean"), recipe.clone(), None);
    let source = triples();
    let error = loop {
        trainer.save(folder.path()).unwrap();
        match trainer.step(&source) {
            Ok(report) => assert!(report.step < 20, "a rate of 1e15 goes well"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains(&format!("diverged at step {}", trainer.steps() + 1)), "{error}");
    let state = tensors(&std::fs::read(folder.path().join(STATE_FILE)).unwrap());
    let finite = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap()).is_finite();
    assert!(state.values().all(|values| values.chunks_exact(4).all(finite)));
    // A later try meets the same step, and the same end.
    let mut again = open(&fixture("bert-mean"), recipe, Some(folder.path()));
    assert_eq!(again.steps(), trainer.steps());
    assert_eq!(again.step(&source).unwrap_err().to_string(), error);
}

/// Tensors that no vector depends on.
fn is_unused(name: &str) -> bool {
    name.contains("pooler") || name.contains("classifier") || name.contains("position_ids")
}

#[test]
fn the_checkpoint_of_a_run_is_the_trained_one() {
    let source = triples();
    let some = texts(12, |number| 1 + number % 9);
    let modules = ["model.safetensors", "2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"];
    for (model, heads) in [("bert-mean", 0), ("roberta-ance", 4), ("roberta-ance-st", 4)] {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, state] = ["first", "second", "state"].map(|name| folder.path().join(name));
        let recipe = recipe(Objective::InBatch, 20);
        let mut trainer = open(&fixture(model), recipe.clone(), None);
        run(&mut trainer, &source, 8);
        trainer.save(&state).unwrap();
        trainer.write_checkpoint(&first).unwrap();
        open(&fixture(model), recipe.clone(), Some(&state)).write_checkpoint(&second).unwrap();
        let written = files(&first);
        assert!(written == files(&second), "{model}: saved and gone on, the checkpoint is another");
        let error = trainer.write_checkpoint(&first).unwrap_err().to_string();
        assert!(error.contains("is there already") && files(&first) == written, "{error}");

        let source_files = files(&fixture(model));
        let mut changed_heads = 0;
        for file in modules.iter().filter(|file| source_files.contains_key(**file)) {
            let (old, new) = (tensors(&source_files[*file]), tensors(&written[*file]));
            assert_eq!(old.len(), new.len(), "{model}, {file}");
            for (name, values) in old {
                let is_same = new[&name] == values;
                assert_eq!(is_same, is_unused(&name), "{model}, {file}: {name} is the same: {is_same}");
                let is_head =
                    *file != "model.safetensors" || name.starts_with("embeddingHead.") || name.starts_with("norm.");
                changed_heads += usize::from(is_head);
            }
        }
        assert_eq!(changed_heads, heads, "{model}");
        for name in ["config.json", "tokenizer.json", "modules.json"] {
            assert!(written.get(name) == source_files.get(name), "{model}: {name}");
        }

        assert!(Checkpoint::open(&first, &Overrides::default()).is_ok());
        let (before, after) = (encoder(&fixture(model)), encoder(&first));
        let vectors = |encoder: &Encoder| encoder.encode_blocking(some.clone(), Side::Passage).unwrap().vectors;
        let (before, after) = (vectors(&before), vectors(&after));
        for (old, new) in before.iter().zip(&after) {
            assert!(new.iter().all(|value| value.is_finite()) && apart(old, new) > 1e-3, "{model}");
        }

        // What is served is what was trained: a run from the checkpoint meets the loss that the next step would.
        let next = trainer.step(&source).unwrap();
        let batch = source.batch(8, 8, 1).unwrap();
        let mut session = session(&first, recipe.loss, common::training::options());
        assert_eq!(session.step(&[batch], 0.0, 1).unwrap().loss, next.loss, "{model}");
    }
}
