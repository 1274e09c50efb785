//! `check`.

use crate::arguments::value;
use crate::json::Json;
use crate::names::{self, FORMAT, IMAGE_OPTS, Named, OBJECT, OUTPUT, QUIET, SHARE};
use crate::parse;
use crate::session::{Failure, Session};
use storage::format::{ChainOptions, FileFormat};
use storage::qcow2::{CheckReport, Qcow2, Repair};

pub const USAGE: &str = "[-q] [-f FORMAT | --image-opts] [-r leaks|all] [-T CACHE] [-U] [--output human|json] FILE\n\
    exit code: 0 nothing wrong, 1 could not check, 2 damaged, 3 leaked clusters only, 63 the format has no check";

const NO_CHECKS: u8 = 63;

pub fn run(session: &Session, words: &[String]) -> Result<u8, Failure> {
    let flags = [
        FORMAT,
        IMAGE_OPTS,
        value('r', "repair"),
        value('T', "cache"),
        SHARE,
        OUTPUT,
        QUIET,
        OBJECT,
    ];
    let arguments = parse("check", &flags, words)?;
    names::no_objects(&arguments)?;
    let json = names::json(&arguments)?;
    let repair = match arguments.get("repair") {
        None => Repair::Nothing,
        Some("leaks") => Repair::Leaks,
        Some("all") => Repair::All,
        Some(other) => {
            return Err(Failure::usage(format!(
                "--repair (-r) expects 'leaks' or 'all' not '{other}'"
            )));
        }
    };
    let durable = names::durable(&arguments, "cache", true, "source cache")?;
    let name = names::one(&arguments)?;
    let named = Named::new(&arguments, name, "format")?;
    if repair != Repair::Nothing && arguments.has("force-share") {
        return Err(Failure::message(
            "--force-share and --repair exclude each other: repairing needs the image for itself",
        ));
    }
    let chain = named.open(&ChainOptions {
        damaged: true,
        durable,
        backing: false,
        write: repair != Repair::Nothing,
        ..names::reading(&arguments)
    })?;
    let top = chain.top();
    let Some(image) = top.qcow2() else {
        return match top.format {
            // Opening them has looked at all that can be looked at.
            FileFormat::Vmdk | FileFormat::Vhdx => {
                say_clean(
                    session,
                    json,
                    arguments.has("quiet"),
                    &named.name,
                    top.format,
                );
                Ok(0)
            }
            _ => Err(Failure::Code(
                NO_CHECKS,
                "This image format does not support checks".into(),
            )),
        };
    };
    check(
        session,
        image,
        repair,
        &named.name,
        json,
        arguments.has("quiet"),
    )
}

fn check(
    session: &Session,
    image: &Qcow2,
    repair: Repair,
    name: &str,
    json: bool,
    quiet: bool,
) -> Result<u8, Failure> {
    let mut report = one_pass(session, image, repair)?;
    let (leaks_fixed, corruptions_fixed) = (report.leaks_fixed, report.corruptions_fixed);
    if leaks_fixed > 0 || corruptions_fixed > 0 {
        if !quiet && !json {
            session.print(&format!(
                "The following inconsistencies were found and repaired:\n\n    {leaks_fixed} leaked clusters\n    \
                 {corruptions_fixed} corruptions\n\nDouble checking the fixed image now...\n"
            ));
        }
        report = one_pass(session, image, Repair::Nothing)?;
        report.leaks_fixed = leaks_fixed;
        report.corruptions_fixed = corruptions_fixed;
    }
    image.close()?;
    if json {
        session.print(&format!("{}\n", as_json(&report, name).pretty()));
    } else if !quiet {
        session.print(&as_text(&report));
    }
    Ok(if report.corruptions > 0 {
        2
    } else if report.check_errors > 0 {
        1
    } else if report.leaks > 0 {
        3
    } else {
        0
    })
}

fn one_pass(session: &Session, image: &Qcow2, repair: Repair) -> Result<CheckReport, Failure> {
    let report = image
        .check(repair)
        .map_err(|error| Failure::message(format!("Check failed: {error}")))?;
    for message in &report.messages {
        session.error(&format!("{message}\n"));
    }
    if report.incomplete {
        return Err(Failure::message("Check failed: Input/output error"));
    }
    Ok(report)
}

fn as_text(report: &CheckReport) -> String {
    let mut text = String::new();
    if report.corruptions == 0 && report.leaks == 0 && report.check_errors == 0 {
        text += "No errors were found on the image.\n";
    }
    if report.corruptions > 0 {
        text += &format!(
            "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n",
            report.corruptions
        );
    }
    if report.leaks > 0 {
        text += &format!(
            "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
            report.leaks
        );
    }
    if report.check_errors > 0 {
        text += &format!(
            "\n{} internal errors have occurred during the check.\n",
            report.check_errors
        );
    }
    if report.total_clusters > 0 && report.allocated > 0 {
        let percent = |part: u64, of: u64| 100.0 * part as f64 / of as f64;
        text += &format!(
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
            report.allocated,
            report.total_clusters,
            percent(report.allocated, report.total_clusters),
            percent(report.fragmented, report.allocated),
            percent(report.compressed, report.allocated)
        );
    }
    if report.image_end > 0 {
        text += &format!("Image end offset: {}\n", report.image_end);
    }
    text
}

fn as_json(report: &CheckReport, name: &str) -> Json {
    let mut members = vec![
        ("image-end-offset", Json::Number(report.image_end)),
        ("total-clusters", Json::Number(report.total_clusters)),
    ];
    let mut some = |key, value| {
        if value > 0 {
            members.push((key, Json::Number(value)));
        }
    };
    some("corruptions-fixed", report.corruptions_fixed);
    some("corruptions", report.corruptions);
    members.push(("check-errors", Json::Number(report.check_errors)));
    let mut some = |key, value| {
        if value > 0 {
            members.push((key, Json::Number(value)));
        }
    };
    some("leaks-fixed", report.leaks_fixed);
    some("leaks", report.leaks);
    some("allocated-clusters", report.allocated);
    members.push(("filename", Json::text(name)));
    members.push(("format", Json::text("qcow2")));
    let mut some = |key, value| {
        if value > 0 {
            members.push((key, Json::Number(value)));
        }
    };
    some("fragmented-clusters", report.fragmented);
    some("compressed-clusters", report.compressed);
    Json::Object(members)
}

fn say_clean(session: &Session, json: bool, quiet: bool, name: &str, format: FileFormat) {
    if json {
        let members = vec![
            ("check-errors", Json::Number(0)),
            ("filename", Json::text(name)),
            ("format", Json::text(format.name())),
        ];
        session.print(&format!("{}\n", Json::Object(members).pretty()));
    } else if !quiet {
        session.print("No errors were found on the image.\n");
    }
}
