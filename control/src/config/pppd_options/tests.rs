//! Options files as people have them, and as real pppd shows them back.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::error::ConfigError;
use crate::proto::auth::AuthMethods;

const NO_DIR: &str = "/nonexistent";

fn read(text: &[u8]) -> Result<PppdOptions, ConfigError> {
    let mut options = PppdOptions::default();
    options
        .read_text(Path::new(NO_DIR), "/etc/ppp/options.pptp", text)
        .map(|()| options)
}

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn later_options_win() {
    let options = read(b"mtu 1400\nmtu 1300\nnoauth\nauth\nnodetach\nupdetach\nlogfd 2\nnolog\n");
    let options = options.unwrap();
    assert_eq!(options.mtu, Some(1300));
    assert_eq!(options.require_methods(), AuthMethods::ALL);
    assert_eq!(options.detach, Detach::WhenUp);
    assert_eq!(options.log_fd, None);
}

#[test]
fn noauth_behind_a_required_method_wins_and_the_other_way_round() {
    let methods = |text: &[u8]| read(text).unwrap().require_methods();
    assert_eq!(methods(b"require-mschap-v2 noauth"), AuthMethods::NONE);
    let v2 = AuthMethods {
        mschap_v2: true,
        ..AuthMethods::NONE
    };
    assert_eq!(methods(b"noauth require-mschap-v2"), v2);
    assert_eq!(methods(b""), AuthMethods::NONE);
}

#[test]
fn tabs_carriage_returns_a_byte_order_mark_and_no_last_newline_are_read() {
    let options = read(b"\xEF\xBB\xBFname\tmia\r\n\r\n# caf\xE9\r\nmtu 0x578\r\nnopcomp").unwrap();
    assert_eq!(options.name.as_deref(), Some("mia"));
    assert_eq!(options.mtu, Some(1400));
    assert!(!options.pfc);
}

#[test]
fn a_name_that_is_not_utf8_is_read_with_replacements() {
    assert_eq!(
        read(b"name caf\xE9").unwrap().name.as_deref(),
        Some("caf\u{FFFD}")
    );
    let password = read(b"password caf\xE9").unwrap().password.unwrap();
    assert_eq!(password.as_bytes(), b"caf\xE9");
}

#[test]
fn mistakes_are_in_the_words_of_pppd_with_their_line() {
    for (text, message) in [
        (
            "lock\n\nxyz\n",
            "In file /etc/ppp/options.pptp: unrecognized option 'xyz' (line 3)",
        ),
        (
            "require-mpe-128",
            "In file /etc/ppp/options.pptp: unrecognized option 'require-mpe-128' (line 1). \
             Did you mean 'require-mppe-128'?",
        ),
        (
            "lock\nmtu",
            "In file /etc/ppp/options.pptp: too few parameters for option 'mtu' (line 2)",
        ),
        (
            "mtu big",
            "In file /etc/ppp/options.pptp, line 1: invalid numeric parameter 'big' for mtu option",
        ),
        (
            "\nmru 100",
            "In file /etc/ppp/options.pptp, line 2: \
             mru value must be between 128 and 1904, not 100",
        ),
        (
            "mtu 1400x",
            "In file /etc/ppp/options.pptp, line 1: \
             invalid numeric parameter '1400x' for mtu option",
        ),
        (
            "unit -1",
            "In file /etc/ppp/options.pptp, line 1: unit value must be between 0 and 65535, not -1",
        ),
        (
            "login",
            "In file /etc/ppp/options.pptp, line 1: the option 'login' cannot be honoured: \
             only secrets files are asked, not the system's own accounts",
        ),
        (
            "call ../options",
            "In file /etc/ppp/options.pptp, line 1: \
             call option value may not contain .. or start with /",
        ),
    ] {
        assert_eq!(error(text), message);
    }
}

#[test]
fn on_the_command_line_an_error_names_no_file() {
    let mut options = PppdOptions::default();
    let words = ["mtu".to_owned(), "1400".to_owned(), "xyz".to_owned()];
    let error = options.read_words(Path::new(NO_DIR), &words).unwrap_err();
    assert_eq!(error.to_string(), "unrecognized option 'xyz'");
}

#[test]
fn a_password_is_never_shown() {
    let options = read(b"password mia123\nname mia").unwrap();
    assert!(
        options.dump_text().contains("password ??????\t\t# (from"),
        "{}",
        options.dump_text()
    );
    assert!(!format!("{options:?}").contains("mia123"));
    let error = error("password my secret words\n");
    assert!(
        !error.contains("secret words") && !error.contains("'secret'"),
        "{error}"
    );
    assert!(error.contains("needs quotes"), "{error}");
}

#[test]
fn names_come_from_user_name_and_host_in_this_order() {
    let name = |text: &[u8]| read(text).unwrap().our_name("host");
    assert_eq!(name(b""), "host");
    assert_eq!(name(b"domain example.org"), "host.example.org");
    assert_eq!(name(b"name mia"), "mia");
    assert_eq!(name(b"user bob name mia"), "bob");
    assert_eq!(name(b"name mia usehostname"), "host");
}

#[test]
fn a_file_that_names_itself_ends_in_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("peers")).unwrap();
    fs::write(dir.path().join("options"), "call loop\n").unwrap();
    fs::write(
        dir.path().join("peers/loop"),
        "file /etc/ppp/options\nfile /etc/ppp/options\n",
    )
    .unwrap();
    let mut options = PppdOptions::default();
    let error = options.read_system_file(dir.path()).unwrap_err();
    assert!(
        matches!(
            error,
            ConfigError::TooDeep {
                depth_max: DEPTH_MAX,
                ..
            }
        ),
        "{error}"
    );
    let problems = options.check_file(dir.path(), &dir.path().join("options"));
    assert!((2..=1_000).contains(&problems.len()), "{}", problems.len());
}

#[test]
fn check_tells_every_problem_and_every_setting() {
    let mut options = PppdOptions::default();
    let text = b"lock\nxyz\nmtu 5\nlogin\nnovj\nfile /nonexistent/x\nmru";
    let problems = options.check_text(Path::new(NO_DIR), "f", text);
    let words: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), 5, "{words:?}");
    assert!(
        words[3].contains("line 6: Can't open options file /nonexistent/x"),
        "{words:?}"
    );
    let names: Vec<_> = options
        .settings
        .iter()
        .map(|setting| setting.spec.name)
        .collect();
    assert_eq!(names, ["lock", "login", "novj"]);
}

/// pppd's own `dump` of real runs: feeding the options back in gives the same text, whatever the
/// order that they come in. Lines without an option are pppd's for a serial line it has not got.
#[test]
fn dump_prints_what_pppd_prints() {
    for log in [
        include_str!("../../../../tests/captures/chap-md5.client.log"),
        include_str!("../../../../tests/captures/deflate-vj.client.log"),
        include_str!("../../../../tests/captures/mppe-refused.client.log"),
        include_str!("../../../../tests/captures/mppe128-stateful.client.log"),
        include_str!("../../../../tests/captures/mschapv1.client.log"),
        include_str!("../../../../tests/captures/chap-md5.server.log"),
        include_str!("../../../../tests/captures/mppe128-stateless.server.log"),
    ] {
        let lines: Vec<(&str, &str)> = log
            .lines()
            .skip(1)
            .map_while(|line| line.strip_suffix(')')?.split_once("\t\t# (from "))
            .filter(|(option, _)| !option.is_empty())
            .collect();
        assert!(lines.len() > 10);
        let mut by_source: HashMap<&str, String> = HashMap::new();
        for (option, source) in lines.iter().rev() {
            let text = by_source.entry(source).or_default();
            match option.split_once(' ') {
                Some((name, value)) => text.push_str(&format!("{name} '{value}'\n")),
                None => text.push_str(&format!("{option}\n")),
            }
        }
        let mut options = PppdOptions::default();
        for (source, text) in by_source {
            options
                .read_text(Path::new(NO_DIR), source, text.as_bytes())
                .unwrap();
        }
        let mut expected = String::from("pppd options in effect:\n");
        for (option, source) in lines {
            expected.push_str(&format!("{option}\t\t# (from {source})\n"));
        }
        assert_eq!(options.dump_text(), expected);
    }
}

/// The two files of the PPTP client how-to.
#[test]
fn the_options_file_of_the_how_to_is_read() {
    let options = read(HOW_TO_OPTIONS.as_bytes()).unwrap();
    assert_eq!(options.name.as_deref(), Some("mia"));
    assert!(options.lock && options.dump && options.debug == 1);
    assert_eq!(options.log_fd, Some(2));
    assert_eq!(options.log_file, None);
    assert_eq!(options.require_methods(), AuthMethods::NONE);
    let mppe = MppeOptions {
        bits_128: true,
        ..MppeOptions::default()
    };
    assert_eq!(options.mppe, mppe);
    assert!(!options.no_ccp && !options.pfc && !options.acfc);
    assert_eq!(options.ipparam.as_deref(), Some("192.168.2.0"));
}

pub(in crate::config) const HOW_TO_PEER: &str = "\
name mia
remotename zidler
ipparam test2
file /etc/ppp/options.pptp
";

pub(in crate::config) const HOW_TO_OPTIONS: &str = "\
name mia
lock
dump
logfd 2
debug
#logfile /var/log/pptpd.log
noauth
#require-mschap-v2
require-mppe-128
#nomppe
#noccp
novj
novjccomp
nopcomp
noaccomp
nobsdcomp
nodeflate
ipparam 192.168.2.0
";

proptest! {
    #[test]
    fn any_octets_end_in_options_or_an_error(text in vec(any::<u8>(), 0..400)) {
        if let Ok(options) = read(&text) {
            let _ = options.dump_text();
        }
    }

    #[test]
    fn any_words_of_the_table_end_in_options_or_an_error(
        picks in vec((any::<prop::sample::Index>(), "[-0-9a-z:.,= ]{0,12}"), 0..40)
    ) {
        let names: Vec<_> = crate::config::option_table::rows()
            .filter(|row| !matches!(row.name, "file" | "call"))
            .map(|row| row.name)
            .collect();
        let text: String = picks
            .iter()
            .map(|(index, value)| format!("{} '{value}'\n", index.get(&names)))
            .collect();
        let mut options = PppdOptions::default();
        let _ = options.check_text(Path::new(NO_DIR), "f", text.as_bytes());
        let _ = options.dump_text();
    }
}
