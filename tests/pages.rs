//! The pages in a real browser where somebody else acts meanwhile, a key is asked for, or something fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends by panicking")]

mod common;
#[path = "common/browser.rs"]
mod driven;

use common::Server;
use common::corpus::{document, wait_for};
use common::generations::two_generations;
use common::judged::serve;
use driven::{DESKTOP, Page, browse};
use serde_json::{Value, json};
use thirtyfour::Key;

/// Starts a refresh as somebody else would.
fn start_elsewhere(url: &str, steps: u32) -> String {
    let body = json!({"rounds": 1, "steps": steps});
    let job: Value =
        ureq::post(format!("{url}/admin/refresh")).send_json(body).unwrap().body_mut().read_json().unwrap();
    job["job"].as_str().unwrap().to_owned()
}

fn state_of(url: &str, job: &str) -> String {
    let job: Value = ureq::get(format!("{url}/admin/jobs/{job}")).call().unwrap().body_mut().read_json().unwrap();
    job["state"].as_str().unwrap().to_owned()
}

fn cancel_elsewhere(url: &str, job: &str) {
    ureq::delete(format!("{url}/admin/jobs/{job}")).call().unwrap();
}

/// Until the page says that a refresh can be started, and nothing against it.
async fn until_startable(page: &Page) {
    page.until("!document.querySelector('#start-button').disabled").await;
    assert_eq!(page.text("#refused").await, "");
}

#[test]
fn what_others_do_opens_and_closes_the_start_of_a_refresh() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &[]);
    let url = server.url();
    let old = start_elsewhere(&url, 5);
    wait_for("the end of the first", || state_of(&url, &old) == "done");
    browse(DESKTOP, &["409"], |page| beside_others(page, url, old));
}

async fn beside_others(page: Page, url: String, old: String) {
    // A link to an older refresh while one runs.
    let other = start_elsewhere(&url, 5000);
    page.open(format!("{url}/training?job={old}")).await;
    page.until_says("#job-state", "done").await;
    page.until_says("#refused", "A refresh runs").await;
    cancel_elsewhere(&url, &other);
    until_startable(&page).await;

    // Somebody else is quicker, and then another one is looked at.
    let other = start_elsewhere(&url, 5000);
    page.click("#start-button").await;
    page.until_says("#refused", &format!("job {other} runs")).await;
    page.click("#jobs tbody tr:last-child button").await;
    page.until_says("#job-state", "done").await;
    cancel_elsewhere(&url, &other);
    until_startable(&page).await;

    // The page's own, left for another one.
    page.start(1, 5000).await;
    page.until_says("#job-state", "running").await;
    let jobs: Value = ureq::get(format!("{url}/admin/jobs")).call().unwrap().body_mut().read_json().unwrap();
    let own = jobs["jobs"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    page.click("#jobs tbody tr:last-child button").await;
    page.until_says("#job-state", "done").await;
    cancel_elsewhere(&url, &own);
    until_startable(&page).await;
}

#[test]
fn votes_of_others_count() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let url = server.url();
    browse(DESKTOP, &[], async move |page| {
        page.open(format!("{url}/training")).await;
        page.until_says("#outlook", "0 queries to train on").await;
        let documents = json!({"documents": [document(1)]});
        ureq::post(format!("{url}/documents")).send_json(documents).unwrap();
        for at in 0..20 {
            let vote = json!({"query": format!("query {at}"), "id": "d0001", "grade": 1});
            ureq::post(format!("{url}/feedback")).send_json(vote).unwrap();
        }
        page.until("!document.querySelector('#outlook').textContent.startsWith('0 queries')").await;
    });
}

#[test]
fn the_focus_stays_where_it_was() {
    let data = two_generations();
    let server = Server::start(data.path());
    browse(DESKTOP, &[], |page| focus_stays(page, server.url()));
}

async fn focus_stays(page: Page, url: String) {
    let (enter, escape) = (Key::Enter.value().to_string(), Key::Escape.value().to_string());
    let make_live = "document.activeElement.getAttribute('aria-label') === 'Make generation 1 live'";
    let looks = "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/admin/generations'))";
    page.open(format!("{url}/training")).await;
    page.click("[aria-label='Make generation 1 live']").await;
    page.until("document.activeElement.id === 'confirm-no'").await;
    // The tables are made anew while the question is open, and after it.
    let before = page.value(&format!("{looks}.length")).await.as_u64().unwrap();
    page.until(&format!("{looks}.length > {}", before + 1)).await;
    page.keys(&escape).await;
    page.until("!document.querySelector('#confirm').open").await;
    page.until(make_live).await;
    page.until(&format!("{looks}.length > {}", before + 2)).await;
    assert_eq!(page.value(make_live).await, true);

    page.keys(&enter).await;
    page.until("document.activeElement.id === 'confirm-no'").await;
    page.tab_to("#confirm-yes").await;
    page.keys(&enter).await;
    page.until_says("#notice", "Generation 1 is live instead of 2").await;
    page.until("document.querySelector(`[aria-label='Make generation 2 live']`) !== null").await;
    // Its button is gone: the keys go on from its table.
    assert_eq!(page.value("document.activeElement.id").await, "generations");
    page.tab_to("[aria-label='Make generation 2 live']").await;
}

/// Makes the page's requests for a path fail until `mend`; counts them.
async fn break_answers(page: &Page, path: &str, answer: &str) {
    page.run(&format!(
        "window.sound ??= window.fetch;
         window.failed = 0;
         window.fetch = (path, options) => {{
           if (path !== {}) return window.sound(path, options);
           window.failed += 1;
           return Promise.resolve({answer});
         }};",
        json!(path)
    ))
    .await;
}

async fn mend(page: &Page) {
    page.run("window.fetch = window.sound;").await;
}

const BROKEN: &str = "new Response(JSON.stringify({ title: 'Broken', detail: 'made to fail' }), { status: 500 })";

#[test]
fn failures_of_the_training_page_are_shown_and_pass() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &["--admin-key", "letmein"]);
    browse(DESKTOP, &["401"], |page| training_fails(page, server.url()));
}

async fn training_fails(page: Page, url: String) {
    page.open(format!("{url}/training")).await;
    page.fill("#key", "letmein").await;
    page.click("#key-form button").await;
    page.until("!document.querySelector('#board').hidden").await;

    // A look that fails is told, and one that does not takes that back.
    break_answers(&page, "/admin/generations", BROKEN).await;
    page.until_says("#trouble", "made to fail").await;
    page.until("window.failed > 1").await;
    assert_eq!(page.count("#trouble button").await, 1);
    mend(&page).await;
    page.until("document.querySelector('#trouble').hidden").await;

    // A refresh that ends meanwhile is told of as soon as it can be.
    page.start(1, 20).await;
    page.until_says("#job-state", "running").await;
    break_answers(&page, "/admin/generations", BROKEN).await;
    page.until(&format!("{} === 20", driven::points("loss-chart"))).await;
    page.until_says("#live", "generation 2").await;
    let failed = page.value("window.failed").await.as_u64().unwrap();
    page.until(&format!("window.failed > {}", failed + 1)).await;
    assert_eq!(page.text("#notice").await, "");
    mend(&page).await;
    page.until_says("#notice", "Generation 2 is live").await;

    // A key that does not count any more.
    page.run("sessionStorage.setItem('anced-key', 'of yesterday');").await;
    page.click("#start-button").await;
    page.until("!document.querySelector('#key-form').hidden").await;
    page.fill("#key", "letmein").await;
    page.click("#key-form button").await;
    page.until("!document.querySelector('#board').hidden").await;
    until_startable(&page).await;
}

#[test]
fn what_the_search_page_trips_over_is_shown() {
    let data = tempfile::tempdir().unwrap();
    let server = serve(data.path(), &[]);
    let url = server.url();
    browse(DESKTOP, &[], async move |page| {
        page.open(url).await;
        page.until("document.activeElement.id === 'query'").await;
        break_answers(&page, "/search", "new Response('{}')").await;
        page.keys("river").await;
        page.until_says("#message", "Something is wrong").await;
        mend(&page).await;
        page.click("#message button").await;
        page.until("document.querySelectorAll('.hit').length === 10").await;
    });
}

#[test]
fn typing_goes_on_in_the_search_box_where_a_key_is_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--search-key", "findme"]);
    let url = server.url();
    browse(DESKTOP, &["401"], async move |page| {
        page.open(url).await;
        page.until("document.activeElement.id === 'query'").await;
        page.keys("ri").await;
        page.until("!document.querySelector('#key-form').hidden").await;
        page.keys("ver").await;
        let fields = "['query', 'key'].map((id) => document.getElementById(id).value)";
        assert_eq!(page.value(fields).await, json!(["river", ""]));
        page.keys(Key::Enter.value().to_string()).await;
        page.until("document.activeElement.id === 'key'").await;
        page.keys(format!("findme{}", Key::Enter.value())).await;
        page.until_says("#message", "Nothing found").await;
    });
}

#[test]
fn metadata_that_no_filter_can_name_is_no_button() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let odd = json!({"a=b": "c", "and": "x", "or": "y", "not": "z", "": "nothing", " space ": "s"});
    let mut metadata = json!({"lang": "en", "year": 2024, "text": "2024", "padded": " p ", "nested": {"a": "b"}});
    metadata.as_object_mut().unwrap().extend(odd.as_object().unwrap().clone());
    let documents = json!({"documents": [{"id": "d", "text": "a document", "metadata": metadata}]});
    assert_eq!(server.post("/documents", &documents).status, 200);
    let url = server.url();
    browse(DESKTOP, &[], async move |page| {
        page.open(format!("{url}/?q=document&f=%3Dnothing")).await;
        page.until("document.querySelectorAll('.hit').length === 1").await;
        let texts = |css| format!("[...document.querySelectorAll('{css}')].map((one) => one.textContent).sort()");
        let spans = [" nothing", " space  s", "a=b c", "and x", "not z", "or y"];
        assert_eq!(page.value(&texts(".facts span.chip")).await, json!(spans));
        let buttons = ["lang en", "nested.a b", "padded  p ", "text 2024", "year 2024"];
        assert_eq!(page.value(&texts(".facts button.chip")).await, json!(buttons));
        // Each of them filters by what it says.
        for (at, _) in buttons.iter().enumerate() {
            page.run(&format!("document.querySelectorAll('.facts button.chip')[{at}].click();")).await;
            page.until(&format!("document.querySelectorAll('#active button').length === {}", at + 1)).await;
            page.until("document.querySelector('#results').ariaBusy === 'false'").await;
            assert_eq!(page.count(".hit").await, 1, "{at}");
        }
        let read = "return import('/filter.js').then(({ readFilter }) => readFilter(['=x', 'lang=en'], ''));";
        assert_eq!(page.run(read).await, json!({"lang": "en"}));
    });
}

#[test]
fn what_goes_on_beside_the_training_is_no_stage() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let url = server.url();
    browse(DESKTOP, &[], async move |page| {
        page.open(url).await;
        let script = "return import('/training/history.js').then(({ History }) => {
            const past = new History(2);
            past.take({ event: 'phase', round: 0, phase: 'encode', done: 1, total: 9 });
            const before = past.stage.name;
            past.take({ event: 'step', round: 1, step: 1, loss: 0.5 });
            past.take({ event: 'phase', round: 1, phase: 'encode', done: 1, total: 9, beside: true });
            return [before, past.stage.name];
        });";
        assert_eq!(page.run(script).await, json!(["encode", "train"]));
    });
}
