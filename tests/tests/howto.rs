//! The negotiation that the PPTP client how-to prints, line for line: its packets, put together by
//! hand from the RFCs' drawings, must read as they read there.
//!
//! Lines 8, 9 and 14 of the how-to are no packets. Line 6 ends in `...`, as its author shortened
//! it; pppd itself shows the whole value.

use control::wire::log::describe;

/// Address, Control and Protocol; Code, Identifier and Length; and the data, in hexadecimal.
#[track_caller]
fn assert_reads(line: &str, frame: &[&str]) {
    let frame = hex::decode(frame.concat()).expect("hexadecimal");
    assert_eq!(describe(&frame).to_string(), line);
}

#[test]
fn lines_1_to_4_lcp() {
    assert_reads(
        "[LCP ConfReq id=0x1 <asyncmap 0x0> <magic 0x4c976cdf>]",
        &["ff03c021", "01010010", "020600000000", "05064c976cdf"],
    );
    assert_reads(
        "[LCP ConfReq id=0x1 <asyncmap 0x0> <auth chap MS-v2> <magic 0x7b5dca0e>]",
        &[
            "ff03c021",
            "01010015",
            "020600000000",
            "0305c22381",
            "05067b5dca0e",
        ],
    );
    assert_reads(
        "[LCP ConfAck id=0x1 <asyncmap 0x0> <auth chap MS-v2> <magic 0x7b5dca0e>]",
        &[
            "ff03c021",
            "02010015",
            "020600000000",
            "0305c22381",
            "05067b5dca0e",
        ],
    );
    assert_reads(
        "[LCP ConfAck id=0x1 <asyncmap 0x0> <magic 0x4c976cdf>]",
        &["ff03c021", "02010010", "020600000000", "05064c976cdf"],
    );
}

#[test]
fn lines_5_to_7_chap() {
    assert_reads(
        r#"[CHAP Challenge id=0x1 <7a3d05555bdac699d0dce5530da01387>, name = "zidler"]"#,
        &[
            "ff03c223",
            "0101001b",
            "107a3d05555bdac699d0dce5530da01387",
            "7a69646c6572",
        ],
    );

    // The 24 octets of the NT-Response are not in the how-to.
    let response = [
        "ff03c223",
        "02010039",
        "31af51bcc0894a92b4a6c98f895da26c41",
        "0000000000000000",
        "a1a2a3a4a5a6a7a8b1b2b3b4b5b6b7b8c1c2c3c4c5c6c7c800",
        "6d6961",
    ];
    assert_reads(
        "[CHAP Response id=0x1 <af51bcc0894a92b4a6c98f895da26c410000000000000000\
         a1a2a3a4a5a6a7a8b1b2b3b4b5b6b7b8c1c2c3c4c5c6c7c800>, name = \"mia\"]",
        &response,
    );
    let frame = hex::decode(response.concat()).expect("hexadecimal");
    assert_eq!(
        describe(&frame).shorten_values(24).to_string(),
        "[CHAP Response id=0x1 <af51bcc0894a92b4a6c98f895da26c410000000000000000...>, \
         name = \"mia\"]"
    );

    let message = "S=C0BB40C5E0BEFC0D69D9190F0140F18A8E1DBFBD M=Welcome to zidler.ece.uic.edu.";
    assert_eq!(message.len(), 0x4f - 4);
    assert_reads(
        "[CHAP Success id=0x1 \"S=C0BB40C5E0BEFC0D69D9190F0140F18A8E1DBFBD \
         M=Welcome to zidler.ece.uic.edu.\"]",
        &["ff03c223", "0301004f", &hex::encode(message)],
    );
}

#[test]
fn lines_10_to_13_ccp() {
    for (code, name) in [("01", "ConfReq"), ("02", "ConfAck")] {
        assert_reads(
            &format!("[CCP {name} id=0x1 <mppe +H -M +S -L -D -C>]"),
            &["ff0380fd", code, "01000a", "120601000040"],
        );
    }
}

#[test]
fn lines_15_to_20_ipcp() {
    for (line, code_and_id, address) in [
        ("[IPCP ConfReq id=0x1 <addr 0.0.0.0>]", "0101", "00000000"),
        (
            "[IPCP ConfReq id=0x1 <addr 192.168.254.230>]",
            "0101",
            "c0a8fee6",
        ),
        (
            "[IPCP ConfAck id=0x1 <addr 192.168.254.230>]",
            "0201",
            "c0a8fee6",
        ),
        (
            "[IPCP ConfNak id=0x1 <addr 192.168.254.231>]",
            "0301",
            "c0a8fee7",
        ),
        (
            "[IPCP ConfReq id=0x2 <addr 192.168.254.231>]",
            "0102",
            "c0a8fee7",
        ),
        (
            "[IPCP ConfAck id=0x2 <addr 192.168.254.231>]",
            "0202",
            "c0a8fee7",
        ),
    ] {
        assert_reads(line, &["ff038021", code_and_id, "000a", "0306", address]);
    }
}
