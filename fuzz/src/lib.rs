//! Runs the crate on arbitrary input, and compares the results with the reference: [`decode`], [`encode`] and
//! [`session`]. The fuzz targets take their input from libFuzzer. `tests/inputs.rs` takes the seeds and random
//! bytes.

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

/// An input that can be made of any bytes.
pub trait Run: for<'a> Arbitrary<'a> + Debug {
    /// Panics if the crate does not do what its documentation says.
    fn run(&self);
}
