//! A map with a fixed number of places: whoever was used least recently goes when one more comes.
//! What strangers can make a server remember is kept in such maps.

use std::collections::BTreeMap;

/// At most `places` entries; every operation takes logarithmic time.
#[derive(Clone, Debug)]
pub(crate) struct Lru<K, V> {
    places: usize,
    entries: BTreeMap<K, Entry<V>>,
    /// Keys by their last use.
    order: BTreeMap<u64, K>,
    uses: u64,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    used: u64,
    value: V,
}

impl<K: Copy + Ord, V> Lru<K, V> {
    /// An empty map with room for `places` entries, at least one.
    pub(crate) const fn new(places: usize) -> Self {
        Self {
            places: if places == 0 { 1 } else { places },
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Looks, which is no use.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Looks and may change, which is no use either.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Uses the entry of `key`, which is `new()` when there is none yet.
    pub(crate) fn use_or_insert(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        let used = self.uses;
        if let Some(entry) = self.entries.get(&key) {
            self.order.remove(&entry.used);
        } else if self.entries.len() >= self.places
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.order.insert(used, key);
        let value = || Entry { used, value: new() };
        let entry = self.entries.entry(key).or_insert_with(value);
        entry.used = used;
        &mut entry.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_least_recently_used_goes() {
        let mut lru = Lru::new(2);
        *lru.use_or_insert(1, || 'a') = 'A';
        lru.use_or_insert(2, || 'b');
        lru.use_or_insert(1, || 'x');
        lru.use_or_insert(3, || 'c');
        assert_eq!(
            (lru.get(&1), lru.get(&2), lru.get(&3)),
            (Some(&'A'), None, Some(&'c'))
        );
        // A look keeps nobody.
        assert!(lru.get_mut(&1).is_some());
        lru.use_or_insert(4, || 'd');
        assert_eq!(lru.get(&1), None);
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_its_places_and_always_the_latest(
            keys in proptest::collection::vec(0_u8..20, 1..200), places in 0_usize..8,
        ) {
            let mut lru = Lru::new(places);
            for key in &keys {
                lru.use_or_insert(*key, || ());
                prop_assert!(lru.len() <= places.max(1));
                prop_assert!(lru.order.len() == lru.entries.len());
                prop_assert!(lru.get(key).is_some());
            }
        }
    }
}
