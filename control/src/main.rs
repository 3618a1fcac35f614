//! The `pptp-fast` binary.
#![forbid(unsafe_code)]

fn main() {}
