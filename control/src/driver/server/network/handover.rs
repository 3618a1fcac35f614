//! Ways of sessions on their way to another process: TUN devices and what is known of them.
//! Devices, addresses and routes themselves stay as they are, for a device lives as long as one
//! process has it open.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use dataplane::offload::TunFeatures;
use dataplane::program::{CallId, TunId};
use serde::{Deserialize, Serialize};

use super::{Server, SharedTun, Way, session_tun};
use crate::driver::kernel_writer::{Device, RouteVia};
use crate::driver::workers::tun_queue;
use crate::proto::link::Network;

/// A TUN device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::driver::server) struct DeviceState {
    index: u32,
    name: String,
    features: TunFeatures,
}

/// The device that the sessions of a worker share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::driver::server) struct TunState {
    /// The worker.
    pub(in crate::driver::server) worker: u16,
    device: DeviceState,
    /// Our addresses on it.
    #[serde(default)]
    locals: Vec<Ipv4Addr>,
    /// Packets that may wait in it.
    #[serde(default)]
    queue: u32,
}

/// What one session's packets take.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::driver::server) struct WayState {
    /// Its own; its descriptor comes beside.
    pub(in crate::driver::server) device: Option<DeviceState>,
    #[serde(default)]
    networks: Vec<RouteVia>,
}

impl DeviceState {
    fn of(device: &Device) -> Self {
        Self {
            index: device.index,
            name: device.name.clone(),
            features: device.features,
        }
    }

    fn with(self, fd: OwnedFd) -> Device {
        Device {
            index: self.index,
            name: self.name,
            features: self.features,
            fd: Arc::new(fd),
        }
    }
}

impl Way {
    /// What another process needs of it, and the descriptor of its own device.
    pub(in crate::driver::server) fn told(&self) -> (WayState, Option<RawFd>) {
        let state = WayState {
            device: self.device.as_ref().map(DeviceState::of),
            networks: self.networks.clone(),
        };
        let fd = self.device.as_ref().map(|device| device.fd.as_raw_fd());
        (state, fd)
    }
}

impl SharedTun {
    /// What another process needs of it, and its descriptor.
    pub(in crate::driver::server) fn told(&self, worker: u16) -> (TunState, RawFd) {
        let state = TunState {
            worker,
            device: DeviceState::of(&self.device),
            locals: self.locals.iter().copied().collect(),
            queue: self.queue,
        };
        (state, self.device.fd.as_raw_fd())
    }
}

impl Server {
    /// Goes on with the device that the sessions of a worker share.
    pub(in crate::driver::server) fn assume_tun(&mut self, state: TunState, fd: OwnedFd) {
        let device = state.device.with(fd);
        let worker = state.worker;
        self.attach(CallId(worker), TunId(u32::from(worker)), &device, None);
        self.tuns.push(SharedTun {
            device,
            locals: state.locals.into_iter().collect(),
            queue: state.queue.max(tun_queue(0)),
        });
    }

    /// Goes on with the way of a session, which is open then.
    pub(in crate::driver::server) fn assume_way(
        &mut self,
        call_id: CallId,
        state: WayState,
        fd: Option<OwnedFd>,
        network: &Network,
    ) {
        let device = state.device.zip(fd).map(|(device, fd)| device.with(fd));
        if let Some(device) = &device {
            self.attach(call_id, session_tun(call_id), device, Some(call_id));
        }
        if let Some(session) = self.sessions.get_mut(&call_id) {
            session.way = Way {
                device,
                prepared: Some(network.clone()),
                networks: state.networks,
            };
        }
        self.let_through(call_id, network);
    }
}
