//! What is told of a server that has no index yet.

use super::*;

#[tokio::test]
async fn the_disk_is_watched_before_there_is_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(Settings { data: folder.path().into(), ..Settings::default() });
    let text = get(&server, "/metrics").await.text();
    for name in ["anced_data_disk_free_bytes ", "anced_data_disk_size_bytes "] {
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        assert!(value.parse::<f64>().is_ok_and(|value| value > 0.0), "{name}{value}");
    }
}
