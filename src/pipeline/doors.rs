//! The listening sockets of every receiver, a share a lane.
//!
//! A receiver listens on its own `SO_REUSEPORT` sockets, one a lane, or on one that systemd passed in under the
//! receiver's name (or, unnamed, at its port), which all lanes share. All are bound before anything else starts: an
//! address that is taken is the first thing that an operator hears of.

use std::io;
use std::net::SocketAddr;

use crate::config::Receiver;
use crate::sys::socket::Listener;
use crate::sys::systemd::Inherited;

/// A receiver's listeners.
#[derive(Debug)]
pub struct Bound {
    /// Where it listens; the port that the kernel chose when the configuration said 0.
    pub address: SocketAddr,
    /// One a lane.
    pub listeners: Vec<Listener>,
}

/// A receiver cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("receiver {name} cannot listen on {address}: {source}")]
pub struct BindError {
    name: String,
    address: SocketAddr,
    source: io::Error,
}

/// Binds a receiver for `lanes` lanes.
pub fn bind(receiver: &Receiver, inherited: &[Inherited], lanes: usize) -> Result<Bound, BindError> {
    let listeners = match passed_for(receiver, inherited) {
        Some(passed) => Listener::inherited(&passed.listener, lanes),
        None => Listener::for_lanes(receiver.listen, lanes),
    };
    let bound = listeners.and_then(|listeners| {
        let address = listeners.first().ok_or(io::ErrorKind::InvalidInput)?.socket.local_addr()?;
        Ok(Bound { address, listeners })
    });
    bound.map_err(|source| BindError { name: receiver.name.clone(), address: receiver.listen, source })
}

fn passed_for<'a>(receiver: &Receiver, inherited: &'a [Inherited]) -> Option<&'a Inherited> {
    let same_port = |passed: &&Inherited| {
        passed.listener.local_addr().is_ok_and(|address| address.port() == receiver.listen.port())
    };
    inherited.iter().find(|passed| passed.name == receiver.name).or_else(|| inherited.iter().find(same_port))
}
