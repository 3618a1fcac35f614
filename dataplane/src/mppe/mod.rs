//! Microsoft Point-to-Point Encryption (RFC 3078) and its key schedule (RFC 3079).

pub mod baseline;
pub mod cipher_batch;
pub mod decryptor;
pub mod encryptor;
pub mod keys;
pub mod look_ahead;
pub mod plaintext;
pub mod rc4;
pub mod rekey;
