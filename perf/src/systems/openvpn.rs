//! OpenVPN over UDP, point to point, in its TLS mode with a certificate made for the occasion.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Place, READY_LIMIT, System, Tunnel};
use crate::namespaces::{CLIENT, End, INNER_CLIENT, INNER_SERVER, Namespaces, SERVER, TUNNEL_MTU};
use crate::process;

pub(super) struct OpenVpn;

impl System for OpenVpn {
    fn name(&self) -> &'static str {
        "openvpn"
    }

    fn description(&self) -> &'static str {
        "OpenVPN in user space, UDP, its default cipher (AES-256-GCM)"
    }

    fn version(&self, place: &Place) -> Result<String> {
        place.find("openssl").context("it makes the certificates")?;
        // It says its version and ends with status 1.
        let script = "\"$0\" --version || true";
        let mut command = process::command("sh");
        let said = process::quick(command.args(["-c", script]).arg(place.find("openvpn")?))?;
        Ok(said.split(' ').take(2).collect::<Vec<_>>().join(" "))
    }

    fn start(&self, namespaces: &Namespaces, place: &Place) -> Result<Tunnel> {
        let folder = place.folder("openvpn")?;
        let server = fingerprint(&folder, "server", place)?;
        let client = fingerprint(&folder, "client", place)?;
        let ends = [
            Side {
                end: &namespaces.server,
                name: "server",
                outer: [SERVER, CLIENT],
                inner: [INNER_SERVER, INNER_CLIENT],
                peer_fingerprint: client,
            },
            Side {
                end: &namespaces.client,
                name: "client",
                outer: [CLIENT, SERVER],
                inner: [INNER_CLIENT, INNER_SERVER],
                peer_fingerprint: server,
            },
        ];
        let mut tunnel = Tunnel::new(INNER_SERVER);
        for side in &ends {
            side.start(&mut tunnel, &folder, place)?;
        }
        for process in &mut tunnel.processes {
            process.wait_for("Initialization Sequence Completed", READY_LIMIT)?;
        }
        Ok(tunnel)
    }
}

struct Side<'a> {
    end: &'a End,
    name: &'static str,
    outer: [Ipv4Addr; 2],
    inner: [Ipv4Addr; 2],
    peer_fingerprint: String,
}

impl Side<'_> {
    fn start(&self, tunnel: &mut Tunnel, folder: &Path, place: &Place) -> Result<()> {
        let mut command = self.end.command(place.find("openvpn")?);
        command
            .args([
                &format!("--tls-{}", self.name),
                "--dev",
                "tun",
                "--proto",
                "udp",
            ])
            .args(["--local", &self.outer[0].to_string()])
            .args(["--remote", &self.outer[1].to_string()])
            .args([
                "--ifconfig",
                &self.inner[0].to_string(),
                &self.inner[1].to_string(),
            ])
            .args(["--tun-mtu", &TUNNEL_MTU.to_string()])
            .arg("--cert")
            .arg(folder.join(format!("{}.crt", self.name)))
            .arg("--key")
            .arg(folder.join(format!("{}.key", self.name)))
            .args(["--peer-fingerprint", &self.peer_fingerprint]);
        if self.name == "server" {
            command.args(["--dh", "none"]);
        }
        tunnel.start(&mut command, &place.log(&format!("openvpn-{}", self.name)))?;
        Ok(())
    }
}

/// Makes a key and a certificate and returns the latter's fingerprint.
fn fingerprint(folder: &Path, name: &str, place: &Place) -> Result<String> {
    let openssl = place.find("openssl")?;
    let certificate = folder.join(format!("{name}.crt"));
    process::quick(
        process::command(&openssl)
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                "2",
                "-subj",
                &format!("/CN={name}"),
            ])
            .args([
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-keyout",
            ])
            .arg(folder.join(format!("{name}.key")))
            .arg("-out")
            .arg(&certificate),
    )?;
    let said = process::quick(
        process::command(&openssl)
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(&certificate),
    )?;
    let (_, fingerprint) = said
        .trim()
        .split_once('=')
        .context("no fingerprint from openssl")?;
    Ok(fingerprint.to_owned())
}
