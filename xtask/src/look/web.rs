//! The web console in a headless browser: typed in, clicked, on a desk and on a phone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use guests::run::Machine;

use super::browser::Browser;

pub fn run(program: &Path, output: &Path) -> Result<()> {
    let mut machine = super::shell(program, "web")?
        .args("-drive media=cdrom,if=none,id=cd0 -device usb-storage,drive=cd0")
        .start()?;
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

    let folder = tempfile::tempdir()?;
    let disc = folder.path().join("a disc.iso");
    std::fs::write(&disc, vec![0; 1 << 20])?;
    browser.click("#media")?;
    insert(&mut browser, &folder.path().join("none.iso"))?;
    until(
        &mut browser,
        "document.querySelector('.drive p').textContent.endsWith('No such file or directory')",
    )?;
    insert(&mut browser, &disc)?;
    until(
        &mut browser,
        "document.querySelector('.drive .inside').textContent.endsWith('/a disc.iso')",
    )?;
    picture(&mut browser, output, "web-media.png")?;
    if medium(&mut machine)? != json!(disc) {
        bail!("the disc is not in the machine's drive");
    }
    browser.click(".drive .eject")?;
    until(
        &mut browser,
        "document.querySelector('.drive .inside').textContent === 'empty, tray open'",
    )?;
    if medium(&mut machine)? != Value::Null {
        bail!("the disc is still in the machine's drive");
    }
    browser.click("#close")?;
    println!("media       went in and out");

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
    browser.tap("#media")?;
    until(
        &mut browser,
        "document.getElementById('drives').open && document.getElementById('drives').scrollWidth <= innerWidth",
    )?;
    picture(&mut browser, output, "web-phone-media.png")?;
    browser.tap("#close")?;
    browser.tap("#screen")?;
    machine.qmp()?.call("quit", json!({}))?;
    until(
        &mut browser,
        "document.getElementById('state').textContent === 'no connection'",
    )?;
    println!("end         noticed");
    Ok(())
}

/// Types a path into the first drive's field.
fn insert(browser: &mut Browser, path: &Path) -> Result<()> {
    browser.evaluate("document.querySelector('.drive input').select()")?;
    browser.insert(&path.display().to_string())?;
    browser.click(".drive button")
}

/// The file that QMP says is in the drive.
fn medium(machine: &mut Machine) -> Result<Value> {
    let drives = machine.qmp()?.call("query-block", json!({}))?;
    Ok(drives[0]["inserted"]["file"].clone())
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
