//! Listeners against each other and against destinations: two on one address, or a destination that is one of ours.
//!
//! A destination that leads back to a receiver would multiply every span until the disk is full, so it is an error. Names
//! are resolved by the caller; a name that cannot be resolved now is given the benefit of the doubt, for the backend may
//! start later. What a name resolves to afterwards is not looked at again.

use std::net::{IpAddr, SocketAddr};

use ureq::http::Uri;

use super::section::Reader;
use super::tree::Origin;
use super::{Config, Host};

/// Complains about what leads back; returns a line for each destination whose name has no address now.
pub(super) fn check(config: &Config, host: Host<'_>, reader: &Reader) -> Vec<String> {
    let mut unresolved = Vec::new();
    let mut listeners: Vec<(&str, SocketAddr)> = vec![("the management port", config.management)];
    for receiver in &config.receivers {
        listeners.push((&receiver.name, receiver.listen));
    }
    for (index, (name, address)) in listeners.iter().enumerate() {
        let Some((other, _)) = listeners[..index].iter().find(|(_, other)| collide(*other, *address)) else { continue };
        reader.problem(&Origin::Default, format!("{other} and {name} both listen on {address}"));
    }
    for exporter in &config.exporters {
        let url = exporter.backend.url();
        let Some((name, port)) = host_and_port(url) else { continue };
        let addresses = match name.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => (host.resolve)(&name),
        };
        if addresses.is_empty() {
            unresolved.push(format!(
                "exporters.{}: {name} has no address now; it is asked for again and again",
                exporter.name
            ));
        }
        let own = listeners.iter().find(|(_, listen)| {
            listen.port() == port && addresses.iter().any(|address| reaches(*address, listen.ip(), host.is_local))
        });
        if let Some((listener, listen)) = own {
            let message =
                format!("exporters.{} leads back to {listener}, which listens on {listen}: {url}", exporter.name);
            reader.problem(&Origin::Default, message);
        }
    }
    unresolved
}

/// Whether two listeners want the same address. Port 0 asks for any free one.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family_any =
        one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified());
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || same_family_any)
}

/// Whether a connection to `address` ends at a listener on `listen`.
fn reaches(address: IpAddr, listen: IpAddr, is_local: &dyn Fn(IpAddr) -> bool) -> bool {
    // Connecting to 0.0.0.0 is connecting to this host.
    let address_is_here = address.is_unspecified() || address.is_loopback() || is_local(address);
    if listen.is_unspecified() || address.is_unspecified() { address_is_here } else { address == listen }
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    Some((host, uri.port_u16().unwrap_or(default)))
}
