//! One control connection (RFC 2637 3.1): Originator and Receiver.
