//! What the sessions have met: a property that is never tried proves nothing.

use std::{cell::RefCell, collections::BTreeMap};

thread_local! {
    static MET: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Takes note that `what` has happened.
pub(crate) fn met(what: &'static str) {
    MET.with_borrow_mut(|met| *met.entry(what).or_default() += 1);
}

/// Panics unless each of `kinds` has been met, and nothing else.
pub(crate) fn assert_all_met(kinds: &[&'static str]) {
    MET.with_borrow(|met| {
        for (what, count) in met {
            println!("{count:>9} {what}");
        }
        let missing: Vec<_> = kinds.iter().filter(|k| !met.contains_key(*k)).collect();
        assert!(missing.is_empty(), "never met: {missing:?}");
        let unknown: Vec<_> = met.keys().filter(|what| !kinds.contains(what)).collect();
        assert!(unknown.is_empty(), "not in the list: {unknown:?}");
    });
}
