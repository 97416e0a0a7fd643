//! A real browser without a window, for pages that this library writes. Spoken to over two pipes, as DevTools do.

use crate::support::Scratch;
use procession::{Child, Command, PipeReader, PipeWriter, Stdio, Stop, pipe};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Any of Debian's, and the names by which others have it. The first one is the smallest.
const PROGRAMS: [&str; 5] =
    ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// For a page to do what it is asked: it does it at once, on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether this machine has a browser. If not that is said, also where the tests' output is not shown.
pub fn is_here(test: &str) -> bool {
    let is_here = program().is_some();
    if !is_here {
        let note = format!("SKIPPED {test}: there is no browser here; Debian's package {} has one\n", PROGRAMS[0]);
        std::io::stderr().write_all(note.as_bytes()).unwrap();
    }
    is_here
}

fn program() -> Option<&'static str> {
    // By std, which starts no thread that a litter check could see.
    let version = |program: &str| std::process::Command::new(program).arg("--version").output();
    let runs = |program: &&str| version(program).is_ok_and(|output| output.status.success());
    PROGRAMS.into_iter().find(runs)
}

/// A page in a browser.
pub struct Browser {
    child: Child,
    requests: PipeWriter,
    replies: PipeReader,
    unread: Vec<u8>,
    count: u64,
    session: Option<String>,
    /// What went wrong in the page, and what it asked for: nothing.
    pub complaints: Vec<String>,
    _profile: Scratch,
}

impl Browser {
    /// Starts one; there must [be one](is_here).
    pub fn start(width: u32, height: u32) -> Browser {
        let program = program().unwrap();
        let profile = Scratch::new();
        let (their_requests, requests) = pipe().unwrap();
        let (replies, their_replies) = pipe().unwrap();
        let child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-quic", "--disable-extensions", "--mute-audio", "--force-color-profile=srgb"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("HOME", profile.path())
            .fd(3, their_requests)
            .fd(4, their_replies)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Browser {
            child,
            requests,
            replies,
            unread: Vec::new(),
            count: 0,
            session: None,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.ask("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.ask("Emulation.setDeviceMetricsOverride", size);
        browser
    }

    /// Loads a file, until all of it is there and its script has run.
    pub fn open(&mut self, path: &Path) {
        self.ask("Page.navigate", json!({"url": format!("file://{}", path.display())}));
        self.until("document.readyState === 'complete' && location.protocol === 'file:'");
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let reply = self.ask("Runtime.evaluate", asked);
        assert!(reply["exceptionDetails"].is_null(), "{expression}: {reply}");
        reply["result"]["value"].clone()
    }

    /// The same, as text.
    #[track_caller]
    pub fn text(&mut self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_else(|| panic!("no text: {expression}")).to_owned()
    }

    /// Waits until it is true in the page.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.value(expression) != json!(true) {
            assert!(Instant::now() < end, "{expression} did not come about; {:?}", self.complaints);
        }
    }

    /// Waits until the page has drawn what it was told.
    pub fn settle(&mut self) {
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))");
    }

    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key.len() == 1 && kind == "keyDown" { key } else { "" };
            self.ask("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "text": text}));
        }
    }

    pub fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let buttons = json!({"type": kind, "x": x, "y": y, "button": if kind == "mouseMoved" { "none" } else { "left" }, "clickCount": 1});
        self.ask("Input.dispatchMouseEvent", buttons);
    }

    pub fn wheel(&mut self, x: f64, y: f64, down: f64) {
        self.ask(
            "Input.dispatchMouseEvent",
            json!({"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": down}),
        );
    }

    /// What the page would see on another machine: `prefers-color-scheme` and the like.
    pub fn media(&mut self, name: &str, value: &str) {
        self.ask("Emulation.setEmulatedMedia", json!({"features": [{"name": name, "value": value}]}));
    }

    /// For people: into the folder that PROCESSION_SCREENSHOTS names, if it does.
    pub fn screenshot(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("PROCESSION_SCREENSHOTS") else { return };
        self.settle();
        let shot = self.ask("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": false}));
        let image = Command::new("base64").arg("-d").input(shot["data"].as_str().unwrap()).check_output().unwrap();
        std::fs::write(Path::new(&folder).join(name), image).unwrap();
    }

    /// Closes it; everything that belongs to it is gone then.
    pub fn close(mut self) {
        self.session = None;
        self.ask("Browser.close", json!({}));
        if self.child.wait_timeout(PATIENCE).unwrap().is_none() {
            let report = self.child.stop(&Stop::kill()).unwrap();
            panic!("the browser does not close: {report:?}");
        }
    }

    /// Asks for something and waits for the reply; what else comes is looked at on the way.
    #[track_caller]
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.count += 1;
        let mut request = json!({"id": self.count, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        let end = Instant::now() + PATIENCE;
        loop {
            let mut message = self.message(end, method);
            if message["id"] == json!(self.count) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            self.look_at(&message);
        }
    }

    #[track_caller]
    fn message(&mut self, end: Instant, method: &str) -> Value {
        loop {
            if let Some(length) = self.unread.iter().position(|&byte| byte == 0) {
                let message: Vec<u8> = self.unread.drain(..=length).collect();
                return serde_json::from_slice(&message[..length]).unwrap();
            }
            assert!(self.replies.wait_readable(end).unwrap(), "no reply to {method}");
            let mut bytes = vec![0; 1 << 16];
            let count = self.replies.read(&mut bytes).unwrap();
            assert!(count > 0, "the browser has ended; {method} was asked");
            self.unread.extend_from_slice(&bytes[..count]);
        }
    }

    fn look_at(&mut self, message: &Value) {
        let (method, params) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let is_complaint = match method {
            "Runtime.exceptionThrown" | "Page.javascriptDialogOpening" | "Runtime.consoleAPICalled" => true,
            "Log.entryAdded" => params["entry"]["level"] == "error" || params["entry"]["level"] == "warning",
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                !url.starts_with("file:") && !url.starts_with("data:") && url != "about:blank"
            }
            _ => false,
        };
        if is_complaint {
            self.complaints.push(format!("{method} {params}"));
        }
    }
}
