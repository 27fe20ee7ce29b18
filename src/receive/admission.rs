//! Which connections are let in: the total and the share of one address, over all lanes.
//!
//! One table a receiver, shared by its lanes. It is locked once when a connection is accepted and once when it ends, never
//! for a read or a record. Its size is bounded: it holds an entry only for an address with an open connection. An
//! IPv6 host owns its /64, so the share is that network's. Loopback has no share of its own: proxies and agents on this
//! machine are its operator's; the total holds for everyone, because memory does.
//!
//! `Overload` is declared by a lane that could not hand anything on for too long, and holds for the process: a peer that
//! is turned away on one lane must not land on another.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of an IPv6 address that name one peer's network.
const NETWORK_BITS: u32 = 64;

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The receiver has as many connections as it may have.
    Total,
    /// This address has.
    Address,
}

impl Refused {
    /// The reason as a metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Refused::Total => "max_connections",
            Refused::Address => "max_connections_per_ip",
        }
    }
}

/// The open connections of one receiver.
#[derive(Debug)]
pub struct ConnectionTable {
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    max_total: usize,
    max_per_address: usize,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The place of one open connection; given back when dropped.
#[derive(Debug)]
pub struct Place {
    table: Arc<ConnectionTable>,
    address: IpAddr,
}

impl ConnectionTable {
    /// An empty table for so many connections, and so many of one address.
    #[must_use]
    pub fn new(max_total: usize, max_per_address: usize) -> Arc<ConnectionTable> {
        let open = Open { max_total, max_per_address, total: 0, by_address: HashMap::new() };
        Arc::new(ConnectionTable { open: Mutex::new(open) })
    }

    /// Other bounds from now on; whoever has a place keeps it.
    pub fn set_bounds(&self, max_total: usize, max_per_address: usize) {
        let mut open = self.lock();
        (open.max_total, open.max_per_address) = (max_total, max_per_address);
    }

    /// A place for a connection from `peer`.
    pub fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Refused> {
        let address = network(peer);
        let mut open = self.lock();
        if open.total >= open.max_total {
            return Err(Refused::Total);
        }
        let share = open.by_address.get(&address).copied().unwrap_or(0);
        if share >= open.max_per_address && !address.is_loopback() {
            return Err(Refused::Address);
        }
        open.total += 1;
        open.by_address.insert(address, share + 1);
        Ok(Place { table: self.clone(), address })
    }

    /// Connections that have a place now.
    #[must_use]
    pub fn total(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing under this lock can panic between two changes that belong together.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.table.lock();
        open.total -= 1;
        let share = open.by_address.get_mut(&self.address).expect("a place is counted until it is dropped");
        *share -= 1;
        if *share == 0 {
            open.by_address.remove(&self.address);
        }
    }
}

/// How many lanes are overloaded: while one is, no lane takes connections.
#[derive(Debug, Default)]
pub struct Overload {
    lanes: AtomicUsize,
}

impl Overload {
    /// One more lane could not hand anything on for too long.
    pub fn declare(&self) {
        // Relaxed: lanes look at it each turn and nothing else is published through it.
        self.lanes.fetch_add(1, Ordering::Relaxed);
    }

    /// That lane can again.
    pub fn withdraw(&self) {
        // Relaxed: as in `declare`.
        self.lanes.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether any lane is overloaded.
    #[must_use]
    pub fn is_declared(&self) -> bool {
        // Relaxed: as in `declare`.
        self.lanes.load(Ordering::Relaxed) > 0
    }
}

fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> NETWORK_BITS << NETWORK_BITS))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let table = ConnectionTable::new(100, 2);
        let first = table.admit(ip("192.0.2.1")).unwrap();
        let _second = table.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(table.admit(ip("192.0.2.1")).unwrap_err(), Refused::Address);
        let _other = table.admit(ip("192.0.2.2")).unwrap();
        drop(first);
        let _again = table.admit(ip("192.0.2.1")).unwrap();
    }

    #[test]
    fn the_share_of_an_ipv6_peer_is_its_network() {
        let table = ConnectionTable::new(100, 1);
        let _first = table.admit(ip("2001:db8::1")).unwrap();
        assert_eq!(table.admit(ip("2001:db8::ffff:2")).unwrap_err(), Refused::Address);
        let _other = table.admit(ip("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn loopback_has_no_share_but_the_total_holds() {
        let table = ConnectionTable::new(3, 1);
        let places: Vec<Place> =
            ["127.0.0.1", "127.0.0.1", "::1"].map(ip).into_iter().map(|peer| table.admit(peer).unwrap()).collect();
        assert_eq!(table.admit(ip("127.0.0.1")).unwrap_err(), Refused::Total);
        drop(places);
        assert_eq!(table.total(), 0);
        assert!(table.lock().by_address.is_empty(), "no entry without a connection");
    }

    #[test]
    fn an_overload_lasts_until_the_last_lane_withdraws_it() {
        let overload = Overload::default();
        overload.declare();
        overload.declare();
        overload.withdraw();
        assert!(overload.is_declared());
        overload.withdraw();
        assert!(!overload.is_declared());
    }
}
