//! What the benchmarks share: the contenders, what they move, in which order they run, and the
//! tables that come of it.

pub mod by_hand;
pub mod contenders;
pub mod load;
pub mod raw;
pub mod run;
pub mod stats;
pub mod system;
