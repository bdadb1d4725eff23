//! The dashboards of `deploy/` as values.

use std::path::PathBuf;

use serde_json::Value;

use super::root;

pub const NAMES: [&str; 2] = ["search", "refresh"];

pub fn deploy() -> PathBuf {
    root().join("deploy")
}

pub fn dashboard(name: &str) -> Value {
    let file = deploy().join(format!("grafana/dashboards/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Its panels, those of rows among them.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let above = dashboard["panels"].as_array().unwrap();
    let within = above.iter().flat_map(|panel| panel["panels"].as_array().into_iter().flatten());
    above.iter().chain(within).collect()
}

/// Its panels that show something.
pub fn shown(dashboard: &Value) -> Vec<&Value> {
    panels(dashboard).into_iter().filter(|panel| panel["type"] != "row").collect()
}

/// Its annotations that ask Prometheus.
pub fn marks(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["annotations"]["list"].as_array().unwrap().iter();
    all.filter(|mark| mark.get("builtIn").is_none()).collect()
}

pub fn variables(dashboard: &Value) -> Vec<&Value> {
    dashboard["templating"]["list"].as_array().unwrap().iter().collect()
}
