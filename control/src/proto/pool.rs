//! Sets of addresses, and which of a set are given: none is given twice.
//!
//! Sans I/O: where to start looking is an argument, so that the choice is random in a server and
//! repeatable in a simulation.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use thiserror::Error;

/// Most addresses that ranges may hold together: a /12. It bounds the pool's bitmap to 128 KiB.
pub const ADDRESSES_MAX: u32 = 1 << 20;

/// A set of addresses: sorted, disjoint, closed ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRanges {
    ranges: Vec<Range>,
}

/// Addresses `first..=last`, of which the first has `index` in the whole set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
    index: u32,
}

/// Why there are no such ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RangesError {
    /// The last address lies before the first.
    #[error("the range {0}-{1} ends before it starts")]
    Reversed(Ipv4Addr, Ipv4Addr),
    /// Too many.
    #[error("more than {ADDRESSES_MAX} addresses")]
    TooMany,
}

impl AddressRanges {
    /// Joins closed ranges in any order; ones that overlap or touch become one.
    ///
    /// # Errors
    /// A range that ends before it starts, or more than [`ADDRESSES_MAX`] addresses.
    pub fn new(
        ranges: impl IntoIterator<Item = (Ipv4Addr, Ipv4Addr)>,
    ) -> Result<Self, RangesError> {
        let mut sorted = Vec::new();
        for (first, last) in ranges {
            if last < first {
                return Err(RangesError::Reversed(first, last));
            }
            sorted.push((u32::from(first), u32::from(last)));
        }
        sorted.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match joined.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => joined.push((first, last)),
            }
        }
        Self::indexed(joined)
    }

    fn indexed(joined: Vec<(u32, u32)>) -> Result<Self, RangesError> {
        let mut index = 0_u32;
        let mut ranges = Vec::with_capacity(joined.len());
        for (first, last) in joined {
            ranges.push(Range { first, last, index });
            index = (last - first)
                .checked_add(1)
                .and_then(|count| index.checked_add(count))
                .filter(|&count| count <= ADDRESSES_MAX)
                .ok_or(RangesError::TooMany)?;
        }
        Ok(Self { ranges })
    }

    /// How many addresses there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ranges
            .last()
            .map_or(0, |range| range.index + (range.last - range.first) + 1)
    }

    /// There is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.index_of(address).is_some()
    }

    /// Position of `address` in ascending order, from 0.
    #[must_use]
    pub fn index_of(&self, address: Ipv4Addr) -> Option<u32> {
        let address = u32::from(address);
        let after = self.ranges.partition_point(|range| range.first <= address);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (address <= range.last).then(|| range.index + (address - range.first))
    }

    /// The address at a position in ascending order.
    #[must_use]
    pub fn nth(&self, index: u32) -> Option<Ipv4Addr> {
        let after = self.ranges.partition_point(|range| range.index <= index);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        let offset = index - range.index;
        (offset <= range.last - range.first).then(|| Ipv4Addr::from(range.first + offset))
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.ranges
            .iter()
            .flat_map(|range| (range.first..=range.last).map(Ipv4Addr::from))
    }

    /// The closed ranges, ascending and disjoint.
    pub fn ranges(&self) -> impl Iterator<Item = (Ipv4Addr, Ipv4Addr)> + '_ {
        self.ranges
            .iter()
            .map(|range| (range.first.into(), range.last.into()))
    }
}

/// `192.168.1.1-192.168.1.100, 10.0.0.5`.
impl std::fmt::Display for AddressRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (first, last)) in self.ranges().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{first}")?;
            if last != first {
                write!(f, "-{last}")?;
            }
        }
        Ok(())
    }
}

/// Who has what. Fixed addresses may lie outside of the ranges; they are given once, too.
#[derive(Clone, Debug)]
pub struct AddressPool {
    ranges: AddressRanges,
    /// One bit an address in `ranges`: given or set aside. Bits past the end are set.
    taken: Vec<u64>,
    /// Given addresses outside of `ranges`. Never more than there are sessions.
    outside: HashSet<Ipv4Addr>,
    free: u32,
}

impl AddressPool {
    /// A pool of `ranges` without those in `reserved` (the server's own addresses).
    #[must_use]
    pub fn new(ranges: AddressRanges, reserved: &[Ipv4Addr]) -> Self {
        let count = ranges.count();
        let mut taken = vec![0_u64; count.div_ceil(64) as usize];
        if let Some(last) = taken.last_mut().filter(|_| !count.is_multiple_of(64)) {
            *last = u64::MAX << (count % 64);
        }
        let mut pool = Self {
            ranges,
            taken,
            outside: HashSet::new(),
            free: count,
        };
        for &address in reserved {
            // One that is listed twice, or lies elsewhere, is set aside all the same.
            let _ = pool.allocate_fixed(address);
        }
        pool
    }

    /// How many addresses of the ranges are still to be had.
    #[must_use]
    pub const fn free_count(&self) -> u32 {
        self.free
    }

    /// How many addresses the ranges have.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ranges.count()
    }

    /// A free address, the first at or after a place that `random` picks; `None` when all are out.
    #[must_use]
    pub fn find_free(&self, random: u32) -> Option<Ipv4Addr> {
        if self.free == 0 {
            return None;
        }
        // Nobody has to know how many sessions there are from the address that he gets.
        let start = random % self.ranges.count();
        let index = self.first_free(start).or_else(|| self.first_free(0))?;
        self.ranges.nth(index)
    }

    /// Gives what [`find_free`](Self::find_free) finds.
    pub fn allocate(&mut self, random: u32) -> Option<Ipv4Addr> {
        let address = self.find_free(random)?;
        self.allocate_fixed(address).then_some(address)
    }

    /// First free index at or after `start`.
    fn first_free(&self, start: u32) -> Option<u32> {
        let first_word = start / 64;
        let before_start = !(u64::MAX << (start % 64));
        self.taken
            .iter()
            .enumerate()
            .skip(first_word as usize)
            .find_map(|(word, &bits)| {
                let word = u32::try_from(word).ok()?;
                let bits = if word == first_word {
                    bits | before_start
                } else {
                    bits
                };
                (bits != u64::MAX).then(|| word * 64 + (!bits).trailing_zeros())
            })
    }

    /// Gives a certain address, in the ranges or not; `false` when someone has it.
    #[must_use = "somebody else may have the address"]
    pub fn allocate_fixed(&mut self, address: Ipv4Addr) -> bool {
        let Some(index) = self.ranges.index_of(address) else {
            return self.outside.insert(address);
        };
        let Some(word) = self.taken.get_mut((index / 64) as usize) else {
            return false;
        };
        let bit = 1 << (index % 64);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.free -= 1;
        true
    }

    /// `address` is given or set aside.
    #[must_use]
    pub fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.ranges.index_of(address).map_or_else(
            || self.outside.contains(&address),
            |index| {
                self.taken
                    .get((index / 64) as usize)
                    .is_some_and(|word| word >> (index % 64) & 1 == 1)
            },
        )
    }

    /// Takes an address back; `false` when nobody had it.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        let Some(index) = self.ranges.index_of(address) else {
            return self.outside.remove(&address);
        };
        let Some(word) = self.taken.get_mut((index / 64) as usize) else {
            return false;
        };
        let bit = 1 << (index % 64);
        if *word & bit == 0 {
            return false;
        }
        *word &= !bit;
        self.free += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ip(d: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 1, d)
    }

    fn ranges(list: &[(u8, u8)]) -> AddressRanges {
        AddressRanges::new(list.iter().map(|&(a, b)| (ip(a), ip(b)))).unwrap()
    }

    #[test]
    fn ranges_are_sorted_and_joined() {
        let set = ranges(&[(20, 30), (1, 3), (4, 5), (25, 40)]);
        assert_eq!(
            set.ranges().collect::<Vec<_>>(),
            [(ip(1), ip(5)), (ip(20), ip(40))]
        );
        assert_eq!(set.count(), 26);
        assert!(set.contains(ip(5)) && !set.contains(ip(6)) && set.contains(ip(40)));
        assert_eq!(set.nth(5), Some(ip(20)));
        assert_eq!(set.nth(26), None);
        assert_eq!(
            set.to_string(),
            "192.168.1.1-192.168.1.5, 192.168.1.20-192.168.1.40"
        );
    }

    #[test]
    fn the_edges_of_the_address_space_do_not_overflow() {
        let last = Ipv4Addr::BROADCAST;
        let set =
            AddressRanges::new([(last, last), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)])
                .unwrap();
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Ipv4Addr::UNSPECIFIED, last]
        );
        assert_eq!(
            AddressRanges::new([(Ipv4Addr::UNSPECIFIED, last)]),
            Err(RangesError::TooMany)
        );
    }

    #[test]
    fn a_reversed_range_is_an_error() {
        assert_eq!(
            AddressRanges::new([(ip(9), ip(3))]),
            Err(RangesError::Reversed(ip(9), ip(3)))
        );
    }

    #[test]
    fn all_addresses_are_given_once_and_then_none() {
        let mut pool = AddressPool::new(ranges(&[(1, 100)]), &[ip(50)]);
        let mut given = HashSet::new();
        for random in 0..99 {
            assert!(given.insert(pool.allocate(random * 7919).unwrap()));
        }
        assert!(!given.contains(&ip(50)));
        assert_eq!(pool.allocate(0), None);
        assert!(pool.release(ip(77)));
        assert_eq!(pool.allocate(3), Some(ip(77)));
    }

    #[test]
    fn a_fixed_address_outside_of_the_ranges_is_given_once() {
        let mut pool = AddressPool::new(ranges(&[(1, 2)]), &[]);
        assert!(pool.allocate_fixed(ip(200)));
        assert!(!pool.allocate_fixed(ip(200)));
        assert!(pool.release(ip(200)));
        assert!(!pool.release(ip(200)));
        assert_eq!(pool.free_count(), 2);
    }

    #[test]
    fn an_empty_pool_has_nothing_to_give() {
        assert_eq!(
            AddressPool::new(AddressRanges::default(), &[]).allocate(5),
            None
        );
    }

    proptest! {
        #[test]
        fn the_pool_agrees_with_a_plain_set(
            list in proptest::collection::vec((0_u8..200, 0_u8..20), 0..5),
            steps in proptest::collection::vec((0_u8..3, any::<u32>()), 0..300),
        ) {
            let set = ranges(&list.iter().map(|&(a, n)| (a, a + n)).collect::<Vec<_>>());
            let all: HashSet<_> = set.iter().collect();
            prop_assert_eq!(all.len(), set.count() as usize);
            let mut pool = AddressPool::new(set, &[]);
            let mut model = HashSet::new();
            for (step, random) in steps {
                let address = ip(random as u8);
                match step {
                    0 => match pool.allocate(random) {
                        Some(given) => {
                            prop_assert!(all.contains(&given));
                            prop_assert!(model.insert(given), "{} was given twice", given);
                        }
                        None => prop_assert!(all.iter().all(|address| model.contains(address))),
                    },
                    1 => prop_assert_eq!(pool.allocate_fixed(address), model.insert(address)),
                    _ => prop_assert_eq!(pool.release(address), model.remove(&address)),
                }
                let inside = model.iter().filter(|address| all.contains(address)).count();
                prop_assert_eq!(pool.free_count() as usize, all.len() - inside);
                prop_assert_eq!(pool.is_taken(address), model.contains(&address));
            }
        }

        #[test]
        fn index_and_address_are_inverse(
            list in proptest::collection::vec((0_u8..200, 0_u8..50), 0..6),
        ) {
            let set = ranges(&list.iter().map(|&(a, n)| (a, a + n)).collect::<Vec<_>>());
            for (index, address) in (0..).zip(set.iter()) {
                prop_assert_eq!(set.index_of(address), Some(index));
                prop_assert_eq!(set.nth(index), Some(address));
            }
        }
    }
}
