//! GRE sequence numbers (RFC 2637 4.2, 4.3).
