//! `snapshot`.

use crate::arguments::{switch, value};
use crate::json::Json;
use crate::local_time;
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, QUIET, SHARE};
use crate::number::human;
use crate::parse;
use crate::session::{Failure, Session};
use storage::format::{ChainOptions, FormatError};
use storage::qcow2::Snapshot;

pub const USAGE: &str = "[-q] [-f FORMAT | --image-opts] [-U] [-l | -c NAME | -a NAME | -d NAME] FILE\n\
    -l lists (the default), -c makes, -a applies, -d deletes a snapshot";

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        switch('l', "list"),
        value('c', "create"),
        value('a', "apply"),
        value('d', "delete"),
        SHARE,
        QUIET,
        OBJECT,
    ];
    let arguments = parse("snapshot", &flags, words)?;
    names::no_objects(&arguments)?;
    let asked = arguments.given(&["list", "create", "apply", "delete"]);
    if asked.len() > 1 {
        return Err(Failure::usage("Cannot mix '-l', '-a', '-c', '-d'"));
    }
    let (action, tag) = asked.first().copied().unwrap_or(("list", ""));
    let name = names::one(&arguments)?;
    let named = Named::new(&arguments, name, "format")?;
    let options = ChainOptions {
        backing: false,
        ..names::reading(&arguments)
    };
    if action == "list" {
        let chain = named.open(&options)?;
        let snapshots = chain.top().qcow2().map(|image| image.snapshots());
        if let Some(snapshots) = snapshots.filter(|list| !list.is_empty()) {
            session.print(&format!("Snapshot list:\n{}", table(&snapshots)));
        }
        return Ok(0);
    }
    let chain = named.open_to_write(session, &options)?;
    let image = chain.top().qcow2();
    let not_found = Ok(false);
    let (done, missing) = match action {
        "create" => (
            image.map_or(Err(FormatError::Unsupported), |image| {
                image.create_snapshot(tag).map(|()| true)
            }),
            "",
        ),
        "apply" => (
            image.map_or(Err(FormatError::Unsupported), |image| {
                image.apply_snapshot(tag)
            }),
            "Failed to load snapshot: No such file or directory",
        ),
        _ => (
            image.map_or(not_found, |image| image.delete_snapshot(tag)),
            "snapshot not found",
        ),
    };
    let reason = match done {
        Ok(true) => return Ok(0),
        Ok(false) => missing.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Failure::message(format!(
        "Could not {action} snapshot '{tag}': {reason}"
    )))
}

/// The lines that `snapshot -l` and `info` print.
pub fn table(snapshots: &[Snapshot]) -> String {
    let mut text = format!(
        "{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}\n",
        "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"
    );
    for snapshot in snapshots {
        let seconds = snapshot.vm_clock / 1_000_000_000;
        let clock = format!(
            "{:04}:{:02}:{:02}.{:03}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            snapshot.vm_clock / 1_000_000 % 1000
        );
        let icount = match snapshot.icount {
            u64::MAX => "--".into(),
            count => count.to_string(),
        };
        text += &format!(
            "{:<7} {:<16} {:>8} {:>19} {clock:>15} {icount:>10}\n",
            snapshot.id,
            snapshot.name,
            human(snapshot.vm_state_size),
            local_time::format(snapshot.date.0.into()),
        );
    }
    text
}

pub fn json(snapshot: &Snapshot) -> Json {
    let mut members = Vec::new();
    if snapshot.icount != u64::MAX {
        members.push(("icount", Json::Number(snapshot.icount)));
    }
    members.extend([
        (
            "vm-clock-nsec",
            Json::Number(snapshot.vm_clock % 1_000_000_000),
        ),
        ("name", Json::text(&snapshot.name)),
        ("date-sec", Json::Number(snapshot.date.0.into())),
        ("date-nsec", Json::Number(snapshot.date.1.into())),
        (
            "vm-clock-sec",
            Json::Number(snapshot.vm_clock / 1_000_000_000),
        ),
        ("id", Json::text(&snapshot.id)),
        ("vm-state-size", Json::Number(snapshot.vm_state_size)),
    ]);
    Json::Object(members)
}
