//! Which client has which inner address: named pools, of which one may go on in the next, fixed
//! addresses, and what is remembered of those who have gone.
//!
//! No address is given twice, whichever way it is given: one table of leases stands above all
//! pools. A user that comes back gets the address that it had, while nobody else has needed it.
//! After a restart that nobody prepared, addresses that were out rest: a client, or another server,
//! may still take them for its own.
//!
//! Sans I/O: the clock and the place where to start looking are arguments, and what must survive
//! the process comes out as [`LeaseRecord`]s, which a later process hands back to
//! [`Pools::restore`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;

use thiserror::Error;

use super::Time;
use super::pool::{AddressPool, AddressRanges};

/// Most pools. An address is looked for in each.
pub const POOLS_MAX: usize = 64;

/// Places that are tried for an address that nobody has had before: who comes back later should
/// find his own.
const DRAWS: u32 = 8;

/// One pool as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// How RADIUS (`Framed-Pool`) and other pools name it.
    pub name: String,
    /// Its addresses. They may also be another pool's.
    pub ranges: AddressRanges,
    /// The pool that helps out when this one is empty.
    pub next: Option<String>,
}

/// Why there are no such pools.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolsError {
    /// Two of one name.
    #[error("two pools are called '{0}'")]
    Twice(String),
    /// A next pool that is not there.
    #[error("the pool '{pool}' goes on in '{next}', and there is no pool of that name")]
    NoNext {
        /// Which.
        pool: String,
        /// What it names.
        next: String,
    },
    /// A pool that comes after itself.
    #[error("the pool '{0}' comes after itself: its next pools go round in a circle")]
    Circle(String),
    /// Too many.
    #[error("more than {POOLS_MAX} pools")]
    TooMany,
}

/// Says whether pools fit together.
///
/// # Errors
/// What does not.
pub fn check(specs: &[PoolSpec]) -> Result<(), PoolsError> {
    if specs.len() > POOLS_MAX {
        return Err(PoolsError::TooMany);
    }
    let named = |name: &str| specs.iter().find(|spec| spec.name == name);
    for (i, spec) in specs.iter().enumerate() {
        if specs.iter().take(i).any(|other| other.name == spec.name) {
            return Err(PoolsError::Twice(spec.name.clone()));
        }
    }
    for spec in specs {
        let (mut at, mut steps) = (spec, 0);
        while let Some(next) = &at.next {
            at = named(next).ok_or_else(|| PoolsError::NoNext {
                pool: at.name.clone(),
                next: next.clone(),
            })?;
            steps += 1;
            if steps > specs.len() {
                return Err(PoolsError::Circle(spec.name.clone()));
            }
        }
    }
    Ok(())
}

/// Who had an address last, and whether he still has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The inner address.
    pub address: Ipv4Addr,
    /// Whose.
    pub user: String,
    /// It is given, not only remembered.
    pub is_held: bool,
}

/// How full a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub ranges: AddressRanges,
    /// The pool after it.
    pub next: Option<String>,
    /// How many addresses it has.
    pub total: u32,
    /// How many can be given now.
    pub free: u32,
    /// How many have been given to sessions.
    pub held: u32,
    /// How many rest after a restart.
    pub resting: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A session has it.
    Held,
    /// It was held when an earlier process ended; nobody but its user gets it before then.
    Resting(Time),
    /// It is remembered.
    Free,
}

#[derive(Clone, Debug)]
struct Lease {
    user: String,
    state: State,
}

#[derive(Clone, Debug)]
struct Pool {
    spec: PoolSpec,
    /// What can be given: neither held nor resting, ours, or somebody's fixed address.
    addresses: AddressPool,
}

/// All pools and leases of a server.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    pools: Vec<Pool>,
    /// Never given.
    own: HashSet<Ipv4Addr>,
    /// Given only to those whom they belong to.
    fixed: HashSet<Ipv4Addr>,
    /// At most one for each address in the pools, and for each session one outside.
    leases: HashMap<Ipv4Addr, Lease>,
    /// What each user had, the latest last. Nobody in particular has the empty name.
    by_user: HashMap<String, Vec<Ipv4Addr>>,
    /// Ascending.
    resting: VecDeque<(Time, Ipv4Addr)>,
    records: Vec<LeaseRecord>,
}

impl Pools {
    /// Pools of which nothing is given. The first is for those who are sent to none in particular.
    /// `own` are the server's addresses, `fixed` those that belong to particular users.
    #[must_use]
    pub fn new(specs: Vec<PoolSpec>, own: &[Ipv4Addr], fixed: HashSet<Ipv4Addr>) -> Self {
        let mut pools = Self::default();
        pools.reconfigure(specs, own, fixed);
        pools
    }

    /// The same with other ranges: what has been given stays with who has it.
    pub fn reconfigure(
        &mut self,
        specs: Vec<PoolSpec>,
        own: &[Ipv4Addr],
        fixed: HashSet<Ipv4Addr>,
    ) {
        self.own = own.iter().copied().collect();
        self.fixed = fixed;
        let pools = specs.into_iter().map(|spec| Pool {
            addresses: AddressPool::new(spec.ranges.clone(), &[]),
            spec,
        });
        self.pools = pools.collect();
        let mut unavailable: Vec<Ipv4Addr> = self.own.union(&self.fixed).copied().collect();
        unavailable.extend(self.leases.keys());
        for address in unavailable {
            self.mark(address);
        }
    }

    /// Takes over what an earlier process knew, before anything is given. What was held rests until
    /// `until`.
    pub fn restore(&mut self, records: impl IntoIterator<Item = LeaseRecord>, until: Time) {
        for record in records {
            let is_in_pool = self.is_in_pool(record.address);
            let LeaseRecord {
                address,
                user,
                is_held,
            } = record;
            if !is_held && !is_in_pool {
                continue;
            }
            let state = if is_held {
                self.resting.push_back((until, address));
                State::Resting(until)
            } else {
                State::Free
            };
            self.forget_user(address);
            self.remember(&user, address);
            self.leases.insert(address, Lease { user, state });
            self.mark(address);
        }
    }

    /// Gives `user` an address of the pool with this name, or of the first, or of those after it:
    /// the one that it had, or any. `None` when all are out, or there is no such pool.
    pub fn allocate(
        &mut self,
        now: Time,
        user: &str,
        pool: Option<&str>,
        random: u32,
    ) -> Option<Ipv4Addr> {
        self.wake_rested(now);
        let chain = self.chain(pool);
        let known = self.known_address(user, &chain);
        let address = known.or_else(|| chain.iter().find_map(|&pool| self.any_free(pool, random)));
        let address = address?;
        self.give(address, user);
        Some(address)
    }

    /// Gives `user` a certain address, in a pool or not; `false` when somebody else has it, or had
    /// it before a restart and may have it still, or it is the server's own.
    #[must_use = "somebody else may have the address"]
    pub fn allocate_fixed(&mut self, now: Time, user: &str, address: Ipv4Addr) -> bool {
        self.wake_rested(now);
        let is_free = match self.leases.get(&address) {
            None => true,
            Some(lease) => match lease.state {
                State::Held => false,
                State::Resting(_) => is_same(user, &lease.user),
                State::Free => true,
            },
        };
        if !is_free || self.own.contains(&address) {
            return false;
        }
        self.give(address, user);
        true
    }

    /// Takes an address back; `false` when nobody had it.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        let Some(lease) = self.leases.get_mut(&address) else {
            return false;
        };
        if lease.state != State::Held {
            return false;
        }
        lease.state = State::Free;
        self.settle(address);
        true
    }

    /// What has changed since the last time, oldest first: to be kept for a later process.
    pub fn take_records(&mut self) -> Vec<LeaseRecord> {
        std::mem::take(&mut self.records)
    }

    /// The pool that has an address, the first one if several have it, and the place in it.
    #[must_use]
    pub fn position(&self, address: Ipv4Addr) -> Option<(&str, u32)> {
        self.pools.iter().find_map(|pool| {
            let index = pool.spec.ranges.index_of(address)?;
            Some((pool.spec.name.as_str(), index))
        })
    }

    /// How full each pool is, in the order of the configuration.
    #[must_use]
    pub fn usage(&self) -> Vec<PoolUse> {
        let usage = self.pools.iter().map(|pool| {
            let count = |is: fn(State) -> bool| {
                let of_pool = self.leases.iter().filter(|(address, lease)| {
                    is(lease.state) && pool.spec.ranges.contains(**address)
                });
                u32::try_from(of_pool.count()).unwrap_or(u32::MAX)
            };
            PoolUse {
                name: pool.spec.name.clone(),
                ranges: pool.spec.ranges.clone(),
                next: pool.spec.next.clone(),
                total: pool.addresses.count(),
                free: pool.addresses.free_count(),
                held: count(|state| state == State::Held),
                resting: count(|state| matches!(state, State::Resting(_))),
            }
        });
        usage.collect()
    }

    /// Everything that is known, held addresses and remembered ones.
    pub fn leases(&self) -> impl Iterator<Item = LeaseRecord> {
        self.leases.iter().map(|(address, lease)| LeaseRecord {
            address: *address,
            user: lease.user.clone(),
            is_held: lease.state != State::Free,
        })
    }

    /// A pool and those after it, each once.
    fn chain(&self, first: Option<&str>) -> Vec<usize> {
        let find = |name: &str| self.pools.iter().position(|pool| pool.spec.name == name);
        let mut at = match first {
            Some(name) => find(name),
            None => (!self.pools.is_empty()).then_some(0),
        };
        let mut chain = Vec::new();
        while let Some(pool) = at.filter(|pool| !chain.contains(pool)) {
            chain.push(pool);
            at = self.pools[pool].spec.next.as_deref().and_then(find);
        }
        chain
    }

    /// The latest address of `user` in these pools that it can have again.
    fn known_address(&self, user: &str, chain: &[usize]) -> Option<Ipv4Addr> {
        let can_have = |address: &&Ipv4Addr| {
            let is_in_chain = |&pool: &usize| self.pools[pool].spec.ranges.contains(**address);
            let is_given = self
                .leases
                .get(address)
                .is_none_or(|lease| lease.state == State::Held || lease.user != user);
            let is_set_aside = self.own.contains(address) || self.fixed.contains(address);
            !is_given && !is_set_aside && chain.iter().any(is_in_chain)
        };
        self.by_user.get(user)?.iter().rev().find(can_have).copied()
    }

    /// A free address of one pool: if possible one that nobody will look for.
    fn any_free(&self, pool: usize, random: u32) -> Option<Ipv4Addr> {
        let addresses = &self.pools[pool].addresses;
        let mut first = None;
        for draw in 0..DRAWS {
            // Far apart, and another start for each session: the same by a Weyl sequence.
            let place = random.wrapping_add(draw.wrapping_mul(0x9E37_79B9));
            let address = addresses.find_free(place)?;
            if !self.leases.contains_key(&address) {
                return Some(address);
            }
            first.get_or_insert(address);
        }
        first
    }

    fn give(&mut self, address: Ipv4Addr, user: &str) {
        self.forget_user(address);
        self.remember(user, address);
        let (user, state) = (user.to_owned(), State::Held);
        self.leases.insert(address, Lease { user, state });
        self.settle(address);
    }

    /// A lease has changed.
    fn settle(&mut self, address: Ipv4Addr) {
        self.mark(address);
        let Some(lease) = self.leases.get(&address) else {
            return;
        };
        self.records.push(LeaseRecord {
            address,
            user: lease.user.clone(),
            is_held: lease.state != State::Free,
        });
        // What no pool has is remembered by who says that it is fixed.
        if lease.state == State::Free && !self.is_in_pool(address) {
            self.forget_user(address);
            self.leases.remove(&address);
        }
    }

    /// Makes the pools know whether they can give an address.
    fn mark(&mut self, address: Ipv4Addr) {
        let lease = self.leases.get(&address);
        let is_taken = self.own.contains(&address)
            || self.fixed.contains(&address)
            || lease.is_some_and(|lease| lease.state != State::Free);
        for pool in &mut self.pools {
            if !pool.spec.ranges.contains(address) {
                continue;
            }
            if is_taken {
                let _ = pool.addresses.allocate_fixed(address);
            } else {
                pool.addresses.release(address);
            }
        }
    }

    fn is_in_pool(&self, address: Ipv4Addr) -> bool {
        self.position(address).is_some()
    }

    fn remember(&mut self, user: &str, address: Ipv4Addr) {
        if !user.is_empty() {
            let had = self.by_user.entry(user.to_owned()).or_default();
            had.push(address);
        }
    }

    /// The address will be somebody else's.
    fn forget_user(&mut self, address: Ipv4Addr) {
        let Some(lease) = self.leases.get(&address) else {
            return;
        };
        if let Some(had) = self.by_user.get_mut(&lease.user) {
            had.retain(|other| *other != address);
            if had.is_empty() {
                self.by_user.remove(&lease.user);
            }
        }
    }

    fn wake_rested(&mut self, now: Time) {
        while let Some((until, address)) = self.resting.front().copied() {
            if until > now {
                return;
            }
            self.resting.pop_front();
            // Its user may have come back.
            if let Some(lease) = self.leases.get_mut(&address)
                && lease.state == State::Resting(until)
            {
                lease.state = State::Free;
                self.settle(address);
            }
        }
    }
}

/// The same somebody.
fn is_same(user: &str, other: &str) -> bool {
    !user.is_empty() && user == other
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REST_MS: u64 = 1_000;

    const fn ip(d: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, d)
    }

    fn spec(name: &str, (first, last): (u8, u8), next: Option<&str>) -> PoolSpec {
        PoolSpec {
            name: name.to_owned(),
            ranges: AddressRanges::new([(ip(first), ip(last))]).unwrap(),
            next: next.map(str::to_owned),
        }
    }

    fn one_pool(first: u8, last: u8) -> Pools {
        Pools::new(vec![spec("main", (first, last), None)], &[], HashSet::new())
    }

    #[test]
    fn a_full_pool_goes_on_in_the_next() {
        let specs = vec![
            spec("a", (1, 2), Some("b")),
            spec("b", (11, 11), Some("c")),
            spec("c", (21, 21), None),
        ];
        assert_eq!(check(&specs), Ok(()));
        let mut pools = Pools::new(specs, &[], HashSet::new());
        let given: Vec<_> = (0..4)
            .map(|n| pools.allocate(Time(0), "", None, n).unwrap())
            .collect();
        assert_eq!(
            given[..2].iter().copied().collect::<HashSet<_>>(),
            [ip(1), ip(2)].into()
        );
        assert_eq!(given[2..], [ip(11), ip(21)]);
        assert_eq!(pools.allocate(Time(0), "", None, 0), None);
        assert!(pools.release(ip(21)));
        assert_eq!(pools.allocate(Time(0), "", Some("c"), 0), Some(ip(21)));
        assert_eq!(pools.allocate(Time(0), "", Some("none"), 0), None);
        assert_eq!(pools.position(ip(11)), Some(("b", 0)));
    }

    #[test]
    fn pools_that_do_not_fit_together_are_named() {
        let a = |next| spec("a", (1, 2), next);
        let b = |next| spec("b", (3, 4), next);
        for (specs, words) in [
            (vec![a(None), a(None)], "two pools are called 'a'"),
            (vec![a(Some("x"))], "'a' goes on in 'x'"),
            (vec![a(Some("b")), b(Some("a"))], "in a circle"),
            (vec![a(Some("a"))], "in a circle"),
        ] {
            let error = check(&specs).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn who_comes_back_gets_the_address_that_he_had() {
        let mut pools = one_pool(1, 100);
        let had = pools.allocate(Time(0), "mia", None, 7).unwrap();
        assert!(pools.release(had));
        for n in 0..50 {
            let other = pools.allocate(Time(0), &format!("user{n}"), None, n * 31);
            assert_ne!(other, Some(had), "there were others left");
        }
        assert_eq!(pools.allocate(Time(0), "mia", None, 99), Some(had));
        // A second session of hers gets another one.
        assert_ne!(pools.allocate(Time(0), "mia", None, 99), Some(had));
    }

    #[test]
    fn a_remembered_address_is_given_when_there_is_no_other() {
        let mut pools = one_pool(1, 1);
        assert_eq!(pools.allocate(Time(0), "mia", None, 0), Some(ip(1)));
        assert!(pools.release(ip(1)));
        assert_eq!(pools.allocate(Time(0), "bob", None, 0), Some(ip(1)));
        assert!(pools.release(ip(1)));
        assert!(pools.by_user.len() == 1 && pools.by_user.contains_key("bob"));
    }

    #[test]
    fn what_belongs_to_somebody_or_to_us_is_given_to_nobody_else() {
        let specs = vec![spec("main", (1, 3), None)];
        let mut pools = Pools::new(specs, &[ip(1)], HashSet::from([ip(2)]));
        assert_eq!(pools.allocate(Time(0), "mia", None, 0), Some(ip(3)));
        assert_eq!(pools.allocate(Time(0), "mia", None, 1), None);
        assert!(
            !pools.allocate_fixed(Time(0), "bob", ip(1)),
            "the server's own"
        );
        assert!(!pools.allocate_fixed(Time(0), "bob", ip(3)), "mia's");
        assert!(pools.allocate_fixed(Time(0), "bob", ip(2)));
        assert!(!pools.allocate_fixed(Time(0), "bob", ip(2)), "given");
        assert!(pools.allocate_fixed(Time(0), "ann", ip(200)), "outside");
        assert!(!pools.allocate_fixed(Time(0), "bob", ip(200)));
        assert!(pools.release(ip(2)) && pools.release(ip(200)));
        assert_eq!(pools.allocate(Time(0), "eve", None, 1), None);
    }

    #[test]
    fn after_an_unclean_end_addresses_rest_but_for_who_had_them() {
        let mut before = one_pool(1, 2);
        let mia = before.allocate(Time(0), "mia", None, 0).unwrap();
        let bob = before.allocate(Time(0), "bob", None, 0).unwrap();
        assert!(before.release(bob));
        let mut pools = one_pool(1, 2);
        pools.restore(before.take_records_folded(), Time(REST_MS));
        assert_eq!(pools.usage()[0].resting, 1);
        assert_eq!(pools.allocate(Time(0), "eve", None, 0), Some(bob), "free");
        assert_eq!(pools.allocate(Time(REST_MS - 1), "ann", None, 0), None);
        assert!(!pools.allocate_fixed(Time(0), "ann", mia));
        assert_eq!(pools.allocate(Time(1), "mia", None, 0), Some(mia));
        assert!(pools.release(mia));
        assert_eq!(pools.allocate(Time(2), "ann", None, 0), Some(mia));
    }

    #[test]
    fn what_rests_is_free_when_its_time_has_passed() {
        let mut pools = one_pool(1, 1);
        let (address, user, is_held) = (ip(1), "mia".to_owned(), true);
        let record = LeaseRecord {
            address,
            user,
            is_held,
        };
        pools.restore([record], Time(REST_MS));
        assert_eq!(pools.allocate(Time(REST_MS - 1), "bob", None, 0), None);
        assert_eq!(pools.allocate(Time(REST_MS), "bob", None, 0), Some(ip(1)));
    }

    #[test]
    fn a_range_that_is_taken_out_is_not_given_any_more_and_sessions_keep_theirs() {
        let mut pools = one_pool(1, 10);
        let had = pools.allocate(Time(0), "mia", None, 0).unwrap();
        pools.reconfigure(vec![spec("main", (11, 12), None)], &[], HashSet::new());
        assert!(!pools.allocate_fixed(Time(0), "bob", had));
        for _ in 0..2 {
            assert!(pools.allocate(Time(0), "bob", None, 0).unwrap() > ip(10));
        }
        assert_eq!(pools.allocate(Time(0), "bob", None, 0), None);
        assert!(pools.release(had));
        assert_eq!(pools.allocate(Time(0), "mia", None, 0), None);
        assert!(pools.leases.len() == 2, "{:?}", pools.leases);
    }

    impl Pools {
        /// What a lease file would say: the last record of each address.
        fn take_records_folded(&mut self) -> Vec<LeaseRecord> {
            let records = self.take_records().into_iter();
            let last: HashMap<_, _> = records.map(|record| (record.address, record)).collect();
            last.into_values().collect()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate(u8, u8, u32),
        Fixed(u8, u8),
        Release(usize),
        Pass(u16),
        Restart,
        Reconfigure(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0_u8..12, 0_u8..3, any::<u32>()).prop_map(|(u, p, r)| Step::Allocate(u, p, r)),
            4 => (0_u8..12, 0_u8..60).prop_map(|(user, address)| Step::Fixed(user, address)),
            6 => any::<usize>().prop_map(Step::Release),
            2 => any::<u16>().prop_map(|ms| Step::Pass(ms % 700)),
            1 => Just(Step::Restart),
            1 => (0_u8..3).prop_map(Step::Reconfigure),
        ]
    }

    /// Overlapping pools, one after the other; ranges depend on the variant.
    fn specs(variant: u8) -> Vec<PoolSpec> {
        let shift = variant * 7;
        vec![
            spec("0", (5 + shift, 15 + shift), Some("1")),
            spec("1", (12, 25), Some("2")),
            spec("2", (20 + shift, 35), None),
        ]
    }

    proptest! {
        /// Whatever happens: no address has two sessions, none of ours or of somebody's own is
        /// given from a pool, and after a crash only its user gets an address that was out.
        #[test]
        fn no_address_is_ever_given_twice(
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let (own, fixed) = ([ip(6), ip(20)], HashSet::from([ip(13), ip(30)]));
            let new = |variant| Pools::new(specs(variant), &own, fixed.clone());
            let (mut pools, mut variant, mut now) = (new(0), 0, Time(0));
            let mut held: Vec<(Ipv4Addr, String)> = Vec::new();
            // Who had an address at the last crash, and until when that counts.
            let mut crashed: HashMap<Ipv4Addr, (String, Time)> = HashMap::new();
            let mut file: HashMap<Ipv4Addr, LeaseRecord> = HashMap::new();
            for step in steps {
                let given = match step {
                    Step::Allocate(user, pool, random) => {
                        let (user, pool) = (user.to_string(), pool.to_string());
                        let given = pools.allocate(now, &user, Some(&pool), random);
                        if let Some(address) = given {
                            prop_assert!(!own.contains(&address) && !fixed.contains(&address));
                            prop_assert!(specs(variant).iter().any(|it| it.ranges.contains(address)));
                        }
                        given.map(|address| (address, user))
                    }
                    Step::Fixed(user, address) => {
                        let (user, address) = (user.to_string(), ip(address));
                        pools.allocate_fixed(now, &user, address).then_some((address, user))
                    }
                    Step::Release(at) => {
                        if !held.is_empty() {
                            let (address, _) = held.swap_remove(at % held.len());
                            prop_assert!(pools.release(address));
                            prop_assert!(!pools.release(address));
                        }
                        None
                    }
                    Step::Pass(ms) => {
                        now = now.after_ms(u64::from(ms));
                        None
                    }
                    Step::Restart => {
                        file.extend(pools.take_records().into_iter().map(|it| (it.address, it)));
                        let until = now.after_ms(REST_MS);
                        crashed.extend(held.drain(..).map(|(address, user)| (address, (user, until))));
                        for (_, rest_until) in crashed.values_mut() {
                            if *rest_until > now {
                                *rest_until = until;
                            }
                        }
                        pools = new(variant);
                        pools.restore(file.values().cloned(), until);
                        None
                    }
                    Step::Reconfigure(to) => {
                        variant = to;
                        pools.reconfigure(specs(to), &own, fixed.clone());
                        None
                    }
                };
                if let Some((address, user)) = given {
                    prop_assert!(!own.contains(&address));
                    prop_assert!(held.iter().all(|(other, _)| *other != address), "{} twice", address);
                    if let Some((before, until)) = crashed.remove(&address) {
                        prop_assert!(before == user || until <= now, "{} rests", address);
                    }
                    held.push((address, user));
                }
                file.extend(pools.take_records().into_iter().map(|it| (it.address, it)));
                prop_assert!(pools.leases.len() <= 60 + held.len());
                let remembered: usize = pools.by_user.values().map(Vec::len).sum();
                prop_assert_eq!(remembered, pools.leases.len());
            }
        }
    }
}
