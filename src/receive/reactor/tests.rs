//! The reactor against real sockets on loopback, driven turn by turn.
