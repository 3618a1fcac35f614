//! Memory that is there before the first packet: pages that exist from the start and are not
//! swapped out (Linux `mlock(2)`). A page that a packet is the first to touch is found and cleared
//! while it waits; on a virtual machine, whose host does the same once more, that takes
//! milliseconds.

use std::ptr::NonNull;

/// No page is smaller.
const PAGE_BYTES: usize = 4096;

/// Has the kernel provide all pages of `len` octets at `begin` now, and keep them where a process
/// may ask for that.
///
/// # Safety
/// The memory is the caller's alone, zeroed, and has not been used.
pub(crate) unsafe fn keep(begin: NonNull<u8>, len: usize) {
    // SAFETY: the range is allocated, as the caller says; locking pages changes nothing in them.
    let result = unsafe { libc::mlock(begin.as_ptr().cast(), len) };
    if result != 0 {
        // Not permitted (RLIMIT_MEMLOCK): they are provided at least.
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { touch(begin, len) };
    }
}

/// # Safety
/// As for `keep`.
unsafe fn touch(begin: NonNull<u8>, len: usize) {
    for offset in (0..len).step_by(PAGE_BYTES) {
        // SAFETY: the offset is within the `len` octets of the caller's memory.
        let octet = unsafe { begin.add(offset) };
        // SAFETY: the octet is the caller's and zero already; volatile, so that it is written.
        unsafe { octet.write_volatile(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 1024;

    /// Fresh pages, which nobody has touched.
    struct Mapping(NonNull<u8>);

    impl Mapping {
        const LEN: usize = PAGES * PAGE_BYTES;

        fn new() -> Self {
            let (access, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            // SAFETY: a new mapping, wherever the kernel likes, touches nothing that exists.
            let begin =
                unsafe { libc::mmap(std::ptr::null_mut(), Self::LEN, access, flags, -1, 0) };
            assert_ne!(begin, libc::MAP_FAILED);
            Self(NonNull::new(begin.cast()).unwrap())
        }

        /// Linux `mincore(2)`.
        fn pages_in_memory(&self) -> usize {
            let mut pages = vec![0u8; PAGES];
            // SAFETY: the range is mapped, and there is an octet for each of its pages.
            let result =
                unsafe { libc::mincore(self.0.as_ptr().cast(), Self::LEN, pages.as_mut_ptr()) };
            assert_eq!(result, 0);
            pages.iter().filter(|page| **page & 1 == 1).count()
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: `new` mapped exactly this, and nothing uses it any more.
            unsafe { libc::munmap(self.0.as_ptr().cast(), Self::LEN) };
        }
    }

    #[test]
    fn every_page_is_there_before_it_is_used() {
        let ways: [unsafe fn(NonNull<u8>, usize); 2] = [keep, touch];
        for provide in ways {
            let mapping = Mapping::new();
            assert_eq!(mapping.pages_in_memory(), 0);
            // SAFETY: the mapping is new, so it is zeroed and unused.
            unsafe { provide(mapping.0, Mapping::LEN) };
            assert_eq!(mapping.pages_in_memory(), PAGES);
        }
    }
}
