//! What the fuzz targets share: configurations and a reference for each, written from the
//! documentation and apart from the crate's code; transports that follow a script; and a count of
//! the memory that is held.

pub mod config;
pub mod flood;
pub mod memory;
pub mod neighbour;
pub mod pipe;
pub mod polls;
pub mod reader;
pub mod reference;
pub mod scripted;
pub mod side;
