//! A server under test: its own process, data folder and port, gone when the test ends.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

pub mod corpus;
pub mod dashboards;
pub mod generations;
pub mod jobs;
pub mod judged;
pub mod prometheus;
pub mod raw;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

pub mod random;
pub mod references;
pub mod training;

/// How long anything here may take: far more than it needs, also where it trains with the lowest priority beside whatever
/// else the machine does.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A tiny checkpoint of random weights: everything works on it, nothing takes long.
pub fn tiny_model() -> PathBuf {
    root().join("tests/fixtures/reference/bert-mean")
}

/// A command that comes to start the binary under test, in the repository's root, where `.onnxruntime/` lies. It has the
/// default settings: those of the environment and of an `anced.toml` there are of whoever runs the tests.
pub fn starter(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANCED_") && name != "ANCED_ONNXRUNTIME" {
            command.env_remove(name);
        }
    }
    command.current_dir(root()).env("ANCED_CONFIG", root().join("tests/fixtures/no-settings.toml"));
    command
}

/// The command line of the binary under test.
pub fn anced<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = starter(env!("CARGO_BIN_EXE_anced"));
    command.args(arguments);
    command
}

/// Says that a test is skipped, past the test harness, which keeps the output of tests that pass to itself. Where
/// `ANCED_REQUIRE_TOOLS` is 1, as in CI, nothing may be skipped.
pub fn skipped(why: &str) {
    let must_run = std::env::var_os("ANCED_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!must_run, "ANCED_REQUIRE_TOOLS is 1, and there is {why}");
    std::io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// How a command of the binary under test ended.
#[derive(Debug)]
pub struct Outcome {
    /// None where a signal ended it; 137 where it had to be killed because it did not end.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the binary under test to its end.
pub fn outcome<S: AsRef<std::ffi::OsStr>>(arguments: &[S], variables: &[(&str, String)]) -> Outcome {
    let mut command = starter("timeout");
    command.args(["-s", "KILL", "120", env!("CARGO_BIN_EXE_anced")]).args(arguments).stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Outcome { code: output.status.code(), stdout, stderr }
}

/// Tells the threads beside it to end, also where it is dropped by a failing assertion: a scope waits for them.
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A running server, on a port that the system gave it: no other server can have been asked in its place.
pub struct Server {
    child: Child,
    port: OnceLock<u16>,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

/// An answer: status, header of choice on demand, body.
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Server {
    /// Starts a server with the tiny checkpoint over a data folder and waits until it is ready.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    /// As [`Server::start`], with more arguments.
    pub fn start_with(data: &Path, arguments: &[&str]) -> Self {
        let server = Self::spawn(data, arguments);
        server.wait_until_ready();
        server
    }

    /// Starts a server and does not wait.
    pub fn spawn(data: &Path, arguments: &[&str]) -> Self {
        Self::spawn_by(&[], data, arguments)
    }

    /// As [`Server::spawn`], started by another command, such as a shell that sets limits.
    pub fn spawn_by(shell: &[&str], data: &Path, arguments: &[&str]) -> Self {
        let model = tiny_model();
        let mut all: Vec<std::ffi::OsString> = vec!["serve".into(), "--data".into(), data.into()];
        all.extend(["--listen".into(), "127.0.0.1:0".into()]);
        if !arguments.contains(&"--model") {
            all.extend(["--model".into(), model.into()]);
        }
        all.extend(arguments.iter().map(Into::into));
        let mut command = match shell {
            [] => anced(&all),
            [program, first @ ..] => {
                let mut command = starter(program);
                command.args(first).arg(env!("CARGO_BIN_EXE_anced")).args(&all);
                command
            }
        };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let of_reader = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
                of_reader.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Self { child, port: OnceLock::new(), log, reader: Some(reader) }
    }

    pub fn wait_until_ready(&self) {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.try_get("/readyz").is_some_and(|answer| answer.status == 200) {
                return;
            }
            assert!(!self.has_said_all(), "the server ended before it was ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not ready after {PATIENCE:?}");
    }

    /// Whether the process has closed its log, as it does by its end only.
    fn has_said_all(&self) -> bool {
        self.reader.as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    }

    /// The port that it listens on; waits until it does. Port 0, where nobody ever answers, for one that ended before.
    pub fn port(&self) -> u16 {
        *self.port.get_or_init(|| {
            let started = Instant::now();
            loop {
                // Asked first, so that nothing is said in between.
                let is_over = self.has_said_all();
                if let Some(port) = said_port(&self.log()) {
                    return port;
                }
                if is_over {
                    return 0;
                }
                assert!(started.elapsed() < PATIENCE, "not listening after {PATIENCE:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// What it wrote to standard error, as far as it has been read: a line of a moment ago may still be on its way.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
    }

    /// Sets a limit on the size of files that the process writes from now on, in bytes; none lifts it.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let bytes = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        // The soft limit alone, so that it can be lifted again.
        let limit = format!("--fsize={bytes}:unlimited");
        let set = Command::new("prlimit").args(["--pid", &self.pid().to_string(), &limit]).status();
        assert!(set.unwrap().success(), "prlimit (util-linux) is needed");
    }

    /// As [`Server::get`], of an answer that comes to its end when what it tells of does.
    pub fn listen(&self, path: &str) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        read(agent.get(format!("{}{path}", self.url())).call().unwrap())
    }

    pub fn try_get(&self, path: &str) -> Option<Answer> {
        Self::agent().get(format!("{}{path}", self.url())).call().ok().and_then(try_read)
    }

    /// Deletes; none where the connection broke.
    pub fn try_delete(&self, path: &str) -> Option<Answer> {
        Self::agent().delete(format!("{}{path}", self.url())).call().ok().and_then(try_read)
    }

    pub fn get(&self, path: &str) -> Answer {
        read(Self::agent().get(format!("{}{path}", self.url())).call().unwrap())
    }

    pub fn delete(&self, path: &str) -> Answer {
        read(Self::agent().delete(format!("{}{path}", self.url())).call().unwrap())
    }

    /// Posts a JSON value.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_raw(path, "application/json", body.to_string().as_bytes())
    }

    /// Posts bytes as they are.
    pub fn post_raw(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        self.try_post_raw(path, content_type, body).unwrap()
    }

    /// Posts bytes; none where the connection broke.
    pub fn try_post_raw(&self, path: &str, content_type: &str, body: &[u8]) -> Option<Answer> {
        let request = Self::agent().post(format!("{}{path}", self.url())).header("content-type", content_type);
        request.send(body).ok().and_then(try_read)
    }

    /// The ids that a search finds.
    pub fn search_ids(&self, query: &str, k: usize) -> Vec<String> {
        let answer = self.post("/search", &serde_json::json!({"query": query, "k": k}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let hits = answer.json();
        hits["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Ends the process at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends the process a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "{}", self.log());
    }

    /// Asks the process to stop and waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                // Its last lines may still be on their way.
                self.reader.take().map_or(Ok(()), std::thread::JoinHandle::join).unwrap();
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still running after {PATIENCE:?}");
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = self.reader.take().map(std::thread::JoinHandle::join);
            eprintln!("the server had ended by itself: {ended:?}; its log:\n{}", self.log());
        }
    }
}

/// The port in the line that says where a server listens, of either format of logs.
fn said_port(log: &str) -> Option<u16> {
    let line = log.lines().find(|line| line.contains("listening, getting ready"))?;
    let (_, address) = line.split_once("address")?;
    let (_, port) = address.split_once("127.0.0.1:")?;
    let digits = port.find(|character: char| !character.is_ascii_digit()).unwrap_or(port.len());
    port[..digits].parse().ok()
}

fn read(answer: ureq::http::Response<ureq::Body>) -> Answer {
    try_read(answer).unwrap()
}

/// The answer; none where the connection broke in the middle of its body.
fn try_read(answer: ureq::http::Response<ureq::Body>) -> Option<Answer> {
    let (parts, body) = answer.into_parts();
    let mut bytes = Vec::new();
    body.into_reader().read_to_end(&mut bytes).ok()?;
    Some(Answer { status: parts.status.as_u16(), headers: parts.headers, body: bytes })
}
