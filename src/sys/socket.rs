//! Listening sockets of the lanes, and the epoll registration that mio does not offer.
//!
//! Own sockets: one `SO_REUSEPORT` listener a lane, so the kernel spreads connections and no thread hands them around.
//! Because `SO_REUSEPORT` would let a second process of the same user take half of the connections in silence, the
//! address is first bound without it: a port in use is an error. Inherited sockets (socket activation) are shared by all
//! lanes, and `EPOLLEXCLUSIVE` keeps a new connection from waking every lane.
//!
//! Listeners are watched level-triggered: an event loop accepts a bounded number a turn and hears of the rest again.
//! Nothing here reads or writes a connection.

#![allow(unsafe_code, reason = "this file is the epoll_ctl mechanism")]

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted, a listener; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Whether lanes share one listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// This lane's own socket.
    Own,
    /// One socket for all lanes.
    Inherited,
}

/// A listening socket as one lane sees it.
#[derive(Debug)]
pub struct Listener {
    /// Non-blocking.
    pub socket: TcpListener,
    /// Whether other lanes accept from the same socket.
    pub sharing: Sharing,
}

impl Listener {
    /// One listener a lane at `address`, at which nobody can connect before [`Listener::listen`]; with port 0 all at the
    /// port that the first one got. Fails when the address cannot be bound, also when somebody else listens there with
    /// `SO_REUSEPORT`.
    pub fn for_lanes(address: SocketAddr, lanes: usize) -> io::Result<Vec<Listener>> {
        let probe = bound(address)?;
        let address = probe.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        drop(probe);
        Listener::beside_own(address, lanes)
    }

    /// As [`Listener::for_lanes`] at a port where this process listens already, which therefore is known to be ours.
    pub fn beside_own(address: SocketAddr, lanes: usize) -> io::Result<Vec<Listener>> {
        (0..lanes).map(|_| Listener::own(address)).collect()
    }

    /// From now on peers can connect. Inherited sockets listen already, with the queue that their unit gave them.
    pub fn listen(&self) -> io::Result<()> {
        match self.sharing {
            Sharing::Own => SockRef::from(&self.socket).listen(BACKLOG),
            Sharing::Inherited => Ok(()),
        }
    }

    /// One lane's view each of a socket that systemd handed over. Fails when the process is out of descriptors.
    pub fn inherited(socket: &TcpListener, lanes: usize) -> io::Result<Vec<Listener>> {
        let view = |_| {
            let socket = socket.try_clone()?;
            socket.set_nonblocking(true)?;
            Ok(Listener { socket, sharing: Sharing::Inherited })
        };
        (0..lanes).map(view).collect()
    }

    /// The same socket under another descriptor. Fails when the process is out of descriptors.
    pub fn another(&self) -> io::Result<Listener> {
        Ok(Listener { socket: self.socket.try_clone()?, sharing: self.sharing })
    }

    /// Reports connections to the epoll instance `epoll` as readiness of `token`, as long as there are any.
    pub fn watch(&self, epoll: &impl AsRawFd, token: u64) -> io::Result<()> {
        let exclusive = match self.sharing {
            Sharing::Own => 0,
            Sharing::Inherited => libc::EPOLLEXCLUSIVE,
        };
        // EPOLLEXCLUSIVE is bit 28 and EPOLLIN bit 0: no sign bit is lost.
        let events = (libc::EPOLLIN | exclusive).cast_unsigned();
        let mut event = libc::epoll_event { events, u64: token };
        // SAFETY: both descriptors are open, for they are borrowed; the event is a valid structure that the kernel reads.
        let done =
            unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, self.socket.as_raw_fd(), &raw mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Ends [`Listener::watch`].
    pub fn unwatch(&self, epoll: &impl AsRawFd) -> io::Result<()> {
        // SAFETY: both descriptors are open, for they are borrowed; EPOLL_CTL_DEL ignores the event.
        let done = unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, self.socket.as_raw_fd(), ptr::null_mut())
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn own(address: SocketAddr) -> io::Result<Listener> {
        let socket = unbound(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        Ok(Listener { socket: socket.into(), sharing: Sharing::Own })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes the close of `stream` a reset, so that the peer learns that what it has sent was not taken.
pub fn reset_on_close(stream: &impl AsFd) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = unbound(address)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use mio::{Events, Poll};

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";
    const SHORT: Option<Duration> = Some(Duration::from_millis(100));

    fn listening(lanes: usize) -> Vec<Listener> {
        let listeners = Listener::for_lanes(LOOPBACK.parse().unwrap(), lanes).unwrap();
        listeners.iter().for_each(|listener| listener.listen().unwrap());
        listeners
    }

    fn woken(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, SHORT).unwrap();
        !events.is_empty()
    }

    #[test]
    fn lanes_share_one_port_and_each_connection_reaches_one_of_them() {
        let listeners = listening(3);
        let address = listeners[0].socket.local_addr().unwrap();
        let clients: Vec<TcpStream> = (0..32).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut accepted = 0;
        for listener in &listeners {
            assert_eq!(listener.socket.local_addr().unwrap(), address);
            while listener.socket.accept().is_ok() {
                accepted += 1;
            }
        }
        assert_eq!(accepted, clients.len());
    }

    #[test]
    fn nobody_connects_before_a_listener_listens() {
        let listener = Listener::for_lanes(LOOPBACK.parse().unwrap(), 1).unwrap().remove(0);
        let address = listener.socket.local_addr().unwrap();
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        listener.listen().unwrap();
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn a_port_that_another_process_serves_is_an_error_and_not_shared() {
        let first = listening(1);
        let address = first[0].socket.local_addr().unwrap();
        let second = Listener::for_lanes(address, 1);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_watched_listener_is_reported_until_it_is_empty_or_unwatched() {
        for sharing in [Sharing::Own, Sharing::Inherited] {
            let mut poll = Poll::new().unwrap();
            let mut listener = listening(1).remove(0);
            listener.sharing = sharing;
            listener.watch(&poll, 7).unwrap();
            let _client = TcpStream::connect(listener.socket.local_addr().unwrap()).unwrap();
            assert!(woken(&mut poll));
            assert!(woken(&mut poll), "level-triggered: the connection still waits");
            listener.unwatch(&poll).unwrap();
            assert!(!woken(&mut poll));
        }
    }

    #[test]
    fn a_connection_to_an_inherited_socket_is_seen_by_every_view_but_taken_once() {
        let socket = TcpListener::bind(LOOPBACK).unwrap();
        let views = Listener::inherited(&socket, 2).unwrap();
        let _client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        assert!(views[1].socket.accept().is_ok());
        assert_eq!(views[0].socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
