//! Extracting and listing beside 7-Zip and wimlib: the same image, alternated runs, medians.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use guests::cache;
use guests::packages::run as call;

use super::beside::{self, Runs, head};

/// A container of the same tree, how it is made, and whether wimlib reads it.
struct Case {
    name: &'static str,
    file: &'static str,
    make: fn(&Path, &Path) -> Result<()>,
    wim: bool,
}

const CASES: [Case; 7] = [
    Case {
        name: "WIM none",
        file: "none.wim",
        make: |tree, to| wim(tree, to, &["--compress=none"]),
        wim: true,
    },
    Case {
        name: "WIM XPRESS",
        file: "xpress.wim",
        make: |tree, to| wim(tree, to, &["--compress=XPRESS"]),
        wim: true,
    },
    Case {
        name: "WIM LZX",
        file: "lzx.wim",
        make: |tree, to| wim(tree, to, &["--compress=LZX"]),
        wim: true,
    },
    Case {
        name: "WIM LZMS",
        file: "lzms.wim",
        make: |tree, to| wim(tree, to, &["--compress=LZMS"]),
        wim: true,
    },
    Case {
        name: "ESD",
        file: "solid.esd",
        make: |tree, to| {
            wim(
                tree,
                to,
                &["--compress=LZMS", "--solid", "--solid-chunk-size=16M"],
            )
        },
        wim: true,
    },
    Case {
        name: "Joliet",
        file: "joliet.iso",
        make: |tree, to| {
            call(
                Command::new("xorriso")
                    .args(["-as", "mkisofs", "-quiet", "-J", "-joliet-long", "-o"])
                    .args([to, tree]),
            )?;
            Ok(())
        },
        wim: false,
    },
    Case {
        name: "UDF",
        file: "udf.iso",
        make: |tree, to| {
            call(
                Command::new("genisoimage")
                    .args([
                        "-quiet",
                        "-D",
                        "-udf",
                        "-allow-limited-size",
                        "-iso-level",
                        "3",
                    ])
                    .arg("-o")
                    .args([to, tree]),
            )?;
            Ok(())
        },
        wim: false,
    },
];

fn wim(tree: &Path, to: &Path, options: &[&str]) -> Result<()> {
    call(
        Command::new("wimlib-imagex")
            .arg("capture")
            .args([tree, to])
            .args(["--no-acls"])
            .args(options),
    )?;
    Ok(())
}

/// Runs every case and prints a table.
pub fn run(dormer: &Path, pairs: usize) -> Result<()> {
    // Kernel modules: thousands of files of all sizes, code for the most part.
    let tree = guests::kernel()?.modules.join("kernel");
    let mut files = 0;
    let mut bytes = 0;
    measure_tree(&tree, &mut files, &mut bytes)?;
    println!("{}", head(&[seven_zip(), "wimlib"]));
    // In memory: a disk's file system looks for inodes that were not in use of late, which here are few, and that takes
    // more time than all else.
    let folder = match Path::new("/dev/shm") {
        memory if memory.is_dir() => tempfile::tempdir_in(memory)?,
        _ => tempfile::tempdir()?,
    };
    let out = folder.path().join("out");
    for case in &CASES {
        let path = cache::once(&format!("bench-media/{}", case.file), |to| {
            (case.make)(&tree, to)
        })?;
        for list in [true, false] {
            let programs = if case.wim { 3 } else { 2 };
            let mut all = beside::rounds(pairs, programs, &mut |program, runs| {
                runs.add(&mut command(program, dormer, &path, list, &out))?;
                if out.exists() {
                    fs::remove_dir_all(&out)?;
                }
                Ok(())
            })?;
            all.resize_with(3, Runs::default);
            let work = if list { "list" } else { "extract" };
            let name = format!("{} {work}", case.name);
            println!("{}", beside::line(&name, &all[0], &all[1..]));
        }
    }
    println!(
        "{files} files, {} MiB, the image in the host's cache; medians of {pairs} alternated runs, ten times as many of what is \
         short, in brackets the spread; ratio: to the better of the two, more than 1 is faster",
        bytes >> 20
    );
    Ok(())
}

fn measure_tree(folder: &Path, files: &mut u64, bytes: &mut u64) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            measure_tree(&entry.path(), files, bytes)?;
        } else {
            *files += 1;
            *bytes += entry.metadata()?.len();
        }
    }
    Ok(())
}

/// 7-Zip's program: the one of its own project if there is one, which is newer and faster than p7zip.
fn seven_zip() -> &'static str {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&paths).any(|folder| folder.join("7zz").is_file()) {
        true => "7zz",
        false => "7z",
    }
}

/// What lists or extracts everything.
fn command(program: usize, dormer: &Path, image: &Path, list: bool, out: &Path) -> Command {
    match (program, list) {
        (0, true) => {
            let mut command = Command::new(dormer);
            command.args(["ls", "-R"]).arg(image);
            command
        }
        (0, false) => {
            let mut command = Command::new(dormer);
            command.args(["extract", "-q"]).arg(image).arg("/").arg(out);
            command
        }
        (1, true) => {
            let mut command = Command::new(seven_zip());
            command.arg("l").arg(image);
            command
        }
        (1, false) => {
            let mut command = Command::new(seven_zip());
            command
                .args(["x", "-y", &format!("-o{}", out.display())])
                .arg(image);
            command
        }
        (_, true) => {
            let mut command = Command::new("wimlib-imagex");
            command.arg("dir").arg(image).arg("1");
            command
        }
        (_, false) => {
            let mut command = Command::new("wimlib-imagex");
            command.arg("apply").arg(image).arg("1").arg(out);
            command
        }
    }
}
