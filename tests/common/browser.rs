//! A headless Chromium, driven as a person would: by its pointer and its keys.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use thirtyfour::error::WebDriverErrorInner;
use thirtyfour::extensions::query::ElementQueryable;
use thirtyfour::prelude::*;

use crate::common::{PATIENCE, skipped};

/// What a page is shown on.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub is_phone: bool,
    pub is_dark: bool,
}

pub const DESKTOP: Screen = Screen { width: 1280, height: 900, is_phone: false, is_dark: false };
pub const PHONE: Screen = Screen { width: 360, height: 740, is_phone: true, is_dark: false };

/// How many points a chart has.
pub fn points(chart: &str) -> String {
    format!("Number(document.querySelector('#{chart}').dataset.points)")
}

/// The process that drives the browser, and where it listens.
struct Driver {
    process: Child,
    url: String,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first of these programs that there is.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    files.find(|file| file.is_file())
}

fn start_driver() -> Option<(Driver, PathBuf)> {
    let found = program(&["chromium", "chromium-browser", "google-chrome"]).zip(program(&["chromedriver"]));
    let Some((browser, driver)) = found else {
        skipped("no chromium and chromedriver in PATH; `make browser` installs Debian's");
        return None;
    };
    let process = Command::new(driver).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut driver = Driver { process, url: String::new() };
    let mut said = String::new();
    for line in BufReader::new(driver.process.stdout.take().unwrap()).lines() {
        said = line.unwrap();
        if let Some(port) = said.strip_prefix("ChromeDriver was started successfully on port ") {
            driver.url = format!("http://127.0.0.1:{}", port.trim_end_matches('.'));
            return Some((driver, browser));
        }
    }
    panic!("chromedriver did not start: {said}");
}

/// Runs a test in a browser of its own; none where the machine has no browser. The console must stay silent, but for
/// messages that contain one of `expected`.
pub fn browse<T, F>(screen: Screen, expected: &'static [&'static str], test: T)
where
    T: FnOnce(Page) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let Some((driver, browser)) = start_driver() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut wishes = DesiredCapabilities::chrome();
        wishes.set_binary(browser.to_str().unwrap()).unwrap();
        // A container has no user namespaces for the sandbox and little shared memory.
        for flag in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"]
        {
            wishes.add_arg(flag).unwrap();
        }
        if !screen.is_phone {
            // Without a display there is no pointer either.
            wishes.add_arg("--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4").unwrap();
        }
        wishes.set("goog:loggingPrefs", json!({"browser": "ALL"})).unwrap();
        let session = WebDriver::new(&driver.url, wishes).await.unwrap();
        let page = Page { driver_url: driver.url.clone(), session: session.clone() };
        page.show_on(screen).await;
        let tested = tokio::spawn(test(page.clone())).await;
        if tested.is_err() {
            page.shoot(&format!("failed-{}", std::thread::current().name().unwrap_or("test"))).await;
        }
        let log = session.browser_log().await;
        session.quit().await.unwrap();
        if let Err(failed) = tested {
            std::panic::resume_unwind(failed.into_panic());
        }
        let told: Vec<String> = log.unwrap().iter().map(|entry| entry.message.clone()).collect();
        let wrong = told.iter().filter(|line| !expected.iter().any(|part| line.contains(part)));
        assert_eq!(wrong.collect::<Vec<_>>(), Vec::<&String>::new(), "the console");
    });
}

/// A page in a browser.
#[derive(Debug, Clone)]
pub struct Page {
    driver_url: String,
    session: WebDriver,
}

impl Page {
    pub async fn open(&self, url: String) {
        self.session.goto(url).await.unwrap();
    }

    /// What a piece of JavaScript returns.
    pub async fn run(&self, script: &str) -> Value {
        let answer = self.session.execute(script, Vec::new()).await;
        answer.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// The value of an expression.
    pub async fn value(&self, expression: &str) -> Value {
        self.run(&format!("return {expression};")).await
    }

    /// Waits until an expression holds.
    pub async fn until(&self, expression: &str) {
        let started = Instant::now();
        // A document that is being left has nothing to say.
        let guarded = format!("try {{ return Boolean({expression}); }} catch {{ return false; }}");
        while self.run(&guarded).await != json!(true) {
            if started.elapsed() > PATIENCE {
                let shown = self.value("document.body.innerText").await;
                panic!("{expression} did not come; the page says:\n{}", shown.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an element contains a text.
    pub async fn until_says(&self, css: &str, text: &str) {
        self.until(&format!("document.querySelector({}).textContent.includes({})", json!(css), json!(text))).await;
    }

    /// A number, once it has stayed the same for a while.
    pub async fn settled(&self, expression: &str) -> u64 {
        let (mut last, mut same) = (None, 0);
        while same < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.value(expression).await.as_u64();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last.unwrap()
    }

    pub async fn text(&self, css: &str) -> String {
        self.value(&format!("document.querySelector({}).textContent", json!(css))).await.as_str().unwrap().to_owned()
    }

    pub async fn count(&self, css: &str) -> u64 {
        self.value(&format!("document.querySelectorAll({}).length", json!(css))).await.as_u64().unwrap()
    }

    /// Presses an element as soon as it can be pressed. A table that is made anew in between has another in its place.
    pub async fn click(&self, css: &str) {
        let started = Instant::now();
        loop {
            match self.try_click(css).await {
                Ok(()) => return,
                Err(error) => {
                    let is_stale = matches!(*error, WebDriverErrorInner::StaleElementReference(_));
                    assert!(is_stale && started.elapsed() < PATIENCE, "{css}: {error}");
                }
            }
        }
    }

    async fn try_click(&self, css: &str) -> WebDriverResult<()> {
        let found = self.session.query(By::Css(css)).and_clickable().wait(PATIENCE, Duration::from_millis(50));
        found.first().await?.click().await
    }

    /// Types into a field, over what is in it.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.session.find(By::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// On the page of training: sets how long a refresh is and starts it.
    pub async fn start(&self, rounds: u32, steps: u32) {
        self.until("!document.querySelector('#start-button').disabled").await;
        self.fill("#rounds", &rounds.to_string()).await;
        self.fill("#steps", &steps.to_string()).await;
        self.click("#start-button").await;
    }

    /// Presses keys, wherever the focus is.
    pub async fn keys(&self, keys: impl AsRef<str>) {
        self.session.action_chain().send_keys(keys.as_ref()).perform().await.unwrap();
    }

    /// Presses Tab until an element has the focus.
    pub async fn tab_to(&self, css: &str) {
        for _ in 0..60 {
            self.keys(Key::Tab.value().to_string()).await;
            if self.value(&format!("document.activeElement.matches({})", json!(css))).await == json!(true) {
                return;
            }
        }
        panic!("Tab does not reach {css}");
    }

    /// Nothing is wider than the screen.
    pub async fn assert_fits(&self, width: u64) {
        let wide = self.value("[document.documentElement.scrollWidth, innerWidth]").await;
        assert_eq!(wide, json!([width, width]));
    }

    /// Keeps a picture of the whole page in `target/screenshots/`.
    pub async fn shoot(&self, name: &str) {
        let picture = self.devtools("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await;
        let bytes = base64::prelude::BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    async fn show_on(&self, screen: Screen) {
        let Screen { width, height, is_phone, is_dark } = screen;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        self.devtools("Emulation.setTouchEmulationEnabled", json!({"enabled": is_phone})).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// A command of the Chrome DevTools protocol.
    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let url = format!("{}/session/{}/goog/cdp/execute", self.driver_url, self.session.session_id());
        let body = json!({"cmd": command, "params": parameters});
        let asked =
            tokio::task::spawn_blocking(move || ureq::post(url).send_json(body).unwrap().body_mut().read_json());
        let answer: Value = asked.await.unwrap().unwrap();
        answer["value"].clone()
    }
}
