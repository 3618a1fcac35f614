//! Allocation of Call IDs (RFC 2637 3.2.2).
