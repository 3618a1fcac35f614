//! What this kernel offers of io_uring, and what to do about what it lacks (Linux
//! `io_uring_setup(2)`, `io_uring_enter(2)`).

use std::io;

use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use nix::errno::Errno;

/// Why there is no ring. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The kernel has no io_uring, or a sandbox pretends so.
    #[error(
        "this kernel has no io_uring; Linux {KERNEL_MIN} or newer with CONFIG_IO_URING=y is \
         needed. If `uname -r` says that it is new enough, a seccomp profile hides it: in Docker \
         use `--security-opt seccomp=unconfined` or a profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register"
    )]
    Missing,
    /// The administrator has switched it off.
    #[error(
        "io_uring is disabled on this machine (kernel.io_uring_disabled is {value}); enable it \
         with `sysctl kernel.io_uring_disabled=0`"
    )]
    Disabled {
        /// 1: for the unprivileged; 2: for all.
        value: u8,
    },
    /// A sandbox forbids it.
    #[error(
        "not permitted to use io_uring; a seccomp profile or security module forbids it: in \
         Docker use `--security-opt seccomp=unconfined` or a profile that allows io_uring_setup, \
         io_uring_enter and io_uring_register"
    )]
    Forbidden,
    /// There is io_uring, and it is too old.
    #[error(
        "this kernel's io_uring has no {what} (it came with Linux {since}); Linux {KERNEL_MIN} or \
         newer is needed"
    )]
    TooOld {
        /// What is missing.
        what: &'static str,
        /// The first version of Linux that has it.
        since: &'static str,
    },
    /// Memory that may be locked is used up.
    #[error(
        "no memory for the io_uring queues; raise the limit of locked memory (`ulimit -l`, \
         `LimitMEMLOCK=` of systemd), or use fewer workers"
    )]
    NoMemory,
    /// File descriptors are used up.
    #[error("no file descriptor left for io_uring; raise the limit (`ulimit -n`, `LimitNOFILE=`)")]
    NoDescriptor,
    /// Anything else.
    #[error("cannot {action}: {source}")]
    Other {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Oldest Linux on which the data plane runs: the first with multishot receive.
pub const KERNEL_MIN: &str = "6.0";

/// What may be there or not; the data plane runs either way, slower without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// Task work runs only when the worker waits (Linux 6.1).
    pub defer_taskrun: bool,
    /// One request reads many packets of a TUN device (Linux 6.7).
    pub read_multishot: bool,
}

/// Looks at what this kernel offers, with a small ring that is closed again.
///
/// # Errors
/// The data plane cannot run here: see [`RingError`].
pub fn probe() -> Result<RingFeatures, RingError> {
    let ring = IoUring::new(2).map_err(|source| classify_setup(source, read_disabled_sysctl()))?;
    if !ring.params().is_feature_ext_arg() {
        return Err(too_old("waiting with a time-out", "5.11"));
    }
    let mut known = Probe::new();
    ring.submitter()
        .register_probe(&mut known)
        .map_err(|_| too_old("probing of operations", "5.6"))?;
    required_operations(|code| known.is_supported(code))?;
    // Multishot receive has no number of its own; SEND_ZC came with it in 6.0.
    if !known.is_supported(opcode::SendZc::CODE) {
        return Err(too_old("multishot receive", "6.0"));
    }
    let mut deferred = IoUring::<squeue::Entry, cqueue::Entry>::builder();
    deferred.setup_single_issuer().setup_defer_taskrun();
    Ok(RingFeatures {
        defer_taskrun: deferred.build(2).is_ok(),
        read_multishot: known.is_supported(opcode::ReadMulti::CODE),
    })
}

/// Checks the operations without which the data plane cannot run.
fn required_operations(is_supported: impl Fn(u8) -> bool) -> Result<(), RingError> {
    const REQUIRED: [(u8, &str, &str); 6] = [
        (opcode::Read::CODE, "read", "5.6"),
        (opcode::Write::CODE, "write", "5.6"),
        (opcode::RecvMulti::CODE, "receive", "5.6"),
        (opcode::SendMsg::CODE, "sendmsg", "5.3"),
        (opcode::PollAdd::CODE, "poll", "5.1"),
        (opcode::AsyncCancel::CODE, "cancel", "5.5"),
    ];
    for (code, what, since) in REQUIRED {
        if !is_supported(code) {
            return Err(too_old(what, since));
        }
    }
    Ok(())
}

fn too_old(what: &'static str, since: &'static str) -> RingError {
    RingError::TooOld { what, since }
}

/// What the failure of `io_uring_setup` means. `disabled` is `kernel.io_uring_disabled`, where it
/// exists (Linux 6.6) and can be read.
pub(crate) fn classify_setup(source: io::Error, disabled: Option<u8>) -> RingError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSYS) => RingError::Missing,
        Some(Errno::EPERM | Errno::EACCES) => match disabled {
            Some(value @ 1..) => RingError::Disabled { value },
            _ => RingError::Forbidden,
        },
        Some(Errno::ENOMEM) => RingError::NoMemory,
        Some(Errno::EMFILE | Errno::ENFILE) => RingError::NoDescriptor,
        _ => RingError::Other {
            action: "set up io_uring",
            source,
        },
    }
}

/// What the failure to register a ring of provided buffers means.
pub(crate) fn classify_buffer_ring(source: io::Error) -> RingError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL) => too_old("rings of provided buffers", "5.19"),
        Some(Errno::ENOMEM) => RingError::NoMemory,
        _ => RingError::Other {
            action: "register the receive buffers",
            source,
        },
    }
}

pub(crate) fn read_disabled_sysctl() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(errno: Errno, disabled: Option<u8>) -> RingError {
        classify_setup(io::Error::from(errno), disabled)
    }

    #[test]
    fn each_obstacle_is_told_from_the_others_and_names_its_remedy() {
        let missing = setup(Errno::ENOSYS, None);
        assert!(matches!(missing, RingError::Missing));
        assert!(missing.to_string().contains("CONFIG_IO_URING"));
        let disabled = setup(Errno::EPERM, Some(2));
        assert!(matches!(disabled, RingError::Disabled { value: 2 }));
        assert!(
            disabled
                .to_string()
                .contains("sysctl kernel.io_uring_disabled=0")
        );
        for sysctl in [None, Some(0)] {
            let forbidden = setup(Errno::EPERM, sysctl);
            assert!(matches!(forbidden, RingError::Forbidden));
            assert!(forbidden.to_string().contains("seccomp"));
        }
        assert!(setup(Errno::ENOMEM, None).to_string().contains("ulimit -l"));
        assert!(setup(Errno::EMFILE, None).to_string().contains("ulimit -n"));
        assert!(matches!(
            setup(Errno::EINVAL, None),
            RingError::Other { .. }
        ));
    }

    #[test]
    fn a_kernel_without_buffer_rings_or_an_operation_is_too_old() {
        let error = classify_buffer_ring(io::Error::from(Errno::EINVAL));
        assert!(error.to_string().contains("Linux 5.19"));
        assert!(required_operations(|_| true).is_ok());
        let error = required_operations(|code| code != opcode::SendMsg::CODE);
        let error = error.expect_err("sendmsg is required").to_string();
        assert!(
            error.contains("sendmsg") && error.contains("6.0"),
            "{error}"
        );
    }
}
