//! A real Prometheus scrapes a server through searches, writes, errors, a refresh and a roll-back; then every expression
//! of the dashboards and of the rules has to have an answer, as they lie in `deploy/`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use common::dashboards::{NAMES, dashboard, deploy, marks, shown, variables};
use common::generations::activate;
use common::jobs::PATIENCE;
use common::judged::prepared;
use common::prometheus::{Prometheus, has_number, program, promtool};
use common::{Ending, Server, skipped};
use serde_json::{Value, json};

/// Steps that nothing here waits for.
const MANY: u64 = 5000;

/// Says so and returns true where Prometheus cannot be had.
fn is_skipped() -> bool {
    let missing: Vec<&str> = ["prometheus", "promtool"].into_iter().filter(|name| program(name).is_none()).collect();
    if !missing.is_empty() {
        let missing = missing.join(" and no ");
        skipped(&format!("no {missing} on PATH or in .cache/prometheus; `make prometheus` fetches it"));
    }
    !missing.is_empty()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn seconds() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

/// The configuration of `deploy/` for a server of this machine, at a pace that a test can wait for.
fn configure(folder: &Path, port: u16) -> std::path::PathBuf {
    let deployed = std::fs::read_to_string(deploy().join("prometheus/prometheus.yml")).unwrap();
    let changes = [("anced:8080", format!("127.0.0.1:{port}")), ("_interval: 15s", "_interval: 1s".into())];
    let changed = changes.iter().fold(deployed, |text, (from, to)| {
        assert!(text.contains(from), "{text}");
        text.replace(from, to)
    });
    std::fs::copy(deploy().join("prometheus/rules.yml"), folder.join("rules.yml")).unwrap();
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, changed).unwrap();
    file
}

/// Requests of every kind, right and wrong ones, until `done`.
fn traffic(server: &Server, done: &AtomicBool) {
    for turn in 0.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        let ask = json!({"query": format!("when river breaks {turn}"), "k": 3});
        let many = json!({"queries": ["a garden", "a signal", "a winter"], "k": 2});
        let write = json!({"documents": [{"id": format!("n{}", turn % 50), "text": format!("a lamp {turn}")}]});
        let vote = json!({"query": "when engine grows 7", "id": "d7", "grade": turn % 2});
        let rows = [
            ("/search", ask, 200),
            ("/search", many, 200),
            ("/documents", write, 200),
            ("/feedback", vote, 200),
            ("/search", json!({"query": "a", "k": 0}), 422),
            ("/embed", json!({"texts": ["a"], "kind": "query"}), 200),
            ("/nowhere", json!({}), 404),
        ];
        for (path, body, status) in rows {
            let answer = server.post(path, &body);
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A refresh and a roll-back, with traffic before, meanwhile and after. Returns a moment at which one trained.
fn act(server: &Server, prometheus: &Prometheus) -> f64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| traffic(server, &done));
        // What is asserted here must end the test, not only this thread.
        let _ended = Ending(&done);
        wait_until("two scrapes", || {
            prometheus.now("count_over_time(up[1m]) > 1").is_ok_and(|found| !found.is_empty())
        });
        let refresh = |steps: u64| {
            let texts = json!({"query_tokens": 16, "passage_tokens": 24});
            let mut body = json!({"rounds": 2, "steps": steps, "batch": 4, "depth": 10, "tolerance": 1});
            body.as_object_mut().unwrap().extend(texts.as_object().unwrap().clone());
            let started = server.post("/admin/refresh", &body);
            assert_eq!(started.status, 202, "{}", started.text());
            format!("/admin/jobs/{}", started.json()["job"].as_str().unwrap())
        };
        let ended = |path: &str| {
            wait_until("the end of the refresh", || server.get(path).json()["state"] != "running");
            server.get(path).json()["state"].clone()
        };
        // One that lasts until it was scraped for some seconds, however fast the machine is, then one to the end.
        let long = refresh(MANY);
        let stepping = "min_over_time(anced_refresh_running[4s]) == 1 and min_over_time(anced_refresh_step[4s]) > 0";
        wait_until("steps", || prometheus.now(stepping).is_ok_and(|found| !found.is_empty()));
        let trained = seconds();
        assert_eq!(server.delete(&long).status, 200);
        assert_eq!(ended(&long), "cancelled", "{}", server.log());
        assert_eq!(ended(&refresh(30)), "done", "{}", server.log());
        activate(server, 1);
        // The last things that happened are scraped, and shown by a rate.
        let scraped = "anced_live_generation == 1 and on (instance) anced_swaps_total{result=\"done\"} == 2";
        wait_until("a scrape of the end", || prometheus.now(scraped).is_ok_and(|found| !found.is_empty()));
        let since = seconds();
        wait_until("two more scrapes", || seconds() - since > 2.5);
        done.store(true, Ordering::Release);
        busy.join().unwrap();
        trained
    })
}

/// An expression of a dashboard as Grafana sends it, all servers and routes chosen.
fn substituted(expression: &str, dashboard: &Value, range: f64) -> String {
    let mut text = expression.replace("$__rate_interval", "5s").replace("$__range", &format!("{}s", range.ceil()));
    for variable in variables(dashboard) {
        text = text.replace(&format!("${}", variable["name"].as_str().unwrap()), ".*");
    }
    assert!(!text.contains('$'), "{text}");
    text
}

/// What an alert looks at: its expression without the comparisons, which do not hold in a sound server.
fn observed(expression: &str) -> Vec<&str> {
    let parts = expression.split(" and ");
    parts
        .map(|part| {
            let at = part.rfind(" > ").max(part.rfind(" < "));
            part[..at.unwrap_or_else(|| panic!("{part} compares nothing"))].trim()
        })
        .collect()
}

#[test]
fn what_lies_in_deploy_passes_promtool() {
    if is_skipped() {
        return;
    }
    let file = |name: &str| deploy().join("prometheus").join(name).to_str().unwrap().to_owned();
    for arguments in [
        ["check", "config", &file("prometheus.yml")],
        ["check", "rules", &file("rules.yml")],
        ["test", "rules", &file("rules_test.yml")],
    ] {
        promtool(&arguments, "").unwrap_or_else(|said| panic!("{arguments:?}: {said}"));
    }
    // Every alert has a test in which it fires and one in which it does not.
    let rules = std::fs::read_to_string(file("rules.yml")).unwrap();
    let tests = std::fs::read_to_string(file("rules_test.yml")).unwrap();
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "no test lets {alert} fire");
    }
}

#[test]
fn every_panel_and_every_rule_has_an_answer() {
    if is_skipped() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    prepared(data.path());
    let server = Server::start(data.path());
    promtool(&["check", "metrics"], &server.get("/metrics").text()).unwrap_or_else(|said| panic!("before: {said}"));
    let folder = tempfile::tempdir().unwrap();
    let start = seconds();
    let prometheus = Prometheus::start(&configure(folder.path(), server.port()), folder.path());
    let trained = act(&server, &prometheus);
    promtool(&["check", "metrics"], &server.get("/metrics").text()).unwrap_or_else(|said| panic!("after: {said}"));

    let range = seconds() - start;
    let times = [start, start + range];
    let mut missing = Vec::new();
    let mut ask = |place: String, expression: &str, instant: bool| {
        // What a panel shows of a moment may be nothing between refreshes.
        let found = match instant.then(|| prometheus.now(expression)) {
            None => prometheus.between(expression, times),
            Some(Ok(series)) if series.is_empty() => prometheus.at(expression, trained),
            Some(found) => found,
        };
        match found {
            Ok(series) if has_number(&series) => {}
            other => missing.push(format!("{place}: {expression}: {other:?}")),
        }
    };
    for name in NAMES {
        let dashboard = dashboard(name);
        for panel in shown(&dashboard) {
            for target in panel["targets"].as_array().unwrap() {
                let expression = substituted(target["expr"].as_str().unwrap(), &dashboard, range);
                ask(format!("{name}: {}", panel["title"]), &expression, target["instant"] == true);
            }
        }
        for mark in marks(&dashboard) {
            let expression = substituted(mark["expr"].as_str().unwrap(), &dashboard, range);
            ask(format!("{name}: {}", mark["name"]), &expression, false);
        }
        for variable in variables(&dashboard).iter().filter(|variable| variable["type"] == "query") {
            let query = variable["query"]["query"].as_str().unwrap();
            let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            let selector = substituted(selector, &dashboard, range);
            ask(format!("{name}: ${}", variable["name"]), &format!("count by ({label}) ({selector})"), false);
        }
    }
    let rules = prometheus.rules();
    for rule in &rules {
        assert!(rule["health"] == "ok", "{rule}");
        let expression = rule["query"].as_str().unwrap();
        let observed = if rule["type"] == "alerting" { observed(expression) } else { vec![expression] };
        for part in observed {
            ask(format!("rule {}", rule["name"]), part, false);
        }
    }
    assert!(rules.len() > 10, "{rules:?}");
    assert!(missing.is_empty(), "{}", missing.join("\n"));

    // What is measured goes with its generation; a route that clients make up makes no series.
    assert_eq!(server.delete("/admin/generations/2").status, 200);
    let text = server.get("/metrics").text();
    assert!(!text.contains("anced_refresh_measure{generation=\"2\"") && !text.contains("nowhere"), "{text}");
    assert!(text.contains("anced_refreshes_total{result=\"done\"} 1"), "{text}");
}
