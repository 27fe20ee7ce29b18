//! systemd: notifications over `$NOTIFY_SOCKET`, the watchdog's interval, and sockets that were passed in.
//!
//! The protocols are those of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3), spoken directly: a datagram of
//! `KEY=value` lines and a few variables need no library. A notification that cannot be sent is not an error, for the
//! service works without a manager; nothing here decides when to notify.

#![allow(unsafe_code, reason = "descriptors that systemd passes in arrive as numbers")]

use std::fmt::Write;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use socket2::SockRef;

/// The first descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST_FD: RawFd = 3;

/// Descriptors that are looked at; more than any unit passes.
const MAX_FDS: RawFd = 64;

/// Where notifications go; to nobody when the process was not started by systemd.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The manager that the environment names. A socket that cannot be used counts as none.
    #[must_use]
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Notifier {
        let socket = environment("NOTIFY_SOCKET").and_then(|path| {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name).ok()?,
                None => SocketAddr::from_pathname(path).ok()?,
            };
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that does not read must not hold this process up.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let number = |name: &str| environment(name).and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let period = number("WATCHDOG_USEC").filter(|period| *period > 0 && is_ours);
        Notifier { socket, watchdog: period.map(|period| Duration::from_micros(period / 2)) }
    }

    /// How often [`Notifier::alive`] is due: half the watchdog's period; `None` when there is no watchdog.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service takes data.
    pub fn ready(&self, status: &str) {
        self.send(&[("READY", "1"), ("STATUS", status)]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&[("STATUS", status)]);
    }

    /// The watchdog's sign of life: to be given only when every thread has ticked.
    pub fn alive(&self) {
        self.send(&[("WATCHDOG", "1")]);
    }

    /// The configuration is being read again, at a time of CLOCK_MONOTONIC.
    pub fn reloading(&self, monotonic: Duration) {
        self.send(&[("RELOADING", "1"), ("MONOTONIC_USEC", &monotonic.as_micros().to_string())]);
    }

    /// The service stops.
    pub fn stopping(&self, status: &str) {
        self.send(&[("STOPPING", "1"), ("STATUS", status)]);
    }

    /// Stopping needs so much longer, from now.
    pub fn extend_timeout(&self, by: Duration) {
        self.send(&[("EXTEND_TIMEOUT_USEC", &by.as_micros().to_string())]);
    }

    fn send(&self, assignments: &[(&str, &str)]) {
        let Some((socket, address)) = &self.socket else { return };
        let mut message = String::new();
        for (key, value) in assignments {
            // A line break would start another assignment.
            let value = value.replace(['\n', '\r'], " ");
            writeln!(message, "{key}={value}").expect("writing to a string cannot fail");
        }
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!("systemd was not notified: {error}");
        }
    }
}

/// A listening TCP socket that systemd passed in.
#[derive(Debug)]
pub struct Inherited {
    /// Its `FileDescriptorName=`; the name of the unit when none was given, empty when systemd names none.
    pub name: String,
    /// The socket.
    pub listener: TcpListener,
}

/// The sockets that were passed to this process. To be called once, before any descriptor is opened: afterwards the
/// numbers would mean something else. Errors: a descriptor that is not a listening TCP socket.
pub fn inherited(environment: &dyn Fn(&str) -> Option<String>) -> io::Result<Vec<Inherited>> {
    let number = |name: &str| environment(name).and_then(|text| text.parse::<i64>().ok());
    if number("LISTEN_PID") != Some(i64::from(std::process::id())) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0).clamp(0, MAX_FDS);
    let names = environment("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<&str> = names.split(':').collect();
    (0..count)
        .map(|index| {
            let position = usize::try_from(index).expect("clamped to small positive numbers");
            let name = names.get(position).copied().unwrap_or_default().to_owned();
            let listener = take_listener(FIRST_FD + index)?;
            Ok(Inherited { name, listener })
        })
        .collect()
}

fn take_listener(fd: RawFd) -> io::Result<TcpListener> {
    // SAFETY: F_GETFD takes no pointer, and a number that is no descriptor only gives EBADF.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and by the protocol it is ours alone; the caller takes each number once.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let socket = SockRef::from(&owned);
    let is_listening_tcp = socket.is_listener()? && socket.local_addr()?.as_socket().is_some();
    if !is_listening_tcp {
        let message = format!("descriptor {fd} from systemd is not a listening TCP socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    socket.set_cloexec(true)?;
    Ok(TcpListener::from(owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(path: String, period: Option<u64>) -> impl Fn(&str) -> Option<String> {
        move |name| match name {
            "NOTIFY_SOCKET" => Some(path.clone()),
            "WATCHDOG_USEC" => period.map(|period| period.to_string()),
            _ => None,
        }
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn notifications_arrive_at_a_path_and_at_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("millrace-test-{}", std::process::id());
        let at_path = UnixDatagram::bind(&path).unwrap();
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(at_path, path.display().to_string()), (at_name, format!("@{name}"))] {
            let notifier = Notifier::from_environment(&environment(address, Some(20_000_000)));
            assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(10)));
            notifier.ready("ready");
            assert_eq!(received(&socket), "READY=1\nSTATUS=ready\n");
            notifier.status("two\nlines");
            assert_eq!(received(&socket), "STATUS=two lines\n");
            notifier.alive();
            assert_eq!(received(&socket), "WATCHDOG=1\n");
            notifier.extend_timeout(Duration::from_secs(3));
            assert_eq!(received(&socket), "EXTEND_TIMEOUT_USEC=3000000\n");
            notifier.stopping("draining");
            assert_eq!(received(&socket), "STOPPING=1\nSTATUS=draining\n");
        }
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notifier = Notifier::from_environment(&|_| None);
        notifier.ready("ready");
        assert_eq!(notifier.watchdog_interval(), None);
        let gone = Notifier::from_environment(&environment("/nowhere/notify".to_owned(), None));
        gone.ready("ready");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let environment = |name: &str| match name {
            "WATCHDOG_USEC" => Some("1000000".to_owned()),
            "WATCHDOG_PID" => Some("1".to_owned()),
            _ => None,
        };
        assert_eq!(Notifier::from_environment(&environment).watchdog_interval(), None);
    }

    #[test]
    fn sockets_of_another_process_are_left_alone() {
        let environment = |name: &str| match name {
            "LISTEN_FDS" => Some("2".to_owned()),
            "LISTEN_PID" => Some("1".to_owned()),
            _ => None,
        };
        assert!(inherited(&environment).unwrap().is_empty());
    }

    #[test]
    fn only_listening_sockets_are_taken() {
        use std::os::fd::IntoRawFd;

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = take_listener(listener.into_raw_fd()).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        let datagram = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(take_listener(datagram.into_raw_fd()).is_err());
        assert!(take_listener(1 << 20).is_err());
    }
}
