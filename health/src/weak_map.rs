//! [`WeakMap`]: values that workers share by key, for as long as one of them holds the value.

use std::{
    collections::{BTreeMap, btree_map::Keys},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// A map that does not own its values.
///
/// Keys contain addresses, for example those of the application's states, because clones in other workers have the same address.
/// But an address identifies an object only while that is alive, and may be reused afterwards. Therefore:
///
/// - The map holds values weakly. An insertion removes the entries of values that were dropped.
/// - A holder of a value also holds every object whose address is in the key, and drops the value first. So the key of a value that
///   is alive identifies the same objects as when the value was created.
pub(crate) struct WeakMap<K, V>(Mutex<BTreeMap<K, Weak<V>>>);

impl<K: Ord, V> WeakMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The value of a key, if it is alive.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.0.lock().get(key).and_then(Weak::upgrade)
    }

    /// The value of a key. If none is alive, `make` creates it; `make` receives the key and the keys of the live values.
    ///
    /// The map is locked while `make` runs, so that only one thread creates the value. `make` must not use the map.
    /// If creating the value may take long, call [`get`](Self::get), create the value, and pass a closure that returns it: if another
    /// thread has inserted a value meanwhile, that is returned, and the new one is dropped without the lock.
    pub(crate) fn get_or_insert_with(&self, key: K, make: impl FnOnce(&K, Keys<'_, K, Weak<V>>) -> Arc<V>) -> Arc<V> {
        let mut entries = self.0.lock();
        if let Some(value) = entries.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        entries.retain(|_, value| value.strong_count() > 0);
        let value = make(&key, entries.keys());
        entries.insert(key, Arc::downgrade(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn len<K: Ord, V>(map: &WeakMap<K, V>) -> usize {
        map.0.lock().len()
    }

    #[test]
    fn a_value_is_shared_by_key_while_it_is_held() {
        let map = WeakMap::new();
        let one = map.get_or_insert_with(1, |_, _| Arc::new("one"));
        let two = map.get_or_insert_with(2, |_, _| Arc::new("two"));
        let again = map.get_or_insert_with(1, |_, _| unreachable!("the value is alive"));
        assert!(Arc::ptr_eq(&one, &again));
        assert_eq!((*again, *two), ("one", "two"));
        assert!(Arc::ptr_eq(&map.get(&1).unwrap(), &one));
        assert!(map.get(&3).is_none());
    }

    #[test]
    fn a_dropped_value_is_not_found_and_is_created_again() {
        let map = WeakMap::new();
        drop(map.get_or_insert_with(1, |_, _| Arc::new("old")));
        assert!(map.get(&1).is_none());
        assert_eq!(*map.get_or_insert_with(1, |_, _| Arc::new("new")), "new");
    }

    #[test]
    fn an_insertion_removes_dead_entries_and_lists_live_keys() {
        let map = WeakMap::new();
        let held = map.get_or_insert_with(0, |_, _| Arc::new(()));
        for key in 1..100 {
            drop(map.get_or_insert_with(key, |&key, others| {
                assert_eq!((key, others.copied().collect::<Vec<_>>()), (key, vec![0]));
                Arc::new(())
            }));
        }
        assert_eq!(len(&map), 2);
        drop(held);
    }

    #[test]
    fn a_value_that_comes_too_late_is_dropped_without_the_lock() {
        struct UsesTheMap(Weak<WeakMap<u8, Self>>);

        impl Drop for UsesTheMap {
            fn drop(&mut self) {
                if let Some(map) = self.0.upgrade() {
                    assert!(map.0.try_lock().is_some(), "the map is locked");
                }
            }
        }

        let map = Arc::new(WeakMap::new());
        let value = || Arc::new(UsesTheMap(Arc::downgrade(&map)));
        let (first, late) = (value(), value());
        let first = map.get_or_insert_with(1, move |_, _| first);
        assert!(Arc::ptr_eq(&first, &map.get_or_insert_with(1, move |_, _| late)));
    }

    #[test]
    fn threads_that_race_for_a_key_share_one_value() {
        static MAP: WeakMap<u8, usize> = WeakMap::new();

        let threads: Vec<_> =
            (0..8).map(|n| std::thread::spawn(move || MAP.get_or_insert_with(1, |_, _| Arc::new(n)))).collect();
        let values: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(values.iter().all(|value| Arc::ptr_eq(value, &values[0])));
    }
}
