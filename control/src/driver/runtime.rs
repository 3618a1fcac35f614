//! The control thread's runtime, started only when the kernel can carry it.

use std::future::Future;

use dataplane::sys::probe;
use thiserror::Error;

/// The runtime cannot start.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The kernel has no io_uring, or forbids it.
    #[error(transparent)]
    Kernel(#[from] probe::RingError),
    /// The operating system refused something else.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs `future` to its end on this thread.
///
/// # Errors
/// When the kernel has no io_uring or forbids it: the message says what to do.
pub fn block_on<F: Future>(future: F) -> Result<F::Output, RuntimeError> {
    probe::probe()?;
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())?;
    Ok(runtime.block_on(future))
}
