//! What authentication (RFC 1661 3.5) needs from outside the state machines: secrets, and what they
//! prove. `Authenticated` is made only where somebody has proved who it is, and only it holds what
//! MPPE's keys are derived from (RFC 3079).

use std::fmt;

use dataplane::mppe::keys::KeyStrength;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::challenge_response::{
    check_chap_md5_response, check_nt_challenge_response, check_nt_response, check_pap_password,
    generate_authenticator_response,
};
use crate::crypto::key_derivation::{KeyMaterial, StartKeys, start_keys};
use crate::crypto::nt_hash::{NtSecret, nt_password_hash};
use crate::wire::chap::{MsChapV1Response, MsChapV2Response};
use crate::wire::lcp::AuthProtocol;

/// A password, or the NT hash of one, forgotten on drop and never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret {
    octets: Vec<u8>,
    /// Of a password that is not known.
    nt_hash: Option<[u8; 16]>,
}

impl Secret {
    /// UTF-8 (or whatever the file held) octets of the password.
    #[must_use]
    pub const fn new(octets: Vec<u8>) -> Self {
        Self {
            octets,
            nt_hash: None,
        }
    }

    /// The NT hash (`NtPasswordHash`) of a password that is not known.
    #[must_use]
    pub const fn from_nt_hash(hash: [u8; 16]) -> Self {
        Self {
            octets: Vec::new(),
            nt_hash: Some(hash),
        }
    }

    /// The octets of the password; none when only its hash is known.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets
    }

    /// What MS-CHAP makes its proofs of.
    #[must_use]
    pub fn as_nt_secret(&self) -> NtSecret<'_> {
        match &self.nt_hash {
            Some(hash) => NtSecret::Hash(hash),
            None => NtSecret::Password(&self.octets),
        }
    }

    /// Whether nothing but MS-CHAP, and a PAP password that a peer presents, can be held against
    /// it.
    #[must_use]
    pub const fn is_nt_hash(&self) -> bool {
        self.nt_hash.is_some()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(<hidden>)")
    }
}

/// One way to prove who one is, in the order in which pppd prefers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AuthMethod {
    /// RFC 3748; which method is spoken inside is agreed on there.
    Eap,
    /// RFC 2759.
    MsChapV2,
    /// RFC 2433.
    MsChapV1,
    /// RFC 1994 with MD5.
    ChapMd5,
    /// RFC 1334.
    Pap,
}

impl AuthMethod {
    /// In the order in which pppd prefers them.
    pub const ALL: [Self; 5] = [
        Self::Eap,
        Self::MsChapV2,
        Self::MsChapV1,
        Self::ChapMd5,
        Self::Pap,
    ];

    /// How LCP asks for it.
    #[must_use]
    pub const fn protocol(self) -> AuthProtocol {
        match self {
            Self::Eap => AuthProtocol::Eap,
            Self::MsChapV2 => AuthProtocol::MsChapV2,
            Self::MsChapV1 => AuthProtocol::MsChapV1,
            Self::ChapMd5 => AuthProtocol::ChapMd5,
            Self::Pap => AuthProtocol::Pap,
        }
    }

    /// The method that LCP asks for so; `None` when it is none of ours.
    #[must_use]
    pub const fn from_protocol(protocol: &AuthProtocol) -> Option<Self> {
        match protocol {
            AuthProtocol::Eap => Some(Self::Eap),
            AuthProtocol::MsChapV2 => Some(Self::MsChapV2),
            AuthProtocol::MsChapV1 => Some(Self::MsChapV1),
            AuthProtocol::ChapMd5 => Some(Self::ChapMd5),
            AuthProtocol::Pap => Some(Self::Pap),
            AuthProtocol::Other(..) => None,
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eap => "EAP",
            Self::MsChapV2 => "MS-CHAPv2",
            Self::MsChapV1 => "MS-CHAP",
            Self::ChapMd5 => "CHAP-MD5",
            Self::Pap => "PAP",
        })
    }
}

/// A set of methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthMethods {
    /// RFC 3748.
    pub eap: bool,
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
    /// All.
    pub const ALL: Self = Self {
        eap: true,
        mschap_v2: true,
        mschap_v1: true,
        chap_md5: true,
        pap: true,
    };
    /// None.
    pub const NONE: Self = Self {
        eap: false,
        mschap_v2: false,
        mschap_v1: false,
        chap_md5: false,
        pap: false,
    };

    /// Whether `method` is one of them.
    #[must_use]
    pub const fn contains(&self, method: AuthMethod) -> bool {
        match method {
            AuthMethod::Eap => self.eap,
            AuthMethod::MsChapV2 => self.mschap_v2,
            AuthMethod::MsChapV1 => self.mschap_v1,
            AuthMethod::ChapMd5 => self.chap_md5,
            AuthMethod::Pap => self.pap,
        }
    }

    /// The same without `method`.
    #[must_use]
    pub const fn without(mut self, method: AuthMethod) -> Self {
        match method {
            AuthMethod::Eap => self.eap = false,
            AuthMethod::MsChapV2 => self.mschap_v2 = false,
            AuthMethod::MsChapV1 => self.mschap_v1 = false,
            AuthMethod::ChapMd5 => self.chap_md5 = false,
            AuthMethod::Pap => self.pap = false,
        }
        self
    }

    /// The one of them that is asked for first.
    #[must_use]
    pub fn strongest(&self) -> Option<AuthMethod> {
        AuthMethod::ALL
            .into_iter()
            .find(|&method| self.contains(method))
    }
}

impl fmt::Display for AuthMethods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for method in AuthMethod::ALL {
            if self.contains(method) {
                write!(f, "{separator}{method}")?;
                separator = ", ";
            }
        }
        f.write_str(if separator.is_empty() { "none" } else { "" })
    }
}

/// Where secrets are looked up: pure data, so a lookup is no I/O.
pub trait Secrets: Send + Sync + fmt::Debug {
    /// The secret that proves `client` to `server`, from the chap- or the pap-secrets (`pap`).
    fn find(&self, client: &str, server: &str, pap: bool) -> Option<Secret>;

    /// The file (or flag) a person must edit when `find` has none.
    fn origin(&self, pap: bool) -> String;

    /// What is to take the place of a password that the server says has expired.
    fn new_password(&self) -> Option<Secret> {
        None
    }

    /// The server has taken the new password: from now on it is what `find` gives.
    fn password_changed(&self) {}
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
    /// The CHAP response value (16 or 49 octets), the PAP password, or a whole EAP Response that an
    /// authentication server is to answer (`LinkConfig::eap_pass_through`).
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
        /// How this session's MPPE is narrowed.
        mppe: super::link::MppeLimit,
    },
    /// It is not.
    Reject {
        /// Microsoft's error code: 691 when name or password is wrong.
        code: u32,
        /// Words for the peer.
        message: String,
    },
    /// An authentication server wants the peer to answer this EAP Request; only where EAP is
    /// passed through.
    Continue {
        /// A whole EAP packet.
        request: Vec<u8>,
    },
}

/// What a verified MS-CHAP response yields.
#[derive(Clone)]
pub struct MsChapProof {
    /// `S=<40 hex>` (RFC 2759 8.7); empty in MS-CHAPv1.
    pub authenticator_response: String,
    /// Start keys can be derived from this and nothing else. Only an authentication server may
    /// hold it back.
    pub key_material: Option<KeyMaterial>,
}

impl fmt::Debug for MsChapProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MsChapProof(<hidden>)")
    }
}

/// The peer is not who it says: the secret is unknown, or the response is not made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("name or password is wrong")]
pub struct Denied;

/// Holds a peer's response against its secret, in constant time, and yields what MPPE and
/// MS-CHAPv2's `S=` are made from (nothing in CHAP-MD5 and PAP). An unknown name (`secret` is
/// `None`) takes as long as a wrong password.
///
/// # Errors
/// [`Denied`] when the response is not that of the secret.
pub fn verify(
    request: &AuthRequest,
    secret: Option<&Secret>,
) -> Result<Option<MsChapProof>, Denied> {
    let stand_in = Secret::new(b"-".to_vec());
    let proof = verify_password(request, secret.unwrap_or(&stand_in));
    if secret.is_some() { proof } else { Err(Denied) }
}

fn verify_password(request: &AuthRequest, secret: &Secret) -> Result<Option<MsChapProof>, Denied> {
    let password = secret.as_bytes();
    let (challenge, response) = (&request.challenge[..], request.response.as_bytes());
    let proved = |is_due: bool| if is_due { Ok(None) } else { Err(Denied) };
    match request.method {
        AuthMethod::MsChapV2 => verify_mschap_v2(request, secret.as_nt_secret()).map(Some),
        AuthMethod::MsChapV1 => verify_mschap_v1(request, secret.as_nt_secret()).map(Some),
        // It needs the password itself.
        AuthMethod::ChapMd5 if secret.is_nt_hash() => Err(Denied),
        AuthMethod::ChapMd5 => proved(check_chap_md5_response(
            request.id, password, challenge, response,
        )),
        AuthMethod::Pap => proved(match &secret.nt_hash {
            Some(hash) => check_pap_password(hash, &nt_password_hash(response)[..]),
            None => check_pap_password(password, response),
        }),
        // What is spoken inside is presented by its own name.
        AuthMethod::Eap => Err(Denied),
    }
}

fn verify_mschap_v2(request: &AuthRequest, password: NtSecret<'_>) -> Result<MsChapProof, Denied> {
    let challenge = request
        .challenge
        .as_slice()
        .try_into()
        .map_err(|_| Denied)?;
    let response = MsChapV2Response::parse(request.response.as_bytes()).map_err(|_| Denied)?;
    let MsChapV2Response {
        peer_challenge,
        nt_response,
        ..
    } = response;
    let name = request.peer_name.as_bytes();
    if !check_nt_response(challenge, &peer_challenge, name, password, &nt_response) {
        return Err(Denied);
    }
    Ok(MsChapProof {
        authenticator_response: generate_authenticator_response(
            password,
            &nt_response,
            &peer_challenge,
            challenge,
            name,
        ),
        key_material: Some(KeyMaterial::from_mschap_v2(password, &nt_response)),
    })
}

fn verify_mschap_v1(request: &AuthRequest, password: NtSecret<'_>) -> Result<MsChapProof, Denied> {
    let challenge = request
        .challenge
        .as_slice()
        .try_into()
        .map_err(|_| Denied)?;
    let response = MsChapV1Response::parse(request.response.as_bytes()).map_err(|_| Denied)?;
    // The LAN Manager response proves next to nothing (RFC 2433 4): it is not accepted.
    let uses_nt = response.use_nt_response != 0;
    if !check_nt_challenge_response(challenge, password, &response.nt_response) || !uses_nt {
        return Err(Denied);
    }
    Ok(MsChapProof {
        authenticator_response: String::new(),
        key_material: Some(KeyMaterial::from_mschap_v1(password, challenge)),
    })
}

/// That one end has proved to the other who it is. Only the PAP, CHAP and EAP machines make one,
/// from an exchange that succeeded, and session keys come from nothing else.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Authenticated {
    pub(super) method: AuthMethod,
    key_material: Option<KeyMaterial>,
    /// We were the authenticator, "the server" of RFC 3079 3.
    is_server: bool,
}

impl Authenticated {
    /// The peer proved to us who it is.
    pub(super) fn as_authenticator(method: AuthMethod, proof: Option<MsChapProof>) -> Self {
        let key_material = proof.and_then(|proof| proof.key_material);
        Self {
            method,
            key_material,
            is_server: true,
        }
    }

    /// We proved to the peer who we are, and in MS-CHAPv2 it proved that it knows our password.
    pub(super) const fn as_peer(method: AuthMethod, key_material: Option<KeyMaterial>) -> Self {
        Self {
            method,
            key_material,
            is_server: false,
        }
    }

    /// Whether session keys can be made: after MS-CHAP only.
    pub(super) const fn has_keys(&self) -> bool {
        self.key_material.is_some()
    }

    /// Start keys of both directions (RFC 3079).
    pub(super) fn start_keys(&self, strength: KeyStrength) -> Option<StartKeys> {
        let material = self.key_material.as_ref()?;
        Some(start_keys(material, strength, self.is_server))
    }
}

impl fmt::Debug for Authenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticated({:?}, <hidden>)", self.method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange of RFC 2759 9.2.
    fn rfc_2759() -> AuthRequest {
        let mut response = hex::decode("21402324255E262A28295F2B3A337C7E").unwrap();
        response.extend([0; 8]);
        response.extend(hex::decode("82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF").unwrap());
        response.push(0);
        AuthRequest {
            method: AuthMethod::MsChapV2,
            id: 1,
            peer_name: "User".into(),
            our_name: "server".into(),
            challenge: hex::decode("5B5D7C7D7B3F2F3E3C2C602132262628").unwrap(),
            response: Secret::new(response),
        }
    }

    fn client_pass() -> Secret {
        Secret::new(b"clientPass".to_vec())
    }

    #[test]
    fn the_exchange_of_rfc_2759_is_accepted_and_proved() {
        let proof = verify(&rfc_2759(), Some(&client_pass())).unwrap().unwrap();
        let due = "S=407A5589115FD0D6209F510FE9C04566932CDA56";
        assert_eq!(proof.authenticator_response, due);
        let Some(KeyMaterial::V2 { master_key }) = &proof.key_material else {
            panic!("not the keys of MS-CHAPv2");
        };
        // RFC 3079 3.5.1, made from the same exchange.
        assert_eq!(
            hex::encode_upper(master_key),
            "FDECE3717A8C838CB388E527AE3CDD31"
        );
    }

    #[test]
    fn an_nt_hash_does_what_the_password_does_in_ms_chap_and_pap_and_nothing_else() {
        // RFC 2759 9.2: the hash of "clientPass".
        let hash = hex::decode("44EBBA8D5312B8D611474411F56989AE").unwrap();
        let hash = Secret::from_nt_hash(hash.try_into().unwrap());
        let by = |secret: &Secret| verify(&rfc_2759(), Some(secret)).unwrap().unwrap();
        let (by_hash, by_password) = (by(&hash), by(&client_pass()));
        assert_eq!(
            by_hash.authenticator_response,
            by_password.authenticator_response
        );
        let (Some(KeyMaterial::V2 { master_key: ours }), Some(KeyMaterial::V2 { master_key: due })) =
            (&by_hash.key_material, &by_password.key_material)
        else {
            panic!("not the keys of MS-CHAPv2");
        };
        assert_eq!(ours, due);
        let presented = |method, response: &[u8]| AuthRequest {
            method,
            response: Secret::new(response.to_vec()),
            ..rfc_2759()
        };
        let pap = |password: &[u8]| verify(&presented(AuthMethod::Pap, password), Some(&hash));
        assert!(pap(b"clientPass").is_ok());
        assert!(pap(b"clientpass").is_err() && pap(b"").is_err());
        // The digest of an empty password, which is all that is there.
        let request = presented(AuthMethod::ChapMd5, &[]);
        let digest =
            crate::crypto::challenge_response::chap_md5_response(1, b"", &request.challenge);
        assert!(verify(&presented(AuthMethod::ChapMd5, &digest), Some(&hash)).is_err());
    }

    #[test]
    fn a_windows_domain_takes_no_part() {
        let mut request = rfc_2759();
        request.peer_name = "DOMAIN\\User".into();
        assert!(verify(&request, Some(&client_pass())).is_ok());
    }

    #[test]
    fn another_password_name_challenge_or_length_is_denied() {
        let wrong = Secret::new(b"clientpass".to_vec());
        assert!(verify(&rfc_2759(), Some(&wrong)).is_err());
        assert!(verify(&rfc_2759(), None).is_err());
        let mut request = rfc_2759();
        request.peer_name = "user".into();
        assert!(verify(&request, Some(&client_pass())).is_err());
        let mut request = rfc_2759();
        request.challenge[0] ^= 1;
        assert!(verify(&request, Some(&client_pass())).is_err());
        for method in AuthMethod::ALL {
            for response in [Vec::new(), vec![0; 16], vec![0; 49], vec![0; 200]] {
                let mut request = rfc_2759();
                request.method = method;
                request.response = Secret::new(response);
                assert!(verify(&request, Some(&client_pass())).is_err());
                assert!(verify(&request, None).is_err());
            }
        }
    }

    #[test]
    fn a_lan_manager_response_alone_is_denied() {
        let challenge: [u8; 8] = [0x10, 0x2D, 0xB5, 0xDF, 0x08, 0x5D, 0x30, 0x41];
        // RFC 2433 B.2, for the password "MyPw".
        let nt_response = "4E9D3C8F9CFD385D5BF4D3246791956CA4C351AB409A3D61";
        for (use_nt_response, is_accepted) in [(1, true), (0, false)] {
            let mut response = vec![0; 24];
            response.extend(hex::decode(nt_response).unwrap());
            response.push(use_nt_response);
            let request = AuthRequest {
                method: AuthMethod::MsChapV1,
                challenge: challenge.to_vec(),
                response: Secret::new(response),
                ..rfc_2759()
            };
            let secret = Secret::new(b"MyPw".to_vec());
            assert_eq!(verify(&request, Some(&secret)).is_ok(), is_accepted);
        }
    }
}
