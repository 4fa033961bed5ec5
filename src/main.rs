//! The `opship` program: parse, dispatch, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    opship::main()
}
