//! A headless Chromium, driven by the Chrome DevTools Protocol.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// A browser with one page.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    next: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Result<Browser> {
        let profile = tempfile::tempdir()?;
        let mut child = Command::new("chromium")
            // Its sandbox does not work for root, and the only page is ours.
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args([
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                "about:blank",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start chromium: `cargo xtask setup` installs it")?;
        let errors = child.stderr.take().context("a pipe was asked for")?;
        let mut lines = BufReader::new(errors).lines();
        let url = loop {
            let line = lines.next().context("the browser ended")??;
            if let Some(url) = line.strip_prefix("DevTools listening on ") {
                break url.trim().to_string();
            }
        };
        // Or its pipe fills.
        std::thread::spawn(move || lines.for_each(drop));
        let address = url.split('/').nth(2).context("no address of the browser")?;
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let (socket, _) = tungstenite::client(&url, stream)?;
        let mut browser = Browser {
            child,
            socket,
            session: None,
            next: 0,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))?;
        let attached = browser.call(
            "Target.attachToTarget",
            json!({ "targetId": target["targetId"], "flatten": true }),
        )?;
        browser.session = attached["sessionId"].as_str().map(String::from);
        Ok(browser)
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(message.to_string()))?;
        loop {
            let Message::Text(text) = self.socket.read().context(method.to_string())? else {
                continue;
            };
            let mut answer: Value = serde_json::from_str(&text)?;
            if answer["id"] == self.next {
                if !answer["error"].is_null() {
                    bail!("{method}: {}", answer["error"]);
                }
                return Ok(answer["result"].take());
            }
        }
    }

    /// The window's size, and whether it is a phone's.
    pub fn size(&mut self, width: u32, height: u32, phone: bool) -> Result<()> {
        let scale = if phone { 2 } else { 1 };
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone }),
        )?;
        self.call(
            "Emulation.setTouchEmulationEnabled",
            json!({ "enabled": phone }),
        )?;
        Ok(())
    }

    pub fn open(&mut self, url: &str) -> Result<()> {
        let opened = self.call("Page.navigate", json!({ "url": url }))?;
        if let Some(error) = opened["errorText"].as_str() {
            bail!("{url}: {error}");
        }
        while self.evaluate("document.readyState")? != "complete" {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The value of an expression.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let mut result = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true }),
        )?;
        if !result["exceptionDetails"].is_null() {
            bail!("{expression}: {}", result["exceptionDetails"]);
        }
        Ok(result["result"]["value"].take())
    }

    /// The middle of an element.
    fn place(&mut self, selector: &str) -> Result<(f64, f64)> {
        let script = format!(
            "(() => {{ const b = document.querySelector('{selector}').getBoundingClientRect(); \
             return [b.left + b.width / 2, b.top + b.height / 2]; }})()"
        );
        let place = self.evaluate(&script)?;
        let at = |i: usize| place[i].as_f64().context("no place of an element");
        Ok((at(0)?, at(1)?))
    }

    pub fn click(&mut self, selector: &str) -> Result<()> {
        let (x, y) = self.place(selector)?;
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            self.call(
                "Input.dispatchMouseEvent",
                json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": 1 }),
            )?;
        }
        Ok(())
    }

    /// A finger's tap.
    pub fn tap(&mut self, selector: &str) -> Result<()> {
        let (x, y) = self.place(selector)?;
        let touch = json!({ "type": "touchStart", "touchPoints": [{ "x": x, "y": y }] });
        self.call("Input.dispatchTouchEvent", touch)?;
        let end = json!({ "type": "touchEnd", "touchPoints": [] });
        self.call("Input.dispatchTouchEvent", end)?;
        Ok(())
    }

    /// Presses the keys of small letters, digits, spaces, dashes and newlines, slowly enough for firmware.
    pub fn type_keys(&mut self, text: &str) -> Result<()> {
        for c in text.chars() {
            let (code, key, number) = match c {
                'a'..='z' => (
                    format!("Key{}", c.to_ascii_uppercase()),
                    c.to_string(),
                    c.to_ascii_uppercase() as u32,
                ),
                '0'..='9' => (format!("Digit{c}"), c.to_string(), c as u32),
                ' ' => ("Space".into(), " ".into(), 32),
                '-' => ("Minus".into(), "-".into(), 189),
                '\n' => ("Enter".into(), "Enter".into(), 13),
                other => bail!("no key for {other:?}"),
            };
            for kind in ["rawKeyDown", "keyUp"] {
                self.call(
                    "Input.dispatchKeyEvent",
                    json!({ "type": kind, "code": code, "key": key, "windowsVirtualKeyCode": number }),
                )?;
                std::thread::sleep(Duration::from_millis(40));
            }
        }
        Ok(())
    }

    /// Text as an on-screen keyboard gives it, into what has the focus.
    pub fn insert(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({ "text": text }))?;
        Ok(())
    }

    /// The page as a PNG.
    pub fn screenshot(&mut self) -> Result<Vec<u8>> {
        let result = self.call("Page.captureScreenshot", json!({ "format": "png" }))?;
        let data = result["data"].as_str().context("no picture of the page")?;
        Ok(data_encoding::BASE64.decode(data.as_bytes())?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
