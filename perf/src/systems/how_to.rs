//! The stack that the classic how-to sets up: pptp-linux and pppd at the client, pptpd and pppd
//! at the server, MPPE in the kernel. It needs a kernel with PPP and writes to /etc, so it is
//! measured in the emulated guest only (`perf/run --guest`).

use std::fs;

use anyhow::{Context, Result, bail};

use super::{Place, READY_LIMIT, System, Tunnel};
use crate::namespaces::{End, INNER_CLIENT, INNER_SERVER, Namespaces, SERVER, TUNNEL_MTU};
use crate::process;

pub(super) struct HowTo;

impl System for HowTo {
    fn name(&self) -> &'static str {
        "pppd-pptpd"
    }

    fn description(&self) -> &'static str {
        "pptp-linux with pppd to pptpd with pppd, MPPE 128 stateless in the kernel"
    }

    fn version(&self, place: &Place) -> Result<String> {
        if std::env::var_os("PPTP_FAST_IN_GUEST").is_none() {
            bail!("measured in the emulated guest only: perf/run --guest");
        }
        place.find("pptpd")?;
        place.find("pptp")?;
        place.find("nft")?;
        // pppd's version goes to standard error.
        let mut command = process::command("sh");
        let said = process::quick(
            command
                .args(["-c", "\"$0\" --version 2>&1"])
                .arg(place.find("pppd")?),
        )?;
        Ok(said.trim().to_owned())
    }

    fn start(&self, namespaces: &Namespaces, place: &Place) -> Result<Tunnel> {
        let conf = write_files(place)?;
        shield(&namespaces.server, place)?;
        shield(&namespaces.client, place)?;
        let mut tunnel = Tunnel::new(INNER_SERVER);

        let mut server = namespaces.server.command(place.find("pptpd")?);
        server.args(["--fg", "--conf", &conf, "--pidfile", "/run/pptpd.pid"]);
        let end = &namespaces.server;
        tunnel
            .start(&mut server, &place.log("pppd-pptpd-server"))?
            .wait_until(READY_LIMIT, "the listening socket", |_| {
                process::quick(end.command("ss").arg("-tln"))
                    .is_ok_and(|sockets| sockets.contains(":1723"))
            })
            .context("pptpd")?;

        let mut client = namespaces.client.command(place.find("pppd")?);
        client
            .args(["pty", &format!("pptp {SERVER} --nolaunchpppd")])
            .args(
                "name mia remotename zidler nodetach noauth logfd 2 lock \
             require-mppe-128 nobsdcomp nodeflate novj noipdefault"
                    .split_whitespace(),
            );
        client.args([
            "mtu",
            &TUNNEL_MTU.to_string(),
            "mru",
            &TUNNEL_MTU.to_string(),
        ]);
        tunnel
            .start(&mut client, &place.log("pppd-pptpd-client"))?
            .wait_for("remote IP address", READY_LIMIT * 3)
            .context("pppd")?;
        Ok(tunnel)
    }
}

/// Writes the files of both ends, whose /etc is one: the secrets are the same.
fn write_files(place: &Place) -> Result<String> {
    let folder = place.folder("pppd-pptpd")?;
    fs::create_dir_all("/etc/ppp")?;
    super::write_secret("/etc/ppp/chap-secrets".as_ref(), "mia zidler mia123 *\n")?;
    fs::write("/etc/ppp/options", "")?;
    let options = folder.join("options");
    fs::write(
        &options,
        format!(
            "name zidler\nlock\nrequire-mschap-v2\nrefuse-pap\nrefuse-chap\nrefuse-mschap\n\
             require-mppe-128\nnobsdcomp\nnodeflate\nnovj\nmtu {TUNNEL_MTU}\nmru {TUNNEL_MTU}\n\
             logfile {}\n",
            place.log("pppd-pptpd-server-pppd").display()
        ),
    )?;
    let conf = folder.join("pptpd.conf");
    fs::write(
        &conf,
        format!(
            "option {}\nlocalip {INNER_SERVER}\nremoteip {INNER_CLIENT}\n",
            options.display()
        ),
    )?;
    Ok(conf.display().to_string())
}

/// Linux answers an overflow of a raw GRE socket with ICMP protocol-unreachable, and at this
/// error both pptp-linux and pptpd hang up, so an end keeps these messages to itself.
fn shield(end: &End, place: &Place) -> Result<()> {
    let rules = "add table inet shield; flush table inet shield; \
        add chain inet shield out { type filter hook output priority 0; }; \
        add rule inet shield out icmp type destination-unreachable \
        icmp code prot-unreachable drop";
    process::quick(end.command(place.find("nft")?).arg(rules))?;
    Ok(())
}
