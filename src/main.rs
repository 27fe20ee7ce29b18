//! Millrace's binary: arguments to command, nothing else.
//!
//! Commands live in [`millrace::cli`]; this file only gives the process its exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    millrace::cli::main(millrace::cli::Arguments::parse())
}
