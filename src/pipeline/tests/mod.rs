//! Tests of the pipeline that need more than one of its files.
//!
//! `simulation` runs all of it, from blocks to backends, in one thread on a clock, a disk and backends of its own; `writer`
//! shows what needs more than chance; `golden` opens a state directory of a released version.

mod golden;
mod simulation;
mod writer;
