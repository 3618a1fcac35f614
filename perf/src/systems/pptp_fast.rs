//! pptp-fast at both ends: a server that reads PoPToP's files, a client described by flags.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Place, READY_LIMIT, System, Tunnel};
use crate::namespaces::{INNER_CLIENT, INNER_SERVER, Namespaces, SERVER, TUNNEL_MTU};
use crate::process;

/// One way to run it: a row of the comparison.
pub(super) struct PptpFast {
    name: &'static str,
    description: &'static str,
    /// For `serve` and `up` alike. A word that their help does not know leaves the variant out.
    options: &'static [&'static str],
}

/// To add a variant, add it here.
pub(super) const VARIANTS: [PptpFast; 4] = [
    PptpFast {
        name: "pptp-fast",
        description: "ours, MPPE 128 stateless, default settings",
        options: &[],
    },
    PptpFast {
        name: "pptp-fast-fast-path",
        description: "ours with --fast-path auto at both ends",
        options: &["--fast-path", "auto"],
    },
    PptpFast {
        name: "pptp-fast-look-ahead",
        description: "ours with --look-ahead at both ends",
        options: &["--look-ahead"],
    },
    PptpFast {
        name: "pptp-fast-workers-2",
        description: "ours with --workers 2 at both ends",
        options: &["--workers", "2"],
    },
];

impl System for &PptpFast {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn version(&self, place: &Place) -> Result<String> {
        let version = process::quick(process::command(&place.pptp_fast).arg("--version"))
            .context("cannot run pptp-fast; build it with: cargo build --release")?;
        for command in ["up", "serve"] {
            let mut help = process::command(&place.pptp_fast);
            let help = process::quick(help.args([command, "--help"]))?;
            let unknown = self.options.iter().find(|word| !help.contains(**word));
            if let Some(unknown) = unknown {
                bail!("this pptp-fast knows no {unknown} for {command}");
            }
        }
        Ok(version.trim().to_owned())
    }

    fn start(&self, namespaces: &Namespaces, place: &Place) -> Result<Tunnel> {
        let folder = place.folder(self.name())?;
        write_files(&folder)?;
        let mut tunnel = Tunnel::new(INNER_SERVER);
        let name = self.name();

        let mut serve = namespaces.server.command(&place.pptp_fast);
        serve
            .args(["serve", "--config"])
            .arg(folder.join("pptpd.conf"));
        self.finish(&mut serve, &folder);
        tunnel
            .start(&mut serve, &place.log(&format!("{name}-server")))?
            .wait_for("Listening for PPTP on", READY_LIMIT)
            .context("pptp-fast serve")?;

        let mut up = namespaces.client.command(&place.pptp_fast);
        up.args(["up", "--server", &SERVER.to_string(), "--user", "mia"])
            .arg("--password-file")
            .arg(folder.join("password"))
            .args(["--mtu", &TUNNEL_MTU.to_string(), "--foreground"]);
        self.finish(&mut up, &folder);
        tunnel
            .start(&mut up, &place.log(&format!("{name}-client")))?
            .wait_for(" is active on ", READY_LIMIT)
            .context("pptp-fast up")?;
        Ok(tunnel)
    }
}

impl PptpFast {
    fn finish(&self, command: &mut Command, folder: &Path) {
        command
            .args(self.options)
            .env("PPPDIR", folder)
            .env_remove("PPTP_FAST_RUN_DIR");
    }
}

fn write_files(folder: &Path) -> Result<()> {
    let options = folder.join("options");
    std::fs::write(
        folder.join("pptpd.conf"),
        format!(
            "option {}\nlocalip {INNER_SERVER}\nremoteip {INNER_CLIENT}\n",
            options.display()
        ),
    )?;
    std::fs::write(
        options,
        format!("name zidler\nrequire-mschap-v2\nrequire-mppe-128\nmtu {TUNNEL_MTU}\n"),
    )?;
    super::write_secret(&folder.join("chap-secrets"), "mia zidler mia123 *\n")?;
    super::write_secret(&folder.join("password"), "mia123\n")?;
    Ok(())
}
