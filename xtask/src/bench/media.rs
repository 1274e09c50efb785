//! Extracting and listing beside 7-Zip and wimlib: the same image, alternated runs, medians.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use guests::cache;
use guests::packages::run as call;

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
    println!("{files} files, {} MiB; medians of {pairs}", bytes >> 20);
    println!(
        "{:<12} {:<8} {:>10} {:>10} {:>10} {:>12}",
        "", "", "Dormer", "7z", "wimlib", "to the best"
    );
    let out = cache::root()?.join("bench-media-out");
    for case in &CASES {
        let path = cache::once(&format!("bench-media/{}", case.file), |to| {
            (case.make)(&tree, to)
        })?;
        for list in [true, false] {
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..pairs.max(1) {
                for (program, times) in times.iter_mut().enumerate() {
                    if program == 2 && !case.wim {
                        continue;
                    }
                    times.push(one(program, dormer, &path, list, &out)?);
                }
            }
            let [ours, seven, wimlib] = times.map(median);
            let best = seven.min(wimlib);
            let shown = |time: f64| {
                if time.is_finite() {
                    format!("{time:.3} s")
                } else {
                    "-".into()
                }
            };
            println!(
                "{:<12} {:<8} {:>10} {:>10} {:>10} {:>11.2}x",
                case.name,
                if list { "list" } else { "extract" },
                shown(ours),
                shown(seven),
                shown(wimlib),
                best / ours
            );
        }
    }
    println!("to the best: more than 1 is faster than the faster of the two");
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

/// Seconds of one run.
fn one(program: usize, dormer: &Path, image: &Path, list: bool, out: &PathBuf) -> Result<f64> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    let mut command = match (program, list) {
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
            let mut command = Command::new("7z");
            command.arg("l").arg(image);
            command
        }
        (1, false) => {
            let mut command = Command::new("7z");
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
    };
    let start = Instant::now();
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("{command:?}"))?;
    let time = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{command:?} failed");
    Ok(time)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::INFINITY)
}
