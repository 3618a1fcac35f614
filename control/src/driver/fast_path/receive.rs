//! The receiving half of the fast path: packet rings, and the rule that keeps from the IP stack
//! what they take.
//!
//! The rings are opened before the rule is made, and the rule goes before they are closed: a packet
//! in between comes twice, by ring and raw socket, which its sequence number shows; none is lost.

use std::collections::HashSet;
use std::io;

use dataplane::sys::packet_ring::{Gate, PLACES_MAX, Place};

use super::ingress::{Call, IngressDrop};

/// A place, and the name of its interface.
pub(super) type NamedPlace = (Place, String);

/// The rings of all workers.
pub(super) struct Receive {
    gates: Vec<Gate>,
    /// What is let in, in order.
    places: Vec<NamedPlace>,
    calls: HashSet<Call>,
    rule: Option<IngressDrop>,
    /// Why there are no rings, or no rule.
    refusal: Option<String>,
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
            places: Vec::new(),
            calls: HashSet::new(),
            rule: None,
            refusal,
        }
    }

    /// Why what comes from this place comes through the raw socket; `None` when it does not.
    pub(super) fn obstacle(&self, place: Place) -> Option<String> {
        let is_open = self.rule.is_some() && self.places.iter().any(|(open, _)| *open == place);
        let too_many = || format!("packets come from more than {PLACES_MAX} places");
        (!is_open).then(|| self.refusal.clone().unwrap_or_else(too_many))
    }

    /// Receives these calls through the rings from now on, from these places, as many of them as
    /// may be. What was refused before is tried again only for other places, or with `is_retry`.
    pub(super) fn arrange(
        &mut self,
        mut places: Vec<NamedPlace>,
        calls: HashSet<Call>,
        is_retry: bool,
    ) {
        if self.gates.is_empty() {
            return;
        }
        places.sort();
        places.dedup();
        places.truncate(PLACES_MAX);
        let is_settled = self.rule.is_some() || places.is_empty() || !is_retry;
        if places == self.places && is_settled {
            self.follow(calls);
            return;
        }
        // The rule goes first.
        self.rule = None;
        self.refusal = None;
        self.places = places;
        self.calls = calls;
        if let Err(error) = self.open() {
            self.close(&error);
        }
    }

    /// The sessions have changed, the places have not.
    fn follow(&mut self, calls: HashSet<Call>) {
        let Some(rule) = &mut self.rule else {
            return;
        };
        let result = change(rule, &self.calls, &calls);
        self.calls = calls;
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

    fn close(&mut self, error: &io::Error) {
        self.rule = None;
        for gate in &mut self.gates {
            // What comes twice is dropped once, so nothing is lost should this fail.
            let _ = gate.admit(&[]);
        }
        self.refusal = Some(format!(
            "the kernel refuses a rule of nftables at the ingress: {error}"
        ));
    }
}

fn change(rule: &mut IngressDrop, before: &HashSet<Call>, after: &HashSet<Call>) -> io::Result<()> {
    for call in before.difference(after) {
        rule.remove(*call)?;
    }
    for call in after.difference(before) {
        rule.add(*call)?;
    }
    Ok(())
}
