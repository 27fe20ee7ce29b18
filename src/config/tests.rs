//! The configuration as people write it: the seeds' examples, precedence, and every message that has to help.
