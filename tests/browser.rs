//! The page in a real browser: what a person sees and does on it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;
#[path = "common/browser.rs"]
mod driven;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::Server;
use common::corpus::{metrics, wait_for};
use common::judged::serve;
use driven::{DESKTOP, PHONE, Page, Screen, browse, points};
use serde_json::json;
use thirtyfour::Key;

/// Pixels of a chart that are drawn in the colour of its curve.
async fn drawn(page: &Page, chart: &str, colour: &str) -> u64 {
    let script = format!(
        "const canvas = document.querySelector('#{chart} canvas');
         const copy = Object.assign(document.createElement('canvas'), {{ width: canvas.width, height: canvas.height }});
         const probe = copy.getContext('2d', {{ willReadFrequently: true }});
         probe.drawImage(canvas, 0, 0);
         const {{ data }} = probe.getImageData(0, 0, canvas.width, canvas.height);
         probe.clearRect(0, 0, 1, 1);
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
    browse(DESKTOP, &[], |page| refresh_from_the_page(page, server.url()));
}

async fn refresh_from_the_page(page: Page, url: String) {
    page.open(format!("{url}/training")).await;
    page.until_says("#outlook", "40 queries to train on, 20 queries to measure with").await;
    assert_eq!(page.text("#jobs").await, "None yet.");
    page.shoot("training-before").await;
    page.start(2, 150).await;

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
    assert!(page.text("#live").await.contains("bert-mean"), "the model keeps its name");
    assert_eq!(page.count("#generations tbody tr").await, 2);
    assert_eq!(page.count("#generations small").await, 3, "differences to the live one");
    page.shoot("training-after").await;

    page.click("#generations [aria-label='Make generation 1 live']").await;
    page.shoot("training-question").await;
    page.click("#confirm-no").await;
    page.until("!document.querySelector('#confirm').open").await;
    assert!(page.text("#live").await.contains("generation 2"), "asked and not done");
    // Asked again before the browser has told that the first question is closed: that one's no is not this one's.
    page.run(
        "const make = document.querySelector(`#generations [aria-label='Make generation 1 live']`);
         const question = document.querySelector('#confirm');
         const asked = async () => { while (!question.open) await null; };
         return (async () => {
           make.click();
           await asked();
           question.close();
           make.click();
         })();",
    )
    .await;
    page.until("document.querySelector('#confirm').open").await;
    page.click("#confirm-yes").await;
    page.until_says("#notice", "Generation 1 is live instead of 2").await;
    page.until_says("#live", "generation 1").await;
    page.click("#generations [aria-label='Delete generation 2']").await;
    page.click("#confirm-yes").await;
    page.until_says("#notice", "Generation 2 is deleted").await;
    page.until("document.querySelectorAll('#generations tbody tr').length === 1").await;
}

#[test]
fn a_search_a_filter_and_a_vote() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &[]);
    browse(DESKTOP, &[], |page| search_filter_and_vote(page, server.url()));
    let votes = metrics(&server).into_iter().filter(|(name, _)| name.starts_with("anced_feedback_total"));
    assert_eq!(votes.map(|(_, count)| count).sum::<f64>(), 1.0);
}

async fn search_filter_and_vote(page: Page, url: String) {
    page.open(url).await;
    page.until_says("#live", "360 documents").await;
    page.fill("#query", "title 7 number 7 about").await;
    page.until("document.querySelectorAll('.hit').length === 10").await;
    page.until_says("#timing", "on the server").await;
    page.click("#filters-toggle").await;
    page.fill("#pair", "lang=de").await;
    page.click("#pair-add").await;
    page.until_says("#active", "lang=de").await;
    page.until("[...document.querySelectorAll('.hit .facts')].every((hit) => hit.textContent.includes('lang de'))")
        .await;
    assert_eq!(page.count(".hit").await, 10);
    assert!(page.value("location.search").await.as_str().unwrap().contains("f=lang%3Dde"));
    page.click(".hit .thumb.up").await;
    page.until_says(".hit .thumbs", "Noted as relevant").await;
    page.assert_fits(1280).await;
    page.shoot("search").await;
    page.fill("#raw", "{").await;
    page.keys(Key::Tab.value().to_string()).await;
    page.until_says("#raw-error", "Not JSON").await;
}

/// A data folder in which a refresh has made a second generation, and one was cancelled.
fn with_past(data: &Path) -> Server {
    let server = serve(data, &[]);
    for (rounds, steps) in [(3, 40), (2, 5000)] {
        let answer = server.post("/admin/refresh", &json!({"rounds": rounds, "steps": steps}));
        let id = answer.json()["job"].as_str().unwrap().to_owned();
        let job = || server.get(&format!("/admin/jobs/{id}")).json();
        if steps == 5000 {
            wait_for("a step", || job()["step"].as_u64() > Some(20));
            let cancelled = server.delete(&format!("/admin/jobs/{id}"));
            assert_eq!(cancelled.status, 200, "{}", cancelled.text());
        }
        wait_for("its end", || server.get("/admin/refresh").json()["refused"].is_null());
    }
    server
}

#[test]
fn nothing_is_wider_than_a_phone() {
    let data = tempfile::tempdir().unwrap();
    let server = with_past(data.path());
    let dark = Screen { is_dark: true, ..DESKTOP };
    for (screen, name) in [(PHONE, "phone"), (Screen { is_dark: true, ..PHONE }, "phone-dark"), (dark, "dark")] {
        browse(screen, &[], |page| both_pages_fit(page, server.url(), screen.width.into(), name));
    }
}

async fn both_pages_fit(page: Page, url: String, width: u64, name: &'static str) {
    page.open(format!("{url}/?q=river+breaks&f=lang%3Den&k=5")).await;
    page.until("document.querySelectorAll('.hit').length === 5").await;
    page.assert_fits(width).await;
    page.shoot(&format!("search-{name}")).await;
    page.open(format!("{url}/training")).await;
    page.until("document.querySelectorAll('#jobs tbody tr').length === 2").await;
    page.until_says("#job-state", "cancelled").await;
    page.until(&format!("{} > 20", points("loss-chart"))).await;
    page.assert_fits(width).await;
    page.shoot(&format!("training-cancelled-{name}")).await;
    page.click("#jobs tbody tr:last-child button").await;
    page.until_says("#job-state", "done").await;
    page.until(&format!("{} === 120", points("loss-chart"))).await;
    assert_eq!(page.value(&points("measures-chart")).await, 4);
    assert!(page.value("location.search").await.as_str().unwrap().starts_with("?job="));
    page.assert_fits(width).await;
    page.shoot(&format!("training-{name}")).await;
    page.click("#generations [aria-label='Delete generation 1']").await;
    page.until("document.querySelector('#confirm').open").await;
    page.assert_fits(width).await;
}

#[test]
fn everything_is_reached_by_keys() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &[]);
    browse(DESKTOP, &[], |page| by_keys(page, server.url()));
}

async fn by_keys(page: Page, url: String) {
    let (enter, space) = (Key::Enter.value().to_string(), Key::Space.value().to_string());
    page.open(url).await;
    page.until("document.activeElement.id === 'query'").await;
    // Typing searches, once or more where it takes long, and so does Enter.
    let asked = "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/search')).length";
    let mut searches = 0;
    for keys in ["river", &enter] {
        page.keys(keys).await;
        page.until(&format!("{asked} > {searches}")).await;
        page.until("document.querySelector('#results').ariaBusy === 'false'").await;
        assert_eq!(page.count(".hit").await, 10);
        searches = page.settled(asked).await;
    }
    page.keys(Key::Down.value().to_string()).await;
    page.until("document.activeElement.matches('.hit')").await;
    page.keys("j+").await;
    page.until_says("li:nth-child(2) .thumbs", "Noted as relevant").await;
    page.keys("/").await;
    page.until("document.activeElement.id === 'query'").await;

    page.run("document.querySelector('.skip').focus()").await;
    page.tab_to("#training").await;
    page.keys(&enter).await;
    page.until("!document.querySelector('#start-button').disabled").await;
    page.tab_to("#rounds").await;
    page.keys(format!("{}1", Key::Control + "a")).await;
    page.keys(Key::Tab.value().to_string()).await;
    page.keys(format!("{}30", Key::Control + "a")).await;
    page.tab_to("#start-button").await;
    page.keys(&enter).await;
    page.until_says("#notice", "Generation 2 is live").await;
    page.tab_to("[aria-label='Make generation 1 live']").await;
    page.keys(&space).await;
    page.until("document.activeElement.id === 'confirm-no'").await;
    page.keys(Key::Escape.value().to_string()).await;
    page.until("document.activeElement.getAttribute('aria-label') === 'Make generation 1 live'").await;
    page.keys(&enter).await;
    page.until("document.activeElement.id === 'confirm-no'").await;
    page.tab_to("#confirm-yes").await;
    page.keys(&enter).await;
    page.until_says("#notice", "Generation 1 is live instead of 2").await;
}

#[test]
fn the_page_asks_for_the_admin_key() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &["--admin-key", "letmein"]);
    browse(DESKTOP, &["401"], |page| with_a_key(page, server.url()));
}

async fn with_a_key(page: Page, url: String) {
    page.open(format!("{url}/training")).await;
    page.until_says("#key-detail", "this needs the admin key").await;
    assert_eq!(page.value("document.querySelector('#board').hidden").await, true);
    page.fill("#key", "guess").await;
    page.click("#key-form button").await;
    page.until_says("#key-detail", "The key was not accepted").await;
    page.shoot("training-key").await;
    page.fill("#key", "letmein").await;
    page.click("#key-form button").await;
    page.start(1, 20).await;
    page.until_says("#notice", "Generation 2 is live").await;
    page.until_says("#live", "generation 2").await;
    page.open(format!("{url}/training")).await;
    page.until_says("#job-state", "done").await;
    page.click("#forget").await;
    page.until_says("#key-detail", "this needs the admin key").await;
}

#[test]
fn what_cannot_start_says_why() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let url = server.url();
    browse(DESKTOP, &[], async move |page| {
        page.open(format!("{url}/training")).await;
        page.until_says("#refused", "0 train queries with a positive, at least 32 are needed").await;
        assert_eq!(page.value("document.querySelector('#start-button').disabled").await, true);
        page.shoot("training-nothing").await;
    });
}

#[test]
fn a_refresh_is_cancelled_and_gone_on_with() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &[]);
    browse(DESKTOP, &["409"], |page| cancelled_and_resumed(page, server.url()));
}

async fn cancelled_and_resumed(page: Page, url: String) {
    page.open(format!("{url}/training")).await;
    page.until("!document.querySelector('#start-button').disabled").await;
    // Somebody else is quicker: the page says so, and shows that one.
    let body = json!({"rounds": 1, "steps": 5000});
    let theirs = ureq::post(format!("{url}/admin/refresh")).send_json(body).unwrap().body_mut().read_json();
    let theirs: serde_json::Value = theirs.unwrap();
    page.click("#start-button").await;
    page.until_says("#refused", &format!("job {} runs", theirs["job"].as_str().unwrap())).await;
    page.until(&format!("{} > 10", points("loss-chart"))).await;
    page.click("#job-actions button").await;
    page.until_says("#notice", "cancelled; it can be resumed").await;
    page.until_says("#job-actions", "Resume").await;
    let steps = page.value(&points("loss-chart")).await.as_u64().unwrap();
    page.click("#job-actions .primary").await;
    page.until_says("#job-state", "running").await;
    page.until(&format!("{} > {}", points("loss-chart"), steps + 10)).await;
    page.until_says("#job-facts", "resumed 1 time").await;
    page.click("#job-actions button").await;
    page.until_says("#job-actions", "Discard").await;
    page.click("#job-actions button:last-child").await;
    page.click("#confirm-yes").await;
    page.until_says("#job-reason", "was removed").await;
    assert_eq!(page.count("#job-actions button").await, 0);
}

/// Passes connections on to a server, and can cut all that there are.
struct Cable {
    port: u16,
    lines: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&lines);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(("127.0.0.1", server)).unwrap());
                held.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    std::thread::spawn(move || {
                        // A line that was cut ends both ways.
                        let _ = std::io::copy(&mut from, &mut to).and_then(|_| to.flush());
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port, lines }
    }

    fn cut(&self) {
        for line in self.lines.lock().unwrap().drain(..) {
            let _ = line.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_broken_connection_is_taken_up_again() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &[]);
    let cable = Cable::to(server.port());
    browse(DESKTOP, &["net::ERR_"], |page| over_a_cable(page, cable));
}

async fn over_a_cable(page: Page, cable: Cable) {
    page.open(format!("http://127.0.0.1:{}/training", cable.port)).await;
    page.start(1, 200).await;
    for steps in [20, 60, 100] {
        page.until(&format!("{} > {steps}", points("loss-chart"))).await;
        cable.cut();
    }
    page.until_says("#notice", "Generation 2 is live").await;
    assert_eq!(page.value(&points("loss-chart")).await, 200, "none is missing, none is there twice");
}
