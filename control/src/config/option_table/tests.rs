//! The table against pppd's own names, and what rows do.

use std::collections::HashSet;
use std::path::Path;

use super::*;

/// Every option name of pppd's source (ppp 2.5.3 and after), by file.
const PPPD_NAMES: &str = "
    noauth auth require-pap +pap require-chap +chap require-mschap +mschap require-mschap-v2
    +mschap-v2 require-eap refuse-pap -pap refuse-chap -chap refuse-mschap -mschap
    refuse-mschap-v2 -mschap-v2 refuse-eap name user password +ua usehostname remotename
    pap-secrets chap-secrets login enable-session papcrypt privgroup allow-ip remotenumber
    allow-number ca capath crl crl-dir cert key pkcs12 max-tls-version tls-verify-key-usage
    tls-verify-method need-peer-eap
    noccp -ccp bsdcomp nobsdcomp deflate nodeflate nodeflatedraft predictor1 nopredictor1
    require-mppe +mppe nomppe -mppe require-mppe-40 +mppe-40 nomppe-40 require-mppe-128 +mppe-128
    nomppe-128 mppe-stateful nomppe-stateful
    chap-restart chap-max-challenge chap-interval chap-timeout chapms-strip-domain ms-lanman
    mschap-challenge mschap2-peer-challenge
    eap-restart eap-max-sreq eap-timeout eap-max-rreq eap-interval
    asyncmap default-asyncmap mru default-mru mtu nomagic noaccomp nopcomp passive silent
    lcp-echo-failure lcp-echo-interval lcp-echo-adaptive lcp-rtt-file lcp-restart
    lcp-max-terminate lcp-max-configure lcp-max-failure receive-all mrru mpshortseq endpoint
    noendpoint -all
    noip novj novjccomp vj-max-slots ipcp-accept-local ipcp-accept-remote ipparam noipdefault
    ms-dns ms-wins ipcp-restart ipcp-max-terminate ipcp-max-configure ipcp-max-failure
    defaultroute nodefaultroute defaultroute-metric replacedefaultroute noreplacedefaultroute
    proxyarp noproxyarp usepeerdns usepeerwins noresolvconf netmask ipcp-no-address
    ipcp-no-addresses noremoteip nosendip
    ipv6 +ipv6 noipv6 -ipv6 ipv6cp-accept-local ipv6cp-accept-remote defaultroute6
    defaultroute6-metric ipv6cp-use-ipaddr ipv6cp-use-persistent ipv6cp-use-remotenumber
    ipv6cp-noremote ipv6cp-nosend ipv6cp-restart ipv6cp-max-terminate ipv6cp-max-configure
    ipv6cp-max-failure
    hide-password show-password pap-restart pap-max-authreq pap-timeout
    debug -d kdebug nodetach -detach updetach up_sdnotify master_detach holdoff idle maxconnect
    domain file call persist nopersist demand logfile logfd nolog linkname maxfail ktune
    connect-delay unit ifname vrf dump dryrun child-timeout set unset net-init-script
    net-pre-up-script net-down-script auth-up-script auth-down-script ip-up-script ip-down-script
    ip-pre-up-script ipv6-up-script ipv6-down-script multilink mp bundle plugin pass-filter
    active-filter maxoctets mo-direction mo-timeout noipx show-options --help --version
    lock nolock init connect disconnect welcome pty notty socket record crtscts modem local sync
    datarate escape stop-bits callback
    ipx-network ipx-node ipx-router-name ipx-routing ipxcp-accept-local ipxcp-accept-network
    ipxcp-accept-remote ipxcp-restart ipxcp-max-terminate ipxcp-max-configure ipxcp-max-failure
    noecp -ecp nic-interface pppoe-service pppoe-ac pppoe-sess pppoe-mac pppoe-verbose";

/// Words of patched versions, from the files that people have.
const DIALECT_NAMES: &str = "
    mppe mppe-128 mppe-40 +chapms-v2 -chapms nomppc require-mppe56 require-mppe128 pptp_server
    pptp_client pptp_phone";

#[test]
fn every_name_of_pppd_and_of_its_dialects_has_a_row() {
    for name in PPPD_NAMES
        .split_whitespace()
        .chain(DIALECT_NAMES.split_whitespace())
    {
        assert!(find(name).is_some(), "{name}");
    }
}

#[test]
fn names_are_unique_and_groups_exist() {
    let mut names = HashSet::new();
    for row in rows() {
        assert!(names.insert(row.name), "{} stands twice", row.name);
        let group = rows().find(|other| other.name == row.group).unwrap();
        assert_eq!(
            group.group, group.name,
            "the group of {} is in a group itself",
            row.name
        );
    }
}

#[test]
fn every_reason_is_words_for_a_person() {
    for row in rows() {
        if let Treatment::Harmless(reason) | Treatment::Refused(reason) = row.treatment {
            assert!(
                reason.len() > 10 && !reason.ends_with('.'),
                "{}: {reason}",
                row.name
            );
        }
    }
}

fn options(words: &str) -> Result<PppdOptions, String> {
    let mut options = PppdOptions::default();
    options
        .read_text(Path::new("/nonexistent"), "f", words.as_bytes())
        .map(|()| options)
        .map_err(|error| error.to_string())
}

#[test]
fn mppe_words_add_up_in_their_order() {
    let bits = |words: &str| {
        let mppe = options(words).unwrap().mppe;
        (
            mppe.bits_40,
            mppe.bits_56,
            mppe.bits_128,
            mppe.stateful,
            mppe.optional,
        )
    };
    assert_eq!(bits("require-mppe"), (true, false, true, false, false));
    assert_eq!(
        bits("require-mppe nomppe-40"),
        (false, false, true, false, false)
    );
    assert_eq!(
        bits("require-mppe-128 mppe-stateful"),
        (false, false, true, true, false)
    );
    assert_eq!(
        bits("require-mppe-128 nomppe"),
        (false, false, false, false, false)
    );
    assert_eq!(bits("require-mppe56"), (false, true, false, false, false));
    assert_eq!(
        bits("mppe required,stateless"),
        (true, true, true, false, false)
    );
    assert_eq!(
        bits("mppe required,no40,no56,stateless"),
        (false, false, true, false, false)
    );
    assert_eq!(bits("mppe no40,no56"), (false, false, true, true, true));
    assert!(
        options("mppe requird")
            .unwrap_err()
            .contains("'requird' is none of")
    );
}

#[test]
fn stateful_mode_may_be_preferred_and_then_is_allowed() {
    let modes = |words: &str| {
        let mppe = options(words).unwrap().mppe;
        (mppe.stateful, mppe.prefer_stateful)
    };
    assert_eq!(modes("mppe-stateful"), (true, false));
    assert_eq!(modes("mppe-prefer-stateful"), (true, true));
    assert_eq!(
        modes("mppe-prefer-stateful nomppe-stateful"),
        (false, false)
    );
    assert_eq!(modes("nomppe-stateful mppe-prefer-stateful"), (true, true));
    assert_eq!(modes("mppe-prefer-stateful nomppe"), (false, false));
}

#[test]
fn a_packet_that_no_slot_holds_is_refused() {
    let largest = options("mru 1904 mtu 1904").unwrap();
    assert_eq!((largest.mru, largest.mtu), (Some(1904), Some(1904)));
    for words in ["mru 1905", "mtu 16384"] {
        let error = options(words).unwrap_err();
        assert!(
            error.contains("value must be between 128 and 1904"),
            "{error}"
        );
    }
}

#[test]
fn a_peer_may_be_challenged_again() {
    assert_eq!(options("lock").unwrap().chap_interval_s, 0);
    assert_eq!(options("chap-interval 300").unwrap().chap_interval_s, 300);
}

#[test]
fn pty_gives_the_server_and_the_options_of_pptp() {
    let with = |pty: &str| options(&format!("pty '{pty}'"));
    let all = with(
        "/usr/sbin/pptp --loglevel 0 vpn.example --nolaunchpppd --phone 55 --localbind 192.0.2.1 \
         --rtmark=7 --timeout 0.5 --nobuffer --idle-wait 30 --nohostroute --missing-window 6000",
    )
    .unwrap();
    assert_eq!(all.server.as_deref(), Some("vpn.example"));
    let pptp = &all.pptp;
    assert_eq!(pptp.phone, "55");
    assert_eq!(pptp.local_bind, Some(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(pptp.mark, Some(7));
    assert_eq!((pptp.reorder_timeout_ms, pptp.reorder), (500, false));
    assert_eq!((pptp.idle_wait_ms, pptp.host_route), (30_000, false));
    assert_eq!(pptp.missing_window, Some(6_000));
    assert_eq!(pptp.given.len(), 10);
    let harmless = pptp.given.iter().filter(|word| word.harmless.is_some());
    let harmless: Vec<_> = harmless.map(|word| word.name.as_str()).collect();
    assert_eq!(harmless, ["--loglevel", "--nolaunchpppd"]);
    for (pty, words) in [
        ("/usr/sbin/pppoe -I eth0", "only run `pptp SERVER"),
        (
            "pptp host --timeout 11",
            "'11' is not a value for pptp's --timeout",
        ),
        ("pptp host --phone", "--phone needs a value"),
        ("pptp host --fone 5", "no option '--fone'"),
        ("pptp -x", "no option '-x'"),
        ("pptp ho;st", "'ho;st' is not a host name"),
        ("", "only run `pptp SERVER"),
    ] {
        let error = with(pty).unwrap_err();
        assert!(error.contains(words), "{pty}: {error}");
    }
}

#[test]
fn a_kernel_plugin_is_replaced_and_others_are_refused() {
    let words = "plugin pptp.so\npptp_server 10.0.0.1\nplugin /usr/lib/pppd/2.5.0/pptp.so";
    assert_eq!(options(words).unwrap().server.as_deref(), Some("10.0.0.1"));
    let error = options("plugin /usr/lib/pppd/2.5.0/nm-pptp-pppd-plugin.so").unwrap_err();
    assert!(error.contains("asks NetworkManager"), "{error}");
    let error = options("plugin radattr.so").unwrap_err();
    assert!(
        error.contains("plugin 'radattr.so' cannot be loaded"),
        "{error}"
    );
    let radius = options("plugin radius.so\nradius-config-file /etc/r.conf").unwrap();
    assert!(radius.radius && radius.radius_config_file.is_some());
}

#[test]
fn addresses_are_a_word_of_their_own() {
    let pair = |word: &str| {
        let options = options(word).unwrap();
        (options.local_address, options.remote_address)
    };
    let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(pair("10.0.0.1:10.0.0.2"), (Some(a), Some(b)));
    assert_eq!(pair("10.0.0.1:"), (Some(a), None));
    assert_eq!(pair(":10.0.0.2"), (None, Some(b)));
    assert_eq!(pair("0.0.0.0:10.0.0.2"), (None, Some(b)));
    // pppd takes names of hosts, too. No name server is asked for a label as long as this.
    assert_eq!(pair("localhost:"), (Some(Ipv4Addr::LOCALHOST), None));
    let no_host = format!("10.0.0.1:{}", "x".repeat(64));
    assert!(options(&no_host).unwrap_err().contains("unknown host: xxx"));
}

#[test]
fn a_part_of_a_password_is_not_taken_for_a_host() {
    let error = options("password two localhost:words").unwrap_err();
    assert!(
        error.contains("needs quotes") && !error.contains("words"),
        "{error}"
    );
    assert!(options("password one 10.0.0.1:").is_ok());
    // Nor is it shown as the speed of a line.
    let numbers = options("password two 4711 0815\ndebug dump").unwrap();
    let dump = numbers.dump_text();
    assert!(!dump.contains("4711") && !dump.contains("0815"), "{dump}");
    assert!(
        options("password two 4711 some:words")
            .unwrap_err()
            .contains("needs quotes")
    );
}

#[test]
fn several_asyncmaps_are_put_together() {
    assert_eq!(
        options("asyncmap a0000 asyncmap 0x1").unwrap().accm,
        Some(0xA_0001)
    );
    assert_eq!(options("default-asyncmap").unwrap().accm, None);
}

#[test]
fn an_interface_name_must_be_one() {
    assert_eq!(
        options("ifname vpn0").unwrap().interface.as_deref(),
        Some("vpn0")
    );
    for word in ["ifname a/b", "ifname sixteen-letters-x", "ifname ''"] {
        assert!(
            options(word).unwrap_err().contains("ifname value must be"),
            "{word}"
        );
    }
}
