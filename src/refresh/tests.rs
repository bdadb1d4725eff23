//! What needs no process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

use super::events::EventLog;
use super::{Error, Events, disk};

#[tokio::test]
async fn who_comes_late_hears_everything_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events");
    // The second line was cut off by a kill.
    std::fs::write(&path, "{\"event\": \"started\"}\n{\"eve").unwrap();
    let log = EventLog::open(&path).unwrap();
    log.tell(r#"{"event": "step", "step": 1}"#, true);
    let mut late = log.listen(0).unwrap();
    let mut later = log.listen(2).unwrap();
    log.tell(r#"{"event": "phase"}"#, false);
    log.tell(r#"{"event": "ended"}"#, true);
    let mut heard = Vec::new();
    while let Some(told) = late.next().await {
        heard.push((told.number, told.kind));
    }
    let expected = [(Some(1), "started"), (Some(3), "step"), (None, "phase"), (Some(4), "ended")];
    assert_eq!(heard, expected.map(|(number, kind)| (number, kind.to_owned())));
    assert_eq!(later.next().await.unwrap().number, Some(3));
    let mut past = Events::past(&path, 3).unwrap();
    assert_eq!(past.next().await.unwrap().kind, "ended", "progress is not kept");
    assert!(past.next().await.is_none());
}

#[test]
fn a_full_disk_is_told_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    disk::check(folder.path(), 1).unwrap();
    let error = disk::check(folder.path(), u64::MAX).unwrap_err();
    let Error::NoRoom { needed, free, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains(&format!("{} are missing", needed - free)), "{error}");
}
