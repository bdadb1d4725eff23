//! A Prometheus under test: the real one, over a configuration of its own, gone when the test ends.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, root};

/// How many ports are tried; more than one is seldom needed.
const PORTS: usize = 10;

/// The programs: of the machine, or where `make prometheus` puts them; none where they are not there.
pub fn program(name: &str) -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&on_path).chain([root().join(".cache/prometheus/usr/bin")]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs promtool over some input; returns what it said where it found a fault.
pub fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new(program("promtool").unwrap());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(()) } else { Err(said) }
}

pub struct Prometheus {
    child: Child,
    url: String,
}

impl Prometheus {
    /// Starts it over the configuration file and waits until it answers; what it writes goes into `folder`.
    pub fn start(configuration: &Path, folder: &Path) -> Self {
        // It takes no port from the system, and another process may be quicker to take a free one.
        (0..PORTS).find_map(|_| Self::try_start(configuration, folder)).unwrap_or_else(|| panic!("no port is free"))
    }

    /// None where another process has the port that seemed to be free.
    fn try_start(configuration: &Path, folder: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = folder.join("prometheus.log");
        let child = Command::new(program("prometheus").unwrap())
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("series").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut prometheus = Self { child, url: format!("http://127.0.0.1:{port}") };
        let said = || std::fs::read_to_string(&log).unwrap();
        let started = Instant::now();
        // What answers may be another program's, as long as this one has not said that it is ready.
        while !said().contains("Server is ready") || prometheus.now("vector(1)").is_err() {
            if let Some(status) = prometheus.child.try_wait().unwrap() {
                assert!(said().contains("address already in use"), "prometheus ended, {status}: {}", said());
                return None;
            }
            assert!(started.elapsed() < PATIENCE, "{}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(prometheus)
    }

    /// The `data` of an answer of its API; none while it is not there.
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let form = agent.get(format!("{}/api/v1/{path}", self.url)).query_pairs(parameters.iter().copied());
        let mut answer = form.call().map_err(|error| error.to_string())?;
        let body: Value = answer.body_mut().read_json().map_err(|error| error.to_string())?;
        if body["status"] == "success" { Ok(body["data"].clone()) } else { Err(body.to_string()) }
    }

    /// The series that an expression has now.
    pub fn now(&self, expression: &str) -> Result<Vec<Value>, String> {
        Ok(self.ask("query", &[("query", expression)])?["result"].as_array().unwrap().clone())
    }

    /// The series that an expression had at a time.
    pub fn at(&self, expression: &str, time: f64) -> Result<Vec<Value>, String> {
        let time = time.to_string();
        Ok(self.ask("query", &[("query", expression), ("time", &time)])?["result"].as_array().unwrap().clone())
    }

    /// The series that an expression had between two times, second by second.
    pub fn between(&self, expression: &str, [start, end]: [f64; 2]) -> Result<Vec<Value>, String> {
        let [start, end] = [start, end].map(|time| time.to_string());
        let parameters = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        Ok(self.ask("query_range", &parameters)?["result"].as_array().unwrap().clone())
    }

    pub fn rules(&self) -> Vec<Value> {
        let groups = self.ask("rules", &[]).unwrap()["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether any sample of some series is a number.
pub fn has_number(series: &[Value]) -> bool {
    let one = |sample: &Value| sample[1].as_str().unwrap().parse::<f64>().is_ok_and(f64::is_finite);
    series.iter().any(|of| match of["values"].as_array() {
        Some(values) => values.iter().any(one),
        None => one(&of["value"]),
    })
}
