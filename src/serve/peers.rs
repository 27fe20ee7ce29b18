//! How many connections each peer has open on the management port, so that one of them cannot have all.
//!
//! Nor can all those from elsewhere together: a share is this host's, whose operators and probes have to get in.
//! An IPv6 peer is its /64: whoever has one address of it has them all. Counts live only as long as there is a connection.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections of one peer: a quarter of all.
pub(super) const MAX_PER_PEER: usize = super::MAX_CONNECTIONS / 4;

/// Connections of all peers on other hosts.
const MAX_FROM_ELSEWHERE: usize = super::MAX_CONNECTIONS - MAX_PER_PEER;

/// The peers that are connected.
#[derive(Clone, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place; it is free again when this is dropped.
pub(super) struct Place {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// A place for one more connection of this peer; `None` when it, or all that are not on this host, have their share.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let peer = peer(address);
        let mut counts = self.counts();
        let from_elsewhere = counts.iter().filter(|(peer, _)| !is_here(peer)).map(|(_, count)| count).sum::<usize>();
        if !is_here(&peer) && from_elsewhere >= MAX_FROM_ELSEWHERE {
            return None;
        }
        let count = counts.entry(peer).or_default();
        if *count == MAX_PER_PEER {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { peers: self.clone(), peer })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

fn is_here(peer: &IpAddr) -> bool {
    peer.is_loopback()
}

fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(Ipv6Addr::LOCALHOST) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_share_and_gets_it_back() {
        let peers = Peers::default();
        let admit = |address: &str| peers.admit(address.parse().unwrap());
        let mut places: Vec<Place> = (0..MAX_PER_PEER).map_while(|_| admit("192.0.2.1")).collect();
        assert_eq!(places.len(), MAX_PER_PEER);
        assert!(admit("192.0.2.1").is_none() && admit("::ffff:192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        places.pop();
        assert!(admit("192.0.2.1").is_some());
        let network: Vec<Place> =
            (0..MAX_PER_PEER).map_while(|host| admit(&format!("2001:db8:0:1::{host:x}"))).collect();
        assert_eq!(network.len(), MAX_PER_PEER);
        assert!(admit("2001:db8:0:1:ffff::").is_none() && admit("2001:db8:0:2::1").is_some());
        drop((places, network));
        assert!(peers.counts().is_empty());
    }

    #[test]
    fn peers_from_elsewhere_leave_this_host_its_share() {
        let peers = Peers::default();
        let admit = |address: String| peers.admit(address.parse().unwrap());
        let far: Vec<Place> = (0..MAX_FROM_ELSEWHERE).map_while(|host| admit(format!("192.0.2.{host}"))).collect();
        assert_eq!(far.len(), MAX_FROM_ELSEWHERE);
        assert!(admit("198.51.100.1".to_owned()).is_none() && admit("2001:db8::1".to_owned()).is_none());
        let near: Vec<Place> = (0..MAX_PER_PEER).map_while(|_| admit("127.0.0.1".to_owned())).collect();
        assert_eq!((near.len(), far.len() + near.len()), (MAX_PER_PEER, super::super::MAX_CONNECTIONS));
        assert!(admit("::1".to_owned()).is_some() && admit("192.0.2.1".to_owned()).is_none());
    }
}
