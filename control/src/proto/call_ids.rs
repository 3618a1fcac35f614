//! Allocation of Call IDs (RFC 2637 3.2.2).
//!
//! The RFC wants a Call ID unique between two peers; ours are unique among all calls, because they
//! alone name a session in the data plane. They are random, so that a stranger off the path cannot
//! guess the key of a tunnel, and spread evenly over the workers: Call ID mod workers is the
//! worker. 0 is valid on the wire and never chosen, since some peers take it for "none".
//!
//! A freed Call ID rests before it is chosen again: packets, and notices of the worker, that
//! belong to the call before must not reach the next one.

use std::collections::VecDeque;

use dataplane::program::CallId;
use rand::RngExt;
use rand_chacha::ChaCha12Rng;

use super::Time;

/// How long a freed Call ID rests, unless there is no other left: longer than a packet lives on
/// its way and a notice in its queue.
const REST_MS: u64 = 60_000;

/// Resting Call IDs are chosen again, oldest first, when more than this many are taken or rest, so
/// that a random draw nearly always finds a free one.
const TAKEN_MAX: usize = 49_152;

/// Random draws before the free Call IDs are searched one by one. With three of four
/// taken, one allocation in 10,000 has to search.
const DRAWS_MAX: u32 = 32;

/// Which Call IDs are taken.
#[derive(Debug)]
pub(super) struct CallIds {
    /// Whether taken or resting, by Call ID.
    taken: Box<[bool]>,
    taken_count: usize,
    resting: VecDeque<(Time, CallId)>,
    /// Taken and resting Call IDs of each worker.
    loads: Vec<u32>,
}

impl CallIds {
    /// All free. `worker_count` 0 counts as 1.
    pub(super) fn new(worker_count: u16) -> Self {
        Self {
            taken: vec![false; 1 << 16].into_boxed_slice(),
            taken_count: 0,
            resting: VecDeque::new(),
            loads: vec![0; usize::from(worker_count.max(1))],
        }
    }

    /// Takes a random free Call ID of the worker that has fewest; `None` when all are taken.
    pub(super) fn allocate(&mut self, now: Time, rng: &mut ChaCha12Rng) -> Option<CallId> {
        self.wake_rested(now);
        loop {
            if let Some(call_id) = self.draw(rng) {
                self.mark(call_id, true);
                return Some(call_id);
            }
            // Better a call ID that has not rested than no call.
            self.wake_oldest()?;
        }
    }

    /// Takes this Call ID; false when it is taken.
    pub(super) fn take(&mut self, call_id: CallId) -> bool {
        let is_free = self.is_free(call_id);
        if is_free {
            self.mark(call_id, true);
        }
        is_free
    }

    /// Gives a Call ID back.
    pub(super) fn free(&mut self, now: Time, call_id: CallId) {
        debug_assert!(!self.is_free(call_id));
        self.resting.push_back((now, call_id));
    }

    fn draw(&self, rng: &mut ChaCha12Rng) -> Option<CallId> {
        let workers = u16::try_from(self.loads.len()).unwrap_or(u16::MAX);
        let least = self.loads.iter().min().copied().unwrap_or(0);
        // The search starts at a random worker, so that the first is not always preferred.
        let first = rng.random_range(0..workers);
        let worker = (0..workers)
            .map(|i| (first + i) % workers)
            .find(|&w| self.loads.get(usize::from(w)) == Some(&least))?;
        let per_worker = u16::MAX / workers;
        for _ in 0..DRAWS_MAX {
            let id = rng.random_range(0..=per_worker).checked_mul(workers);
            let id = id.and_then(|id| id.checked_add(worker)).map(CallId);
            if let Some(id) = id.filter(|id| self.is_free(*id)) {
                return Some(id);
            }
        }
        let start = rng.random_range(1..=u16::MAX);
        let mut searched = (start..=u16::MAX).chain(1..start).map(CallId);
        searched.find(|id| self.is_free(*id))
    }

    fn is_free(&self, call_id: CallId) -> bool {
        call_id != CallId(0) && !self.taken[usize::from(call_id.0)]
    }

    fn wake_rested(&mut self, now: Time) {
        while let Some((freed_at, _)) = self.resting.front() {
            if now < freed_at.after_ms(REST_MS) && self.taken_count <= TAKEN_MAX {
                return;
            }
            let _ = self.wake_oldest();
        }
    }

    fn wake_oldest(&mut self) -> Option<()> {
        let (_, call_id) = self.resting.pop_front()?;
        self.mark(call_id, false);
        Some(())
    }

    fn mark(&mut self, call_id: CallId, taken: bool) {
        let worker = usize::from(call_id.0) % self.loads.len();
        self.taken[usize::from(call_id.0)] = taken;
        if taken {
            self.taken_count += 1;
            self.loads[worker] += 1;
        } else {
            self.taken_count -= 1;
            self.loads[worker] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    fn rng() -> ChaCha12Rng {
        ChaCha12Rng::from_seed([7; 32])
    }

    #[test]
    fn every_id_but_zero_is_given_out_once_and_then_there_is_none() {
        let (mut ids, mut rng) = (CallIds::new(3), rng());
        let mut seen = BTreeSet::new();
        while let Some(id) = ids.allocate(Time(0), &mut rng) {
            assert!(seen.insert(id), "{id:?} came twice");
        }
        assert_eq!(seen.len(), 65_535);
        assert!(!seen.contains(&CallId(0)));
    }

    #[test]
    fn workers_get_equal_shares() {
        let (mut ids, mut rng) = (CallIds::new(4), rng());
        let mut counts = [0_u32; 4];
        for _ in 0..4_000 {
            let id = ids.allocate(Time(0), &mut rng).expect("free ids");
            counts[usize::from(id.0 % 4)] += 1;
        }
        assert_eq!(counts, [1_000; 4]);
    }

    #[test]
    fn a_freed_id_is_used_at_once_when_there_is_no_other() {
        let (mut ids, mut rng) = (CallIds::new(1), rng());
        let all: Vec<_> = std::iter::from_fn(|| ids.allocate(Time(0), &mut rng)).collect();
        ids.free(Time(1_000), all[10]);
        assert_eq!(ids.allocate(Time(1_000), &mut rng), Some(all[10]));
        assert_eq!(ids.allocate(Time(1_000), &mut rng), None);
    }

    #[test]
    fn a_freed_id_does_not_come_back_before_its_rest_is_over() {
        let (mut ids, mut rng) = (CallIds::new(1), rng());
        let first = ids.allocate(Time(0), &mut rng).expect("free ids");
        ids.free(Time(0), first);
        for _ in 0..TAKEN_MAX - 1 {
            assert_ne!(ids.allocate(Time(REST_MS - 1), &mut rng), Some(first));
        }
        assert_eq!(ids.resting.len(), 1);
        let _ = ids.allocate(Time(REST_MS), &mut rng);
        assert_eq!(ids.resting.len(), 0);
    }

    #[test]
    fn short_calls_one_after_another_never_use_the_ids_up() {
        let (mut ids, mut rng) = (CallIds::new(4), rng());
        for _ in 0..200_000 {
            let id = ids.allocate(Time(0), &mut rng).expect("free ids");
            ids.free(Time(0), id);
        }
        assert!(ids.taken_count <= TAKEN_MAX + 1);
    }
}
