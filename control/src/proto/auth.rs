//! What authentication needs from outside the state machines: secrets, and what they prove.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A password, forgotten on drop and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// UTF-8 (or whatever the file held) octets of the password.
    #[must_use]
    pub const fn new(octets: Vec<u8>) -> Self {
        Self(octets)
    }

    /// The octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(<hidden>)")
    }
}

/// One way to prove who one is, strongest first as pppd prefers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthMethod {
    /// RFC 2759.
    MsChapV2,
    /// RFC 2433.
    MsChapV1,
    /// RFC 1994 with MD5.
    ChapMd5,
    /// RFC 1334.
    Pap,
}

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthMethods {
    /// RFC 2759.
    pub mschap_v2: bool,
    /// RFC 2433.
    pub mschap_v1: bool,
    /// RFC 1994 with MD5.
    pub chap_md5: bool,
    /// RFC 1334.
    pub pap: bool,
}

impl AuthMethods {
    /// All four.
    pub const ALL: Self = Self {
        mschap_v2: true,
        mschap_v1: true,
        chap_md5: true,
        pap: true,
    };
    /// None.
    pub const NONE: Self = Self {
        mschap_v2: false,
        mschap_v1: false,
        chap_md5: false,
        pap: false,
    };
}

/// Where secrets are looked up: pure data, so a lookup is no I/O.
pub trait Secrets: Send + Sync + std::fmt::Debug {
    /// The secret that proves `client` to `server`, from the chap- or the pap-secrets (`pap`).
    fn find(&self, client: &str, server: &str, pap: bool) -> Option<Secret>;

    /// The file (or flag) a person must edit when `find` has none.
    fn origin(&self, pap: bool) -> String;
}

/// What a peer presented to us, the authenticator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRequest {
    /// How.
    pub method: AuthMethod,
    /// CHAP identifier (it enters the MD5 digest); 0 for PAP.
    pub id: u8,
    /// Who it says it is.
    pub peer_name: String,
    /// Who we said we are (`name` option).
    pub our_name: String,
    /// Our challenge: 16 octets, 8 in MS-CHAPv1, empty for PAP.
    pub challenge: Vec<u8>,
    /// The CHAP response value (16 or 49 octets), or the PAP password.
    pub response: Secret,
}

/// What the secrets say to an `AuthRequest`.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is who it says.
    Accept {
        /// `S=...` and keys, made from the secret (MS-CHAP only); see `crypto`.
        proof: Option<MsChapProof>,
        /// `M=` text, or the CHAP/PAP message.
        message: String,
        /// Addresses for IPCP.
        addresses: super::link::Addresses,
    },
    /// It is not.
    Reject {
        /// Microsoft's error code: 691 when name or password is wrong.
        code: u32,
        /// Words for the peer.
        message: String,
    },
}

/// What a verified MS-CHAP response yields.
#[derive(Clone)]
pub struct MsChapProof {
    /// `S=<40 hex>` (RFC 2759 8.7); empty in MS-CHAPv1.
    pub authenticator_response: String,
    /// Start keys can be derived from this and nothing else.
    pub key_material: crate::crypto::key_derivation::KeyMaterial,
}

impl std::fmt::Debug for MsChapProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MsChapProof(<hidden>)")
    }
}
