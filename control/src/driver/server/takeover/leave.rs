//! The end of the old process: another one goes on with devices, routes, run files and sessions, and
//! nothing of that is torn down.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::channel::Channel;
use crate::driver::server::Server;
use crate::proto::endpoint::EndpointSnapshot;

/// For the last words to clients that were still negotiating.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

impl Server {
    /// Ends what the new process has not taken.
    pub(in crate::driver::server) async fn leave(
        &mut self,
        taken: &EndpointSnapshot,
        channel: Channel,
    ) {
        self.engine.let_go(taken);
        self.tuns.clear();
        self.engine.stop(FAREWELL_LIMIT).await;
        // The AF_XDP sockets are closed.
        drop(channel);
        // They are this process's children; who waits for a turn has it here.
        let sessions = std::mem::take(&mut self.sessions);
        for session in sessions.into_values() {
            self.remember_scripts(session.turn);
        }
        let limit = Duration::from_millis(self.config.timeouts.shutdown_ms);
        self.wait_for_scripts(limit).await;
    }
}

/// Tells systemd that the service has another main process (`sd_notify(3)`, MAINPID): it believes
/// that of the main process alone, which this one still is.
pub(super) fn tell_supervisor(pid: i32) {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let octets = name.as_encoded_bytes();
    let address = match octets.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    if let (Ok(address), Ok(socket)) = (address, UnixDatagram::unbound()) {
        let text = format!("MAINPID={pid}\n");
        let _ = socket.send_to_addr(text.as_bytes(), &address);
    }
}
