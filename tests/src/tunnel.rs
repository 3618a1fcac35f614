//! The how-to's tunnel between both ends of our own: their files, and what is done with it in every
//! test.

use std::process::Output;

use crate::lab::{Lab, Running, Side, ready};

/// chap-secrets and pap-secrets of both ends.
pub const SECRETS: &str = "mia zidler mia123 *\n";
/// The server's pppd options.
pub const SERVER_OPTIONS: &str =
    "name zidler\nrequire-mschap-v2\nrequire-mppe-128\nms-dns 192.168.254.230\n";
/// The client's peers file, without its last line.
pub const HOWTO_PEER: &str = "\
# PPTP Tunnel configuration for tunnel test2
# Server IP: 10.77.0.1
name mia
remotename zidler
ipparam test2
";
/// The how-to's options.pptp.
pub const HOWTO_OPTIONS: &str = "\
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

/// Writes both ends' files: `server_options` for the server, `client_options` as options.pptp.
///
/// # Panics
/// When a step fails, with what was printed.
pub fn configure(lab: &Lab, server_options: &str, client_options: &str) -> String {
    lab.write("ppp/chap-secrets", SECRETS);
    lab.write("ppp/pap-secrets", SECRETS);
    let options = lab.write("ppp/options.pptp", client_options);
    lab.write(
        "ppp/peers/test2",
        &format!("{HOWTO_PEER}file {}\n", options.display()),
    );
    let server = lab.write("pptpd-options", server_options);
    let conf = format!(
        "option {}\nlocalip 192.168.254.230\nremoteip 192.168.254.231\ndebug\n",
        server.display()
    );
    lab.write("pptpd.conf", &conf).display().to_string()
}

/// A server that listens.
///
/// # Panics
/// When a step fails, with what was printed.
#[must_use]
pub fn serve(lab: &Lab, conf: &str) -> Running {
    let mut server = lab.start(Side::Server, &["serve", "--config", conf]);
    server.wait_for("Listening for PPTP", 10);
    server
}

/// A lab with a server that listens, or `None` where there can be none.
///
/// # Panics
/// When a step fails, with what was printed.
#[must_use]
pub fn started(server_options: &str, client_options: &str) -> Option<(Lab, Running)> {
    let lab = ready().then(Lab::new)?;
    let conf = configure(&lab, server_options, client_options);
    let server = serve(&lab, &conf);
    Some((lab, server))
}

/// Ends the how-to's tunnel in order.
///
/// # Panics
/// When a step fails, with what was printed.
pub fn take_down(lab: &Lab) {
    let down = lab.run(Side::Client, &["down", "test2"]);
    assert_eq!(down.status.code(), Some(0), "{}", text(&down));
}

/// The first ping from one side crosses the tunnel and comes back.
///
/// # Panics
/// When a step fails, with what was printed.
pub fn assert_pings(lab: &Lab, side: Side, peer: &str) {
    if let Err(printed) = pings(lab, side, peer) {
        panic!("{peer}: {printed}");
    }
}

/// Sends one ping from one side through the tunnel.
///
/// # Errors
/// What ping said, when it did not come back.
///
/// # Panics
/// When there is no ping.
pub fn pings(lab: &Lab, side: Side, peer: &str) -> Result<(), String> {
    let mut ping = lab.command(side, "ping");
    let ping = ping
        .args(["-c1", "-W2", peer])
        .output()
        .expect("ping starts");
    if ping.status.success() {
        Ok(())
    } else {
        Err(text(&ping))
    }
}

/// Everything that a program printed.
#[must_use]
pub fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Nothing of a tunnel remains on one side: interface, run file, route.
///
/// # Panics
/// When a step fails, with what was printed.
pub fn assert_bare(lab: &Lab, side: Side) {
    assert_eq!(
        lab.interfaces(side).len(),
        2,
        "only lo and outer remain on {side:?}"
    );
    let run = lab.dir.path().join(format!("run-{side:?}"));
    let left: Vec<_> = std::fs::read_dir(run)
        .map(|dir| dir.flatten().collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "run files remain: {left:?}");
    assert_eq!(
        lab.routes(side).lines().count(),
        1,
        "routes remain: {}",
        lab.routes(side)
    );
}
