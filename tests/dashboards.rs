//! What lies in `deploy/` is well-formed: dashboards that an operator can read, a compose file that opens nothing.
//! `tests/prometheus.rs` asks a real Prometheus what the dashboards ask.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;

use std::collections::BTreeSet;

use anced::settings::Settings;
use common::dashboards::{NAMES, dashboard, deploy, marks, panels, shown, variables};
use common::root;
use serde_json::Value;

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn panels_have_their_own_ids_and_places() {
    for name in NAMES {
        let dashboard = dashboard(name);
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(number(&panel["id"])), "{name}: {title} has the id of another panel");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| number(&panel["gridPos"][key]));
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}: {title} leaves the grid");
            for (column, line) in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
                assert!(taken.insert((column, line)), "{name}: {title} covers another panel");
            }
        }
    }
}

#[test]
fn panels_say_what_they_show_and_in_which_unit() {
    for name in NAMES {
        let dashboard = dashboard(name);
        let mut titles = BTreeSet::new();
        for panel in shown(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(!title.is_empty() && titles.insert(title), "{name}: `{title}` twice");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{name}: {title}");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(unit.is_some_and(|unit| !unit.is_empty()), "{name}: {title} has no unit");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{name}: {title}");
            let names: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
            assert_eq!(names.len(), targets.len(), "{name}: {title}");
            for target in targets {
                assert!(target["legendFormat"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {title}");
            }
        }
    }
}

#[test]
fn everything_asks_the_chosen_data_source_and_the_chosen_servers() {
    for name in NAMES {
        let dashboard = dashboard(name);
        assert!(dashboard["id"].is_null() && number(&dashboard["schemaVersion"]) >= 39, "{name}");
        let chosen = |value: &Value| value["datasource"]["uid"] == "${datasource}";
        let mut expressions: Vec<&str> = Vec::new();
        for panel in shown(&dashboard) {
            assert!(chosen(panel), "{name}: {}", panel["title"]);
            for target in panel["targets"].as_array().unwrap() {
                assert!(chosen(target), "{name}: {}", panel["title"]);
                expressions.push(target["expr"].as_str().unwrap());
            }
        }
        for mark in marks(&dashboard) {
            assert!(chosen(mark), "{name}: {}", mark["name"]);
            expressions.push(mark["expr"].as_str().unwrap());
        }
        for expression in &expressions {
            assert!(expression.contains("$instance"), "{name}: {expression} shows servers that were not chosen");
            // Ranges that are written down miss samples where Prometheus scrapes more seldom.
            assert!(!expression.split('[').skip(1).any(|rest| !rest.starts_with("$__")), "{name}: {expression}");
        }
        let declared: BTreeSet<&str> =
            variables(&dashboard).iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        let text = dashboard.to_string();
        for variable in &declared {
            assert!(text.contains(&format!("${variable}")) || text.contains(&format!("${{{variable}}}")), "{variable}");
        }
        for expression in &expressions {
            for used in expression.split('$').skip(1) {
                let used: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                assert!(used.starts_with("__") || declared.contains(used.as_str()), "{name}: ${used}");
            }
        }
    }
    let uids: BTreeSet<String> = NAMES.iter().map(|name| dashboard(name)["uid"].to_string()).collect();
    assert_eq!(uids.len(), NAMES.len());
}

#[test]
fn the_compose_file_listens_on_this_machine_only_and_pins_versions() {
    let compose = std::fs::read_to_string(deploy().join("compose.yaml")).unwrap();
    let items = |key: &str| {
        let header = format!("    {key}:\n");
        let parts = compose.split(&header).skip(1);
        let lines = parts.flat_map(|part| part.lines().map_while(|line| line.strip_prefix("      - ")));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let ports = items("ports");
    assert!(ports.len() == 3 && ports.iter().all(|port| port.starts_with("127.0.0.1:")), "{ports:?}");
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    for image in images.filter(|image| !image.starts_with("anced:")) {
        let version = image.split_once(":v").or(image.split_once(':')).unwrap().1;
        assert!(
            version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok()),
            "{image}"
        );
    }
    for volume in items("volumes").iter().filter_map(|volume| volume.strip_prefix("./")) {
        let path = volume.split(':').next().unwrap();
        assert!(deploy().join(path).exists(), "{path} is mounted and not there");
    }
}

/// A variable that is no setting keeps the server from starting.
#[test]
fn variables_of_the_deployments_are_settings() {
    let settings = serde_json::to_value(Settings::default()).unwrap();
    for file in ["Dockerfile", "deploy/compose.yaml", "deploy/systemd/anced.service", "deploy/kubernetes/anced.yaml"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let said = text.split("ANCED_").skip(1);
        let names = said.map(|rest| rest.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_').next());
        let names: BTreeSet<String> = names.map(|name| name.unwrap().to_ascii_lowercase()).collect();
        assert!(names.len() >= 2, "{file}: {names:?}");
        for name in names {
            assert!(settings.get(&name).is_some(), "{file}: {name} is no setting");
        }
    }
    // Kubernetes would add ANCED_PORT, ANCED_SERVICE_HOST and more, after the service.
    let pods = std::fs::read_to_string(deploy().join("kubernetes/anced.yaml")).unwrap();
    assert!(pods.contains("\n      enableServiceLinks: false\n"));
}
