//! What the sessions have met: a property that is never tried proves nothing.

use std::{cell::RefCell, collections::BTreeMap};

thread_local! {
    static MET: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Takes note that `what` has happened.
pub(crate) fn met(what: &'static str) {
    MET.with_borrow_mut(|met| *met.entry(what).or_default() += 1);
}

/// Those of `kinds` that have not happened.
pub(crate) fn never_met(kinds: &[&'static str]) -> Vec<&'static str> {
    MET.with_borrow(|met| {
        let never = kinds.iter().filter(|kind| !met.contains_key(*kind));
        never.copied().collect()
    })
}

/// Panics if something has happened that is not in `kinds`, and shows how often each has.
pub(crate) fn assert_known(kinds: &[&'static str]) {
    MET.with_borrow(|met| {
        for (what, count) in met {
            println!("{count:>9} {what}");
        }
        let unknown: Vec<_> = met.keys().filter(|what| !kinds.contains(what)).collect();
        assert!(unknown.is_empty(), "not in the list: {unknown:?}");
    });
}
