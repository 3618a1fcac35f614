//! No tunnel: what the cable between the two ends carries.

use anyhow::Result;

use super::{Place, System, Tunnel};
use crate::namespaces::{Namespaces, SERVER};

pub(super) struct Bare;

impl System for Bare {
    fn name(&self) -> &'static str {
        "no-tunnel"
    }

    fn description(&self) -> &'static str {
        "the virtual cable itself, MTU 1500, with the kernel's segmentation offload"
    }

    fn version(&self, _: &Place) -> Result<String> {
        Ok("veth".to_owned())
    }

    fn start(&self, _: &Namespaces, _: &Place) -> Result<Tunnel> {
        Ok(Tunnel::new(SERVER))
    }
}
