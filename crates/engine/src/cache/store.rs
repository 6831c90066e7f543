//! Answers by key, bounded in bytes: those that were used longest ago go first.
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use xebec_core::Tensor;

/// What an entry takes beside its tensors, in bytes: its place in two maps, and its key.
const ENTRY_BYTES: u64 = 256;

/// Which load of a model, and a digest of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) load: u64,
    pub(super) digest: [u8; 32],
}

/// See the module's text.
pub(super) struct Store {
    limit: u64,
    bytes: u64,
    /// The answers of each load that is not over, by digest.
    loads: HashMap<u64, HashMap<[u8; 32], Entry>>,
    begun: u64,
    /// By the time of the last use, the oldest first.
    by_use: BTreeMap<u64, Key>,
    clock: u64,
}

struct Entry {
    answer: Arc<[Tensor]>,
    bytes: u64,
    used: u64,
}

impl Store {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, loads: HashMap::new(), begun: 0, by_use: BTreeMap::new(), clock: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.by_use.len()
    }

    /// Makes room for a new load, and names it.
    pub(super) fn begin(&mut self) -> u64 {
        let load = self.begun;
        self.begun += 1;
        self.loads.insert(load, HashMap::new());
        load
    }

    /// An answer, which is then the one that was used last.
    pub(super) fn get(&mut self, key: &Key) -> Option<Arc<[Tensor]>> {
        let entry = self.loads.get_mut(&key.load)?.get_mut(&key.digest)?;
        self.clock += 1;
        self.by_use.remove(&entry.used);
        entry.used = self.clock;
        self.by_use.insert(entry.used, *key);
        Some(Arc::clone(&entry.answer))
    }

    /// Keeps an answer, if it fits at all and its load is not over; returns how many went for it.
    pub(super) fn put(&mut self, key: Key, answer: Arc<[Tensor]>) -> u64 {
        let bytes = ENTRY_BYTES + answer.iter().map(size).sum::<u64>();
        if bytes > self.limit || !self.loads.contains_key(&key.load) {
            return 0;
        }
        self.remove(&key);
        let mut gone = 0;
        while self.bytes + bytes > self.limit {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
            gone += 1;
        }
        if let Some(entries) = self.loads.get_mut(&key.load) {
            self.clock += 1;
            self.by_use.insert(self.clock, key);
            entries.insert(key.digest, Entry { answer, bytes, used: self.clock });
            self.bytes += bytes;
        }
        gone
    }

    /// Lets go of all answers of one load, which is over: what comes of it later is not kept.
    pub(super) fn forget(&mut self, load: u64) {
        let gone = self.loads.remove(&load).unwrap_or_default();
        gone.values().for_each(|entry| self.uncount(entry));
    }

    fn remove(&mut self, key: &Key) {
        let entries = self.loads.get_mut(&key.load);
        if let Some(entry) = entries.and_then(|entries| entries.remove(&key.digest)) {
            self.uncount(&entry);
        }
    }

    fn uncount(&mut self, entry: &Entry) {
        self.by_use.remove(&entry.used);
        self.bytes -= entry.bytes;
    }
}

fn size(tensor: &Tensor) -> u64 {
    (size_of::<Tensor>() + tensor.name.len() + tensor.shape.len() * 8 + tensor.data.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use xebec_core::Datatype;

    fn key(load: u64, number: u64) -> Key {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        Key { load, digest }
    }

    /// With the loads 0, 1 and 2.
    fn store(limit: u64) -> Store {
        let mut store = Store::new(limit);
        assert_eq!([(); 3].map(|()| store.begin()), [0, 1, 2]);
        store
    }

    fn answer(data: Bytes) -> Arc<[Tensor]> {
        let shape = vec![i64::try_from(data.len()).unwrap()];
        [Tensor { name: "y".into(), datatype: Datatype::Uint8, shape, data }].into()
    }

    #[test]
    fn sixteen_megabytes_hold_under_ten_gigabytes_of_answers() {
        const LIMIT: u64 = 16 << 20;
        let (mut store, mut put, mut number) = (store(LIMIT), 0u64, 0u64);
        while put < 10 << 30 {
            // From a few bytes to more than all that may be kept.
            let size = 1usize << (number % 26);
            put += size as u64;
            store.put(key(0, number), answer(vec![0; size].into()));
            assert!(store.bytes() <= LIMIT);
            number += 1;
        }
        assert!(store.bytes() > LIMIT / 2, "{} bytes are kept", store.bytes());
    }

    #[test]
    fn what_was_used_last_stays_and_what_is_forgotten_is_gone() {
        let one = ENTRY_BYTES + size(&answer(Bytes::from_static(&[1; 100]))[0]);
        let mut store = store(3 * one);
        let of = |byte: u8| answer(vec![byte; 100].into());
        for number in 0..3 {
            assert_eq!(store.put(key(number % 2, number), of(0)), 0);
        }
        assert!(store.get(&key(0, 0)).is_some());
        assert_eq!(store.put(key(0, 3), of(3)), 1);
        let there =
            [(0, 0), (1, 1), (0, 2), (0, 3)].map(|(load, number)| store.get(&key(load, number)).is_some());
        assert_eq!(there, [true, false, true, true]);
        // In its own place there is room for a new one.
        assert_eq!((store.put(key(0, 3), of(4)), store.get(&key(0, 3)).unwrap()[0].data[0]), (0, 4));
        assert_eq!(store.put(key(0, 9), answer(vec![0; 4000].into())), 0, "too large for all of it");
        store.forget(0);
        assert_eq!((store.len(), store.bytes()), (0, 0));
        assert_eq!((store.put(key(0, 0), of(0)), store.len()), (0, 0), "nobody can ask for it any more");
    }

    proptest! {
        #[test]
        fn whatever_is_put_and_asked_for_the_bytes_are_those_of_the_entries(steps in prop::collection::vec((0..20u64, 0..3u64, 0..900usize, any::<bool>()), 0..200)) {
            let mut store = store(4000);
            for (number, load, size, ask) in steps {
                if ask {
                    let found = store.get(&key(load, number));
                    prop_assert!(found.is_none_or(|answer| u64::from(answer[0].data.first().copied().unwrap_or(0)) == number || answer[0].data.is_empty()));
                } else {
                    store.put(key(load, number), answer(vec![u8::try_from(number).unwrap(); size].into()));
                }
                prop_assert!(store.bytes() <= 4000);
                prop_assert_eq!(store.bytes(), store.loads.values().flat_map(HashMap::values).map(|entry| entry.bytes).sum::<u64>());
                prop_assert_eq!(store.by_use.len(), store.loads.values().map(HashMap::len).sum::<usize>());
            }
        }
    }
}
