//! Published examples of hashes, responses and keys: RFC 2433 B.2, RFC 2759 9.2, RFC 3079 2.5 and
//! 3.5; and the exchanges in the captures, whose password is known. (RFC 2433 B.3 and RFC 2759 9.3,
//! parity of DES keys, are beside the code that makes them.)

use control::crypto::challenge_response::{
    challenge_hash, check_authenticator_response, check_chap_md5_response,
    check_nt_challenge_response, check_nt_response, generate_authenticator_response,
    generate_nt_response, nt_challenge_response,
};
use control::crypto::key_derivation::{
    KeyMaterial, get_asymmetric_start_key, get_master_key, get_start_key, start_keys,
};
use control::crypto::nt_hash::{hash_nt_password_hash, lm_password_hash, nt_password_hash};
use control::wire::chap::{MsChapV1Response, MsChapV2Response};
use dataplane::mppe::keys::KeyStrength;
use sim::capture::{Capture, ChapExchange};

const AUTHENTICATOR_CHALLENGE: &str = "5B5D7C7D7B3F2F3E3C2C602132262628";
const PEER_CHALLENGE: &str = "21402324255E262A28295F2B3A337C7E";
const NT_RESPONSE: &str = "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF";
const PASSWORD_HASH_HASH: &str = "41C00C584BD2D91C4017A2A12FA59F3F";
const MASTER_KEY: &str = "FDECE3717A8C838CB388E527AE3CDD31";

fn octets<const N: usize>(hex: &str) -> [u8; N] {
    let octets = hex::decode(hex).expect("hexadecimal");
    octets.try_into().expect("as many octets as are due")
}

#[test]
fn rfc_2433_b_2_mschap_v1_response() {
    assert_eq!(
        *nt_password_hash(b"MyPw"),
        octets("FC156AF7EDCD6C0EDDE3337D427F4EAC")
    );
    assert_eq!(
        nt_challenge_response(&octets("102DB5DF085D3041"), b"MyPw"),
        octets("4E9D3C8F9CFD385D5BF4D3246791956CA4C351AB409A3D61")
    );
}

#[test]
fn rfc_2759_9_2_mschap_v2_response() {
    let authenticator_challenge = octets(AUTHENTICATOR_CHALLENGE);
    let peer_challenge = octets(PEER_CHALLENGE);
    let password_hash = nt_password_hash(b"clientPass");
    assert_eq!(
        challenge_hash(&peer_challenge, &authenticator_challenge, b"User"),
        octets("D02E4386BCE91226")
    );
    assert_eq!(*password_hash, octets("44EBBA8D5312B8D611474411F56989AE"));
    assert_eq!(
        *hash_nt_password_hash(&password_hash),
        octets(PASSWORD_HASH_HASH)
    );
    let nt_response = generate_nt_response(
        &authenticator_challenge,
        &peer_challenge,
        b"User",
        b"clientPass",
    );
    assert_eq!(nt_response, octets(NT_RESPONSE));
    assert_eq!(
        generate_authenticator_response(
            b"clientPass",
            &nt_response,
            &peer_challenge,
            &authenticator_challenge,
            b"User"
        ),
        "S=407A5589115FD0D6209F510FE9C04566932CDA56"
    );
}

#[test]
fn rfc_3079_2_5_start_keys_of_mschap_v1() {
    let lm_hash = octets::<16>("76a152936096d7830e2390227404afd2");
    assert_eq!(*lm_password_hash(b"clientPass"), lm_hash);

    let challenge = octets("102db5df085d3041");
    // Step 3 of 2.5.3 has ac ca in the middle, and step 4, its copy, ac c1. The session key of
    // step 5 follows from step 4.
    let start_key = octets("a8947850cfc0acc1d1789fb62ddcddb0");
    assert_eq!(
        *get_start_key(&challenge, &octets(PASSWORD_HASH_HASH)),
        start_key
    );

    let material = KeyMaterial::from_mschap_v1(b"clientPass", &challenge);
    for (strength, due) in [
        (KeyStrength::Bits40, &lm_hash[..8]),
        (KeyStrength::Bits56, &lm_hash[..8]),
        (KeyStrength::Bits128, &start_key[..]),
    ] {
        let keys = start_keys(&material, strength, false);
        assert_eq!(keys.send.as_bytes(), due);
        assert_eq!(keys.receive.as_bytes(), due);
    }
}

#[test]
fn rfc_3079_3_5_start_keys_of_mschap_v2() {
    let start_key: [u8; 16] = octets("8B7CDC149B993A1BA118CB153F56DCCB");
    assert_eq!(
        *get_master_key(&octets(PASSWORD_HASH_HASH), &octets(NT_RESPONSE)),
        octets(MASTER_KEY)
    );
    // The examples are the server's send key, which is the client's receive key.
    assert_eq!(
        *get_asymmetric_start_key(&octets(MASTER_KEY), true, true),
        start_key
    );
    assert_eq!(
        *get_asymmetric_start_key(&octets(MASTER_KEY), false, false),
        start_key
    );

    let material = KeyMaterial::from_mschap_v2(b"clientPass", &octets(NT_RESPONSE));
    for (strength, key_len) in [
        (KeyStrength::Bits40, 8),
        (KeyStrength::Bits56, 8),
        (KeyStrength::Bits128, 16),
    ] {
        let server = start_keys(&material, strength, true);
        let client = start_keys(&material, strength, false);
        assert_eq!(server.send.as_bytes(), &start_key[..key_len]);
        assert_eq!(client.receive.as_bytes(), &start_key[..key_len]);
        assert_eq!(server.receive.as_bytes(), client.send.as_bytes());
        assert_ne!(client.send.as_bytes(), client.receive.as_bytes());
    }
}

#[test]
fn mschap_v2_of_pppd_is_ours() {
    for name in [
        "deflate-vj",
        "mppe128-stateful",
        "mppe128-stateless",
        "mppe128-stateless-compressed-headers",
        "mppe40-stateless",
    ] {
        let ChapExchange {
            challenge,
            response,
            success,
            ..
        } = Capture::load(name).chap_exchange();
        let challenge: [u8; 16] = challenge.try_into().expect("16 octets");
        let response = MsChapV2Response::parse(&response).expect("49 octets");
        let (peer_challenge, nt_response) = (&response.peer_challenge, &response.nt_response);
        let accepts =
            |password| check_nt_response(&challenge, peer_challenge, b"mia", password, nt_response);
        assert!(accepts(b"mia123"), "{name}");
        assert!(!accepts(b"mia124"), "{name}");
        let authenticated = |password| {
            check_authenticator_response(
                password,
                nt_response,
                peer_challenge,
                &challenge,
                b"mia",
                &success,
            )
        };
        assert!(authenticated(b"mia123"), "{name}");
        assert!(!authenticated(b"mia124"), "{name}");
    }
}

#[test]
fn a_wrong_password_is_refused() {
    let ChapExchange {
        challenge,
        response,
        ..
    } = Capture::load("wrong-password").chap_exchange();
    let challenge: [u8; 16] = challenge.try_into().expect("16 octets");
    let response = MsChapV2Response::parse(&response).expect("49 octets");
    assert!(!check_nt_response(
        &challenge,
        &response.peer_challenge,
        b"mia",
        b"mia123",
        &response.nt_response
    ));
}

#[test]
fn mschap_v1_of_pppd_is_ours() {
    for name in ["mschapv1", "mschapv1-mppe128"] {
        let ChapExchange {
            challenge,
            response,
            ..
        } = Capture::load(name).chap_exchange();
        let challenge: [u8; 8] = challenge.try_into().expect("8 octets");
        let response = MsChapV1Response::parse(&response).expect("49 octets");
        assert_eq!(
            (response.lm_response, response.use_nt_response),
            ([0; 24], 1)
        );
        let accepts =
            |password| check_nt_challenge_response(&challenge, password, &response.nt_response);
        assert!(accepts(b"mia123"), "{name}");
        assert!(!accepts(b"mia124"), "{name}");
    }
}

#[test]
fn chap_md5_of_pppd_is_ours() {
    let ChapExchange {
        id,
        challenge,
        response,
        ..
    } = Capture::load("chap-md5").chap_exchange();
    assert!(check_chap_md5_response(
        id, b"mia123", &challenge, &response
    ));
    assert!(!check_chap_md5_response(
        id.wrapping_add(1),
        b"mia123",
        &challenge,
        &response
    ));
}

#[test]
fn a_domain_before_the_name_takes_no_part() {
    let hash = |name: &[u8]| challenge_hash(&[1; 16], &[2; 16], name);
    assert_eq!(hash(b"ECE\\mia"), hash(b"mia"));
    assert_ne!(hash(b"ECE/mia"), hash(b"mia"));
}
