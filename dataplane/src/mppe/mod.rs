//! Microsoft Point-to-Point Encryption (RFC 3078) and its key schedule (RFC 3079).

pub mod keys;
pub mod rc4;
pub mod rekey;
