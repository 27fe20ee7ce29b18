//! The listening sockets of every receiver, a share a lane.
//!
//! A receiver listens on its own `SO_REUSEPORT` sockets, one a lane, or on one that systemd passed in under the
//! receiver's name (or, unnamed, at its port), which all lanes share. All are bound before anything else starts: an
//! address that is taken is the first thing that an operator hears of. At an address that another of our receivers gives
//! up it goes on with that one's sockets, so two can change places.

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

impl Bound {
    /// The same sockets under further descriptors. Fails when the process is out of descriptors.
    pub fn views(&self) -> io::Result<Vec<Listener>> {
        self.listeners.iter().map(Listener::another).collect()
    }
}

/// A receiver cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("receiver {name} cannot listen on {address}: {source}")]
pub struct BindError {
    name: String,
    address: SocketAddr,
    source: io::Error,
}

/// Binds a receiver for `lanes` lanes; nobody can connect before [`listen`]. `given_up` are sockets of ours that will be
/// closed.
pub fn bind(
    receiver: &Receiver,
    inherited: &[Inherited],
    given_up: &[&Bound],
    lanes: usize,
) -> Result<Bound, BindError> {
    let address = receiver.listen;
    let listeners = if let Some(passed) = passed_for(receiver, inherited) {
        Listener::inherited(&passed.listener, lanes)
    } else if let Some(bound) = given_up.iter().find(|bound| bound.address == address) {
        bound.views()
    } else if given_up.iter().any(|bound| bound.address.port() == address.port()) {
        // Such as 0.0.0.0 in the place of 127.0.0.1.
        Listener::beside_own(address, lanes)
    } else {
        Listener::for_lanes(address, lanes)
    };
    let bound = listeners.and_then(|listeners| {
        let address = listeners.first().ok_or(io::ErrorKind::InvalidInput)?.socket.local_addr()?;
        Ok(Bound { address, listeners })
    });
    bound.map_err(|source| BindError { name: receiver.name.clone(), address: receiver.listen, source })
}

/// From now on peers can connect to what was bound for `receiver`.
pub fn listen(receiver: &Receiver, bound: &Bound) -> Result<(), BindError> {
    let failed = |source| BindError { name: receiver.name.clone(), address: receiver.listen, source };
    bound.listeners.iter().try_for_each(Listener::listen).map_err(failed)
}

fn passed_for<'a>(receiver: &Receiver, inherited: &'a [Inherited]) -> Option<&'a Inherited> {
    let same_port = |passed: &&Inherited| {
        passed.listener.local_addr().is_ok_and(|address| address.port() == receiver.listen.port())
    };
    inherited.iter().find(|passed| passed.name == receiver.name).or_else(|| inherited.iter().find(same_port))
}
