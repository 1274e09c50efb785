//! Symbolic links whose targets stay within the destination.

use super::plan::Link;
use super::{Summary, host};
use crate::error::Result;

/// Makes a link, or notes why not.
pub(super) fn make(link: &Link, summary: &mut Summary) -> Result<()> {
    match target(link) {
        Some(target) => {
            host::symbolic_link(&target, &link.path)?;
            summary.links += 1;
        }
        None => summary.notes.push(format!(
            "{}: a link to {} leads out of what is extracted and is left out",
            link.name, link.target
        )),
    }
    Ok(())
}

/// The relative path of the host that a link stands for; `None` if it leads outside. Where names come before `..`, the way may
/// go through other links, so that it could lead anywhere: such a target is none either.
fn target(link: &Link) -> Option<String> {
    let (rooted, rest) = if link.windows {
        windows(&link.target)?
    } else {
        match link.target.strip_prefix('/') {
            Some(rest) => (true, rest.to_string()),
            None => (false, link.target.clone()),
        }
    };
    let mut names: Vec<&str> = Vec::new();
    let mut up = 0;
    for name in rest.split('/').filter(|n| !n.is_empty() && *n != ".") {
        if name != ".." {
            names.push(name);
        } else if names.is_empty() && !rooted {
            up += 1;
        } else {
            return None;
        }
    }
    if rooted {
        if !link.whole {
            return None;
        }
        up = link.depth;
    }
    if up > link.depth || names.iter().any(|name| name.contains('\0')) {
        return None;
    }
    let parts: Vec<&str> = std::iter::repeat_n("..", up).chain(names).collect();
    Some(if parts.is_empty() {
        ".".into()
    } else {
        parts.join("/")
    })
}

/// Whether a path of Windows counts from the top, and the rest of it; `None` for shares and volumes.
fn windows(target: &str) -> Option<(bool, String)> {
    let target = target.strip_prefix("\\??\\").unwrap_or(target);
    if target.starts_with("\\\\") || target.starts_with("Volume{") {
        return None;
    }
    let plain = target.replace('\\', "/");
    let bytes = plain.as_bytes();
    if bytes.len() >= 2 && bytes[1] == b':' && bytes[0].is_ascii_alphabetic() {
        return Some((true, plain[2..].trim_start_matches('/').to_string()));
    }
    Some(match plain.strip_prefix('/') {
        Some(rest) => (true, rest.to_string()),
        None => (false, plain),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let of = |target: &str, windows, depth, whole| {
            super::target(&Link {
                path: "x".into(),
                name: "x".into(),
                target: target.into(),
                windows,
                depth,
                whole,
            })
        };
        assert_eq!(of("Windows\\a", true, 0, true).unwrap(), "Windows/a");
        assert_eq!(of("..\\a", true, 1, true).unwrap(), "../a");
        assert_eq!(of("..\\a", true, 0, true), None);
        assert_eq!(of("C:\\Users", true, 2, true).unwrap(), "../../Users");
        assert_eq!(of("\\??\\C:\\Users", true, 1, true).unwrap(), "../Users");
        assert_eq!(of("C:\\Users", true, 2, false), None);
        assert_eq!(of("\\\\server\\share", true, 2, true), None);
        assert_eq!(of("a\\..\\..\\b", true, 5, true), None);
        assert_eq!(of(".", false, 0, true).unwrap(), ".");
        assert_eq!(of("../..", false, 2, false).unwrap(), "../..");
        assert_eq!(of("/etc/passwd", false, 1, true).unwrap(), "../etc/passwd");
        assert_eq!(of("/etc/passwd", false, 1, false), None);
    }
}
