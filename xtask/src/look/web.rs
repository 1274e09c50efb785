//! The web console in a headless browser: typed in, clicked, on a desk and on a phone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::browser::Browser;

pub fn run(program: &Path, output: &Path) -> Result<()> {
    let mut machine = super::shell(program, "web")?.start()?;
    let url = machine.announced("Web console at ")?;
    super::prompt(&mut machine)?;
    let mut browser = Browser::start()?;
    browser.size(1280, 800, false)?;
    browser.open(&url)?;
    until(
        &mut browser,
        "document.getElementById('state').textContent === 'running'",
    )?;
    until(
        &mut browser,
        "document.getElementById('screen').width >= 800",
    )?;
    browser.click("#screen")?;
    browser.type_keys("echo typed-in-the-page\n")?;
    // The shell's echo is in pieces, with moves of the cursor between them: what is whole is what `echo` said.
    machine.expect("typed-in-the-page", super::PATIENCE)?;
    println!("keys        reached the shell");

    browser.click("#type")?;
    browser.evaluate("document.getElementById('text').value = 'echo \"Pasted (as keys)!\"\\n'")?;
    browser.click("#send")?;
    machine.expect("Pasted (as keys)!", super::PATIENCE)?;
    println!("text        was typed");

    browser.click("#pause")?;
    until(
        &mut browser,
        "document.getElementById('state').textContent === 'paused'",
    )?;
    browser.click("#pause")?;
    until(
        &mut browser,
        "document.getElementById('state').textContent === 'running'",
    )?;
    println!("pause       and on again");

    // What the shell printed last is on the screen shortly after.
    std::thread::sleep(Duration::from_secs(2));
    picture(&mut browser, output, "web.png")?;
    let shown = lit(&mut browser)?;
    if shown < 1000.0 {
        bail!("the page's picture is black ({shown} pixels lit)");
    }

    browser.size(390, 844, true)?;
    browser.open(&url)?;
    until(
        &mut browser,
        "document.getElementById('state').textContent === 'running'",
    )?;
    until(
        &mut browser,
        "document.getElementById('screen').width >= 800",
    )?;
    browser.evaluate("document.getElementById('field').focus()")?;
    browser.insert("echo by-phone")?;
    // Typed as fast as firmware takes it.
    std::thread::sleep(Duration::from_secs(2));
    browser.type_keys("\n")?;
    machine.expect("by-phone", super::PATIENCE)?;
    println!("phone       typed by its keyboard's field");
    std::thread::sleep(Duration::from_secs(2));
    picture(&mut browser, output, "web-phone.png")?;
    browser.tap("#screen")?;
    machine.qmp()?.call("quit", json!({}))?;
    until(
        &mut browser,
        "document.getElementById('state').textContent === 'no connection'",
    )?;
    println!("end         noticed");
    Ok(())
}

fn picture(browser: &mut Browser, output: &Path, name: &str) -> Result<()> {
    let path = output.join(name);
    std::fs::write(&path, browser.screenshot()?)?;
    println!("screenshot  {}", path.display());
    Ok(())
}

/// How many pixels of the page's canvas are not black.
fn lit(browser: &mut Browser) -> Result<f64> {
    let script = "(() => { const c = document.getElementById('screen'); \
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
        let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i] + d[i + 1] + d[i + 2] > 60; return n; })()";
    Ok(browser.evaluate(script)?.as_f64().unwrap_or_default())
}

fn until(browser: &mut Browser, condition: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while browser.evaluate(condition)? != Value::Bool(true) {
        if Instant::now() > deadline {
            bail!("the page does not get to: {condition}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
