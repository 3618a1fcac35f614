//! The receiving half of the fast path: packet rings, and the rule that keeps from the IP stack
//! what they take.
//!
//! The rings are opened before the rule is made, and the rule goes before they are closed: a packet
//! in between comes twice, by ring and raw socket, which its sequence number shows; none is lost.

use std::collections::{BTreeMap, HashSet};
use std::io;

use dataplane::sys::packet_ring::{Gate, PLACES_MAX, Place};

use super::ingress::{Call, IngressDrop};

/// A place, and the name of its interface.
pub(super) type NamedPlace = (Place, String);

/// The rings of all workers.
pub(super) struct Receive {
    gates: Vec<Gate>,
    /// From where calls come, and how many.
    wanted: BTreeMap<NamedPlace, usize>,
    /// What is let in, in order.
    places: Vec<NamedPlace>,
    calls: HashSet<Call>,
    /// What the rule does not know yet, oldest first: a look at every call whenever one comes would
    /// make ten thousand of them wait for each other.
    changes: Vec<Change>,
    rule: Option<IngressDrop>,
    /// Why there are no rings, or no rule.
    refusal: Option<String>,
    /// Nothing is let in for a while.
    is_resting: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Comes(Call),
    Goes(Call),
}

impl Receive {
    /// Rings that let nothing in; or none, and why.
    pub(super) fn new(gates: Result<Vec<Gate>, String>) -> Self {
        let (gates, refusal) = match gates {
            Ok(gates) => (gates, None),
            Err(refusal) => (Vec::new(), Some(refusal)),
        };
        Self {
            gates,
            wanted: BTreeMap::new(),
            places: Vec::new(),
            calls: HashSet::new(),
            changes: Vec::new(),
            rule: None,
            refusal,
            is_resting: false,
        }
    }

    /// Receives nothing through the rings until [`Self::go_on`].
    pub(super) fn rest(&mut self) {
        self.is_resting = true;
        // The rule goes first.
        self.rule = None;
        self.places.clear();
        self.changes.clear();
        self.shut();
    }

    /// Receives through the rings again what may be.
    pub(super) fn go_on(&mut self) {
        self.is_resting = false;
        self.arrange(true);
    }

    /// Why what comes from this place comes through the raw socket; `None` when it does not.
    pub(super) fn obstacle(&self, place: Place) -> Option<String> {
        let is_open = self.rule.is_some() && self.places.iter().any(|(open, _)| *open == place);
        let too_many = || format!("packets come from more than {PLACES_MAX} places");
        (!is_open).then(|| self.refusal.clone().unwrap_or_else(too_many))
    }

    /// A call comes from this place, at the next [`Self::arrange`].
    pub(super) fn enter(&mut self, place: &NamedPlace, call: Call) {
        *self.wanted.entry(place.clone()).or_default() += 1;
        if self.calls.insert(call) {
            self.change(Change::Comes(call));
        }
    }

    /// It comes from there no more.
    pub(super) fn leave(&mut self, place: &NamedPlace, call: Call) {
        if let Some(calls) = self.wanted.get_mut(place) {
            *calls -= 1;
            if *calls == 0 {
                self.wanted.remove(place);
            }
        }
        if self.calls.remove(&call) {
            self.change(Change::Goes(call));
        }
    }

    fn change(&mut self, change: Change) {
        // A rule that is yet to be made begins with all calls.
        if self.rule.is_some() {
            self.changes.push(change);
        }
    }

    /// Receives all calls through the rings from now on, from as many places as may be. What was
    /// refused before is tried again only for other places, or with `is_retry`.
    pub(super) fn arrange(&mut self, is_retry: bool) {
        if self.gates.is_empty() || self.is_resting {
            return;
        }
        let places = self.wanted.keys().take(PLACES_MAX);
        let is_settled = self.rule.is_some() || self.wanted.is_empty() || !is_retry;
        if places.clone().eq(&self.places) && is_settled {
            self.follow();
            return;
        }
        self.places = places.cloned().collect();
        // The rule goes first.
        self.rule = None;
        self.refusal = None;
        self.changes.clear();
        if let Err(error) = self.open() {
            self.close(&error);
        }
    }

    /// The calls have changed, the places have not.
    fn follow(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        let Some(rule) = &mut self.rule else {
            return;
        };
        let result = changes.into_iter().try_for_each(|change| match change {
            Change::Comes(call) => rule.add(call),
            Change::Goes(call) => rule.remove(call),
        });
        if let Err(error) = result {
            self.close(&error);
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let admitted: Vec<Place> = self.places.iter().map(|(place, _)| *place).collect();
        for gate in &mut self.gates {
            gate.admit(&admitted)?;
        }
        if !self.places.is_empty() {
            let calls: Vec<Call> = self.calls.iter().copied().collect();
            self.rule = Some(IngressDrop::open(&self.places, &calls)?);
        }
        Ok(())
    }

    fn shut(&mut self) {
        for gate in &mut self.gates {
            // What comes twice is dropped once, so nothing is lost should this fail.
            let _ = gate.admit(&[]);
        }
    }

    fn close(&mut self, error: &io::Error) {
        self.rule = None;
        self.shut();
        self.refusal = Some(format!(
            "the kernel refuses a rule of nftables at the ingress: {error}"
        ));
    }
}
