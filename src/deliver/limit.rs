//! What a peer takes at once, learned from its answers: 413 says too much, an accepted request says that much is fine.
//!
//! After a refusal the limit is half of what was refused, but not below the largest request that the peer has taken: a
//! single huge span must not talk the limit down for everybody. It is forgotten with the configuration generation.

/// The learned limit of request bytes.
#[derive(Debug)]
pub(super) struct SizeLimit {
    bytes: usize,
    largest_accepted: usize,
}

impl SizeLimit {
    /// Starts at the configured limit.
    pub(super) fn new(max_request_bytes: usize) -> SizeLimit {
        SizeLimit { bytes: max_request_bytes, largest_accepted: 0 }
    }

    /// Payload bytes that a request may hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The peer took a request of `bytes`.
    pub(super) fn accepted(&mut self, bytes: usize) {
        self.largest_accepted = self.largest_accepted.max(bytes);
    }

    /// The peer found a request of `bytes` too large.
    pub(super) fn refused(&mut self, bytes: usize) {
        if bytes <= self.largest_accepted {
            // The peer changed its mind: what it took before counts no more.
            self.largest_accepted = bytes / 2;
        }
        self.bytes = self.bytes.min((bytes / 2).max(self.largest_accepted)).max(1);
    }

    /// A request of `bytes` does not get through, and nothing says why. Its size is only suspect when nothing as large was
    /// ever accepted.
    pub(super) fn suspected(&mut self, bytes: usize) {
        if bytes > self.largest_accepted {
            self.refused(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_suspect_only_when_nothing_as_large_was_accepted() {
        let mut limit = SizeLimit::new(1 << 20);
        limit.accepted(90_000);
        limit.suspected(80_000);
        assert_eq!(limit.bytes(), 1 << 20);
        limit.suspected(1 << 20);
        assert_eq!(limit.bytes(), 1 << 19);
        limit.suspected(95_000);
        assert_eq!(limit.bytes(), 90_000);
    }

    #[test]
    fn it_halves_what_was_refused_but_keeps_what_was_accepted() {
        let mut limit = SizeLimit::new(1 << 20);
        limit.refused(1 << 20);
        assert_eq!(limit.bytes(), 1 << 19);
        limit.accepted(300_000);
        limit.refused(400_000);
        assert_eq!(limit.bytes(), 300_000);
        limit.refused(900_000);
        assert_eq!(limit.bytes(), 300_000, "a larger refusal tells nothing new");
        limit.refused(200_000);
        assert_eq!(limit.bytes(), 100_000, "the peer changed its mind");
        for _ in 0..64 {
            limit.refused(limit.bytes());
        }
        assert_eq!(limit.bytes(), 1, "a limit of nothing would stop delivery");
    }
}
