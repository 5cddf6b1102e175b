//! What the benchmarks share: the contenders, what they move, in which order they run, and the
//! tables that come of it.

pub(crate) mod contenders;
pub(crate) mod load;
pub(crate) mod raw;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod system;
