//! WireGuard in user space: three programs that are started and configured alike.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Place, READY_LIMIT, System, Tunnel, set_addresses, write_secret};
use crate::namespaces::{CLIENT, End, INNER_CLIENT, INNER_SERVER, Namespaces, SERVER};
use crate::process;

const PORT: u16 = 51820;
const INTERFACE: &str = "wg0";

pub(super) struct WireGuard {
    name: &'static str,
    description: &'static str,
    /// A name, or a path from the folder of the programs that `perf/run` installs.
    program: &'static str,
    arguments: &'static [&'static str],
}

pub(super) const GOTATUN: WireGuard = WireGuard {
    name: "gotatun",
    description: "Mullvad's WireGuard in Rust, default settings",
    program: "gotatun",
    arguments: &["--foreground", "--disable-drop-privileges", INTERFACE],
};

/// The version that older comparisons name, kept to tell its speed from the machine's.
pub(super) const GOTATUN_0_8_1: WireGuard = WireGuard {
    name: "gotatun-0.8.1",
    description: "the same as it was in version 0.8.1",
    program: "../gotatun-0.8.1/bin/gotatun",
    arguments: GOTATUN.arguments,
};

pub(super) const BORINGTUN: WireGuard = WireGuard {
    name: "boringtun",
    description: "Cloudflare's WireGuard in Rust, default settings",
    program: "boringtun-cli",
    arguments: &["--foreground", "--disable-drop-privileges", INTERFACE],
};

pub(super) const WIREGUARD_GO: WireGuard = WireGuard {
    name: "wireguard-go",
    description: "WireGuard in Go, the distribution's version, default settings",
    program: "wireguard-go",
    arguments: &["--foreground", INTERFACE],
};

impl System for WireGuard {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn version(&self, place: &Place) -> Result<String> {
        place
            .find("wg")
            .context("wireguard-tools is not installed")?;
        let program = place.find(self.program)?;
        let said = process::quick(process::command(program).arg("--version"))?;
        Ok(said.lines().next().unwrap_or_default().trim().to_owned())
    }

    fn start(&self, namespaces: &Namespaces, place: &Place) -> Result<Tunnel> {
        let folder = place.folder("wireguard")?;
        let server = KeyPair::new(&folder.join("server.key"), place)?;
        let client = KeyPair::new(&folder.join("client.key"), place)?;
        let mut tunnel = Tunnel::new(INNER_SERVER);

        self.start_end(&mut tunnel, &namespaces.server, place, "server")?;
        set(
            &namespaces.server,
            place,
            &format!(
                "listen-port {PORT} private-key {} peer {} allowed-ips {INNER_CLIENT}/32 \
             endpoint {CLIENT}:{PORT}",
                server.private.display(),
                client.public,
            ),
        )?;
        self.start_end(&mut tunnel, &namespaces.client, place, "client")?;
        set(
            &namespaces.client,
            place,
            &format!(
                "listen-port {PORT} private-key {} peer {} allowed-ips {INNER_SERVER}/32 \
             endpoint {SERVER}:{PORT}",
                client.private.display(),
                server.public,
            ),
        )?;

        set_addresses(namespaces, INTERFACE)?;
        Ok(tunnel)
    }
}

impl WireGuard {
    fn start_end(&self, tunnel: &mut Tunnel, end: &End, place: &Place, name: &str) -> Result<()> {
        let mut command = end.command(place.find(self.program)?);
        command.args(self.arguments);
        let socket = format!("/run/wireguard/{INTERFACE}.sock");
        tunnel
            .start(&mut command, &place.log(&format!("{}-{name}", self.name)))?
            .wait_until(READY_LIMIT, "its socket", |_| {
                process::quick(end.command("test").args(["-S", &socket])).is_ok()
            })
            .with_context(|| format!("{} at the {name}", self.name))
    }
}

fn set(end: &End, place: &Place, words: &str) -> Result<()> {
    let mut command = end.command(place.find("wg")?);
    command
        .args(["set", INTERFACE])
        .args(words.split_whitespace());
    process::quick(&mut command)?;
    Ok(())
}

struct KeyPair {
    private: PathBuf,
    public: String,
}

impl KeyPair {
    fn new(file: &Path, place: &Place) -> Result<Self> {
        let wg = place.find("wg")?;
        write_secret(file, &process::quick(process::command(&wg).arg("genkey"))?)?;
        let derive = "exec \"$0\" pubkey <\"$1\"";
        let public = process::quick(
            process::command("sh")
                .args(["-c", derive])
                .arg(wg)
                .arg(file),
        )?;
        Ok(Self {
            private: file.to_owned(),
            public: public.trim().to_owned(),
        })
    }
}
