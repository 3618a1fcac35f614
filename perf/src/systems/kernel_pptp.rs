//! The kernel's own PPTP at both ends, what accel-ppp and pppd's pptp plugin use. There is no
//! packaged program that brings it up here, so it is done by hand, without a control plane: see
//! `crate::kernel_pptp`. It needs a kernel with PPP.

use anyhow::{Context, Result};

use super::{Place, READY_LIMIT, System, Tunnel, set_addresses};
use crate::namespaces::{INNER_SERVER, Namespaces};
use crate::process;

const MODULES: [&str; 2] = ["pptp", "ppp_mppe"];

pub(super) struct KernelPptp;

impl System for KernelPptp {
    fn name(&self) -> &'static str {
        "kernel-pptp"
    }

    fn description(&self) -> &'static str {
        "pptp.ko with ppp_mppe, MPPE 128 stateless, static keys, no control plane"
    }

    fn version(&self, place: &Place) -> Result<String> {
        let modprobe = place.find("modprobe")?;
        for module in MODULES {
            let mut command = process::command(&modprobe);
            process::quick(command.args(["--dry-run", module]))
                .context("not a kernel with PPTP; perf/run --guest has one")?;
        }
        Ok(std::fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned())
    }

    fn start(&self, namespaces: &Namespaces, place: &Place) -> Result<Tunnel> {
        let modprobe = place.find("modprobe")?;
        process::quick(process::command(&modprobe).arg("--all").args(MODULES))?;
        let mut tunnel = Tunnel::new(INNER_SERVER);
        // While it is there, it looks at every other system's GRE as well.
        let mut unload = process::command(&modprobe);
        unload.args(["--remove", "--wait", "5000", "pptp"]);
        tunnel.afterwards(unload);
        let mut keep = process::command(std::env::current_exe()?);
        keep.arg("keep-kernel-pptp").args([
            namespaces.server.pid().to_string(),
            namespaces.client.pid().to_string(),
        ]);
        tunnel
            .start(&mut keep, &place.log("kernel-pptp"))?
            .wait_for("up", READY_LIMIT)
            .context("both ends of the kernel's PPTP")?;
        set_addresses(namespaces, "ppp0")?;
        Ok(tunnel)
    }
}
