//! The types of `-netdev`.

use machine::description::NetworkKind;

use crate::Error;
use crate::keyval::KeyValues;

/// A back end of that type.
pub fn parse(kind: &str, values: &mut KeyValues) -> Result<NetworkKind, Error> {
    match kind {
        "user" => super::user::parse(values).map(|c| NetworkKind::User(Box::new(c))),
        "bridge" | "l2tpv3" | "vde" | "netmap" | "vhost-user" | "vhost-vdpa" | "hubport"
        | "af-xdp" | "passt" => Err(Error::new(format!(
            "Dormer does not have the back end '{kind}'"
        ))
        .hint("Use -netdev help to list those there are")),
        _ => Err(
            Error::new(format!("Parameter 'type' does not accept value '{kind}'"))
                .hint("Use -netdev help to list the types"),
        ),
    }
}
