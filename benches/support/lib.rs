//! Shared by the benchmarks: the contenders, what they move, the order in which they run, and the tables.

pub mod by_hand;
pub mod contenders;
pub mod load;
pub mod raw;
pub mod run;
pub mod stats;
pub mod system;
