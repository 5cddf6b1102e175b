//! Every test that needs no process of its own, in one binary, so that shared code is built once. `cargo
//! test --test it recv::` runs one module.

#[macro_use]
mod twice;

mod contract;
mod debug;
mod errors;
mod exhaustive;
mod fairness;
mod framing;
mod handover;
mod in_out;
mod into;
mod io_errors;
mod kept;
mod lend;
mod length_field;
mod limits;
mod memory;
mod migration;
mod mixing;
mod oversize;
mod payload;
mod pieces;
mod reader;
mod reader_timeouts;
mod recv;
mod send;
mod send_from;
mod short_reads;
mod timeouts;
mod transport;
mod transports;
#[cfg(windows)]
mod windows;
