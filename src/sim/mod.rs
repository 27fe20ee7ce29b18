//! The simulated world. Nobody imports it but tests.
