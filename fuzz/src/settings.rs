//! A configuration file: settings, the plan of a training, and whether a server may listen.

use anced::ance::Plan;
use anced::http::check_listen;
use anced::settings::Settings;

use super::scratch;

pub fn run(input: &[u8]) {
    let folder = scratch();
    let file = folder.path().join("anced.toml");
    std::fs::write(&file, input).unwrap();
    let Ok(settings) = Settings::load(Some(&file), &[]) else { return };
    let _ = check_listen(&settings);
    if let Ok(plan) = Plan::from_settings(&settings) {
        plan.check().unwrap();
    }
}
