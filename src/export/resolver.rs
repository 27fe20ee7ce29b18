//! Host names off the send path: one thread a host looks its addresses up now and then, senders take the last answer.
//!
//! ureq's own resolver spawns a thread for every request that has a timeout, which costs three times the request itself.
//! Here a request copies a few addresses under a lock that is held for nothing longer. A name that stops resolving keeps
//! its last addresses; only before the first answer does a sender wait, at most for its own timeout. Literal addresses
//! need no thread.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::SetupError;

const REFRESH: Duration = Duration::from_secs(30);
const REFRESH_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// ureq keeps no more.
const MOST_ADDRESSES: usize = 16;

/// The addresses of one host and port, shared by all senders of a destination.
#[derive(Clone, Debug)]
pub(super) struct HostResolver(Host);

#[derive(Clone, Debug)]
enum Host {
    Literal(SocketAddr),
    Named(Arc<Named>),
}

/// Ends the thread when the last sender is gone.
#[derive(Debug)]
struct Named(Arc<Answers>);

#[derive(Debug, Default)]
struct Answers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    addresses: Vec<SocketAddr>,
    refresh: bool,
    closed: bool,
}

impl HostResolver {
    /// The resolver of the host in `url`, whose thread is looking the name up when this returns.
    pub(super) fn start(host: &str, port: u16) -> Result<HostResolver, SetupError> {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if let Ok(address) = literal {
            return Ok(HostResolver(Host::Literal(SocketAddr::new(address, port))));
        }
        let answers = Arc::new(Answers::default());
        let (weak, host) = (Arc::downgrade(&answers), host.to_owned());
        let lookup = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
        let thread = std::thread::Builder::new().name("millrace-resolve".to_owned());
        thread.spawn(move || keep_looking_up(&weak, lookup)).map_err(SetupError::Thread)?;
        Ok(HostResolver(Host::Named(Arc::new(Named(answers)))))
    }

    /// Asks for a fresh look, because a connection failed: the host may have moved.
    pub(super) fn refresh(&self) {
        if let Host::Named(named) = &self.0 {
            named.0.lock().refresh = true;
            named.0.changed.notify_all();
        }
    }
}

impl Resolver for HostResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut resolved = self.empty();
        match &self.0 {
            Host::Literal(address) => resolved.push(*address),
            Host::Named(named) => {
                let wait = (*timeout.after).min(REFRESH);
                named.0.addresses(wait, |addresses| addresses.iter().for_each(|address| resolved.push(*address)));
            }
        }
        if resolved.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(resolved) }
    }
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the state is plain data that cannot be half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the addresses over, waiting up to `wait` for the first ones.
    fn addresses(&self, wait: Duration, take: impl FnOnce(&[SocketAddr])) {
        let mut state = self.lock();
        if state.addresses.is_empty() {
            let waited = self.changed.wait_timeout_while(state, wait, |state| state.addresses.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        take(&state.addresses);
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

/// The thread of one host. It holds no strong reference while it looks a name up, which may take long.
fn keep_looking_up(answers: &Weak<Answers>, lookup: impl Fn() -> Vec<SocketAddr>) {
    loop {
        let mut found = lookup();
        found.truncate(MOST_ADDRESSES);
        let Some(answers) = answers.upgrade() else { return };
        let mut state = answers.lock();
        let wait = if found.is_empty() { REFRESH_AFTER_FAILURE } else { REFRESH };
        if !found.is_empty() {
            state.addresses = found;
        }
        state.refresh = false;
        answers.changed.notify_all();
        // Refreshes asked for by failing senders are spaced too: the failure pause comes first.
        let spaced = answers.changed.wait_timeout_while(state, REFRESH_AFTER_FAILURE, |state| !state.closed);
        let state = spaced.unwrap_or_else(PoisonError::into_inner).0;
        let rest = wait.saturating_sub(REFRESH_AFTER_FAILURE);
        let waited = answers.changed.wait_timeout_while(state, rest, |state| !state.closed && !state.refresh);
        if waited.unwrap_or_else(PoisonError::into_inner).0.closed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_need_no_thread_and_names_are_found() {
        for (host, expected) in [("127.0.0.1", "127.0.0.1:4318"), ("[::1]", "[::1]:4318")] {
            let resolver = HostResolver::start(host, 4318).unwrap();
            assert!(matches!(resolver.0, Host::Literal(address) if address.to_string() == expected));
        }
        let resolver = HostResolver::start("localhost", 4318).unwrap();
        let Host::Named(named) = &resolver.0 else { panic!("localhost is a name") };
        let mut found = Vec::new();
        named.0.addresses(Duration::from_secs(10), |addresses| found = addresses.to_vec());
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 4318));
        assert!(!found.is_empty());
    }

    #[test]
    fn a_name_that_stops_resolving_keeps_its_addresses_and_the_thread_ends_with_its_owner() {
        let answers = Arc::new(Answers::default());
        let weak = Arc::downgrade(&answers);
        let looked_up = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&looked_up);
        let address: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let lookup = move || match counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => vec![address; 20],
            _ => Vec::new(),
        };
        let thread = std::thread::spawn(move || keep_looking_up(&weak, lookup));
        let owner = Named(Arc::clone(&answers));
        owner.0.addresses(Duration::from_secs(10), |addresses| assert_eq!(addresses.len(), MOST_ADDRESSES));
        owner.0.lock().refresh = true;
        owner.0.changed.notify_all();
        let state = answers.lock();
        let second = |_: &mut State| looked_up.load(std::sync::atomic::Ordering::SeqCst) < 2;
        drop(answers.changed.wait_timeout_while(state, Duration::from_secs(20), second).unwrap());
        assert_eq!(looked_up.load(std::sync::atomic::Ordering::SeqCst), 2, "a refresh was asked for");
        answers.addresses(Duration::ZERO, |addresses| assert_eq!(addresses.len(), MOST_ADDRESSES));
        drop(owner);
        thread.join().unwrap();
    }
}
