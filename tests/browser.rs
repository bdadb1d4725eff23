//! The page in a real browser: what a person sees and does on it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;
#[path = "common/browser.rs"]
mod driven;

use std::path::Path;

use common::Server;
use common::corpus::fill;
use common::judged::prepared;
use driven::{DESKTOP, PHONE, Page, Screen, browse};
use serde_json::json;

/// A refresh over the small set, on the tiny checkpoint: the rate makes it learn something in a few steps.
const LEARNS: [&str; 5] =
    ["env", "ANCED_LR=0.002", "ANCED_QUERY_TOKENS=16", "ANCED_PASSAGE_TOKENS=24", "ANCED_TOLERANCE=1"];

fn serve(data: &Path, more: &[&str]) -> Server {
    prepared(data);
    let server = Server::spawn_by(&LEARNS, data, more);
    server.wait_until_ready();
    fill(&server);
    server
}

/// Sets how long a refresh is and starts it.
async fn start(page: &Page, rounds: u32, steps: u32) {
    page.until("!document.querySelector('#start-button').disabled").await;
    page.fill("#rounds", &rounds.to_string()).await;
    page.fill("#steps", &steps.to_string()).await;
    page.click("#start-button").await;
}

/// How many points a chart has.
fn points(chart: &str) -> String {
    format!("Number(document.querySelector('#{chart}').dataset.points)")
}

/// Pixels of a chart that are drawn in the colour of its curve.
async fn drawn(page: &Page, chart: &str, colour: &str) -> u64 {
    let script = format!(
        "const canvas = document.querySelector('#{chart} canvas');
         const {{ data }} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
         const probe = document.createElement('canvas').getContext('2d');
         probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--{colour}').trim();
         probe.fillRect(0, 0, 1, 1);
         const [red, green, blue] = probe.getImageData(0, 0, 1, 1).data;
         let count = 0;
         for (let at = 0; at < data.length; at += 4) {{
           count += data[at] === red && data[at + 1] === green && data[at + 2] === blue && data[at + 3] === 255;
         }}
         return count;"
    );
    page.run(&script).await.as_u64().unwrap()
}

#[test]
fn a_refresh_from_the_page() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &[]);
    let url = server.url.clone();
    browse(DESKTOP, &[], async move |page| {
        page.open(format!("{url}/training")).await;
        page.until_says("#outlook", "40 queries to train on, 20 queries to measure with").await;
        assert_eq!(page.text("#jobs").await, "None yet.");
        page.shoot("training-before").await;
        start(&page, 2, 150).await;

        page.until(&format!("{} > 20", points("loss-chart"))).await;
        page.until_says("#job-state", "running").await;
        assert_eq!(page.value("document.querySelector('#start-button').disabled").await, true);
        let before = drawn(&page, "loss-chart", "curve-1").await;
        page.shoot("training-during").await;

        // Loaded again in the middle of it, the page shows what was and what comes.
        page.open(format!("{url}/training")).await;
        page.until(&format!("{} > 60", points("loss-chart"))).await;
        assert!(page.value("Number(document.querySelector('#bar').value)").await.as_u64().unwrap() > 60);

        page.until_says("#notice", "Generation 2 is live: nDCG@10").await;
        assert_eq!(page.value(&points("loss-chart")).await, 300);
        assert_eq!(page.value(&points("measures-chart")).await, 3);
        let after = drawn(&page, "loss-chart", "curve-1").await;
        assert!(before > 20 && after > before, "{before} {after}");
        for curve in ["curve-1", "curve-2", "curve-3"] {
            assert!(drawn(&page, "measures-chart", curve).await > 20, "{curve}");
        }
        assert_eq!(page.count("#by-round tbody tr").await, 3);
        page.until_says("#generations tbody tr:first-child .badge", "live").await;
        page.until_says("#live", "generation 2").await;
        assert_eq!(page.count("#generations tbody tr").await, 2);
        assert_eq!(
            page.count("#generations small.better, #generations small.worse").await,
            3,
            "apart from the live one"
        );
        page.shoot("training-after").await;

        page.click("#generations [aria-label='Make generation 1 live']").await;
        page.shoot("training-question").await;
        page.click("#confirm-no").await;
        page.until("!document.querySelector('#confirm').open").await;
        assert!(page.text("#live").await.contains("generation 2"), "asked and not done");
        page.click("#generations [aria-label='Make generation 1 live']").await;
        page.click("#confirm-yes").await;
        page.until_says("#notice", "Generation 1 is live instead of 2").await;
        page.until_says("#live", "generation 1").await;
        page.click("#generations [aria-label='Delete generation 2']").await;
        page.click("#confirm-yes").await;
        page.until_says("#notice", "Generation 2 is deleted").await;
        page.until("document.querySelectorAll('#generations tbody tr').length === 1").await;
    });
    drop(server);
}
