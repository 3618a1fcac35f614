//! A tunnel of the kernel's own PPTP, without the control plane that would negotiate it: `pptp.ko`
//! for GRE, `ppp_generic` for PPP, `ppp_mppe` with keys that were agreed on beforehand. Both ends
//! are set up by one process, which then keeps them.

mod sys;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use crate::namespaces::{CLIENT, SERVER};

/// The CCP option of MPPE with 128-bit stateless keys (RFC 3078 2.1), and a session key.
const MPPE_OPTION: [u8; 6] = [18, 6, 0x01, 0, 0, 0x40];
const KEY: [u8; 16] = *b"0123456789abcdef";
/// A Configure-Ack of it behind its protocol number (RFC 1962 3). `ppp_generic` looks for this
/// packet: it is when a compressor starts, at the sender and at the receiver.
const CONFIGURE_ACK: [u8; 12] = [0x80, 0xFD, 2, 1, 0, 10, 18, 6, 0x01, 0, 0, 0x40];
const ACK_LIMIT_MS: u16 = 5000;

/// Call IDs and addresses of the two ends.
const SERVER_END: (u16, Ipv4Addr) = (1, SERVER);
const CLIENT_END: (u16, Ipv4Addr) = (2, CLIENT);

/// One end of the tunnel. It is gone when this is dropped.
struct End {
    _call: OwnedFd,
    _channel: File,
    unit: File,
}

/// Makes `ppp0` in the network namespaces of two processes and keeps it until it is killed.
pub(crate) fn keep(server: u32, client: u32) -> Result<()> {
    let server = End::new(server, SERVER_END, CLIENT_END).context("the server's end")?;
    let client = End::new(client, CLIENT_END, SERVER_END).context("the client's end")?;
    server.acknowledge_to(&client)?;
    client.acknowledge_to(&server)?;
    for end in [&server, &client] {
        sys::set_flags(&end.unit, sys::SC_CCP_OPEN | sys::SC_CCP_UP)?;
    }
    println!("up");
    loop {
        std::thread::park();
    }
}

impl End {
    fn new(process: u32, ours: (u16, Ipv4Addr), theirs: (u16, Ipv4Addr)) -> Result<Self> {
        let namespace = File::open(format!("/proc/{process}/ns/net"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        let call = sys::call(ours, theirs).context("pptp.ko takes no call")?;
        let channel = open_ppp()?;
        sys::attach_channel(&channel, sys::channel_of(&call)?)?;
        let unit = open_ppp()?;
        let number = sys::new_unit(&unit)?;
        if number != 0 {
            bail!("the namespace has PPP interfaces already");
        }
        sys::connect(&channel, number)?;
        let option = [&MPPE_OPTION[..], &KEY].concat();
        for is_transmit in [false, true] {
            sys::set_compressor(&unit, &option, is_transmit).context("ppp_mppe")?;
        }
        sys::set_flags(&unit, sys::SC_CCP_OPEN)?;
        Ok(Self {
            _call: call,
            _channel: channel,
            unit,
        })
    }

    /// From now on this end encrypts, and the other decrypts.
    fn acknowledge_to(&self, other: &Self) -> Result<()> {
        (&self.unit).write_all(&CONFIGURE_ACK)?;
        let mut ready = [PollFd::new(other.unit.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(ACK_LIMIT_MS))? == 0 {
            bail!("the Configure-Ack does not arrive");
        }
        let mut frame = [0; 64];
        let len = (&other.unit).read(&mut frame)?;
        if frame[..len] != CONFIGURE_ACK {
            bail!(
                "another frame than the Configure-Ack: {:02x?}",
                &frame[..len]
            );
        }
        Ok(())
    }
}

fn open_ppp() -> Result<File> {
    let path = Path::new("/dev/ppp");
    let mut options = File::options();
    let opened = options.read(true).write(true).open(path);
    opened.with_context(|| format!("cannot open {}", path.display()))
}
