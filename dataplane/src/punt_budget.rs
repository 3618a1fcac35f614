//! Bounds what one session can put into control's queue.

use std::collections::HashMap;

use crate::limits;
use crate::program::CallId;

/// How many frames each session may still punt: a bucket of `limits::PUNT_BURST` tokens that gets
/// one back every `limits::PUNT_INTERVAL_MS`. Who floods control's queue with one session does not
/// close it to the others.
#[derive(Debug)]
pub(crate) struct PuntBudgets(HashMap<CallId, PuntBudget>);

#[derive(Clone, Copy, Debug)]
struct PuntBudget {
    tokens: u32,
    refilled_ms: u64,
}

impl PuntBudgets {
    /// Room for so many sessions.
    pub(crate) fn new(sessions: usize) -> Self {
        Self(HashMap::with_capacity(sessions))
    }

    /// Gives a new session its budget.
    pub(crate) fn open(&mut self, call_id: CallId, now_ms: u64) {
        let full = PuntBudget {
            tokens: limits::PUNT_BURST,
            refilled_ms: now_ms,
        };
        self.0.insert(call_id, full);
    }

    /// Forgets a session.
    pub(crate) fn close(&mut self, call_id: CallId) {
        self.0.remove(&call_id);
    }

    /// Whether the session may punt one more frame now; then it has one less.
    pub(crate) fn spend(&mut self, call_id: CallId, now_ms: u64) -> bool {
        let Some(budget) = self.0.get_mut(&call_id) else {
            return false;
        };
        let intervals = now_ms.saturating_sub(budget.refilled_ms) / limits::PUNT_INTERVAL_MS;
        budget.refilled_ms += intervals * limits::PUNT_INTERVAL_MS;
        let refill = u32::try_from(intervals).unwrap_or(limits::PUNT_BURST);
        budget.tokens = limits::PUNT_BURST.min(budget.tokens.saturating_add(refill));
        let has_token = budget.tokens > 0;
        budget.tokens -= u32::from(has_token);
        has_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_punt_budget_refills_with_time_and_never_beyond_the_burst() {
        let mut budgets = PuntBudgets::new(1);
        let (session, interval_ms) = (CallId(9), limits::PUNT_INTERVAL_MS);
        assert!(
            !budgets.spend(session, 0),
            "without a session there is no budget"
        );
        budgets.open(session, 0);
        let mut spend_all = |now_ms| (0..1000).filter(|_| budgets.spend(session, now_ms)).count();
        assert_eq!(spend_all(0), limits::PUNT_BURST as usize);
        assert_eq!(spend_all(interval_ms - 1), 0);
        assert_eq!(spend_all(interval_ms * 3 + 1), 3);
        assert_eq!(spend_all(u64::MAX), limits::PUNT_BURST as usize);
    }
}
