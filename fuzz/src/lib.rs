//! Any input to the crate, through the code that compares what comes of it with the reference:
//! [`decode`], [`encode`] and [`session`]. The fuzz targets run it on what libFuzzer makes up;
//! `tests/inputs.rs` on the seeds and on random bytes.

use std::fmt::Debug;

use arbitrary::Arbitrary;

mod cut;
pub mod decode;
pub mod encode;
mod flood;
mod memory;
mod neighbour;
pub mod session;
mod side;

/// An input that is made of any bytes.
pub trait Run: for<'a> Arbitrary<'a> + Debug {
    /// Panics if the crate does not do what its documentation says.
    fn run(&self);
}
