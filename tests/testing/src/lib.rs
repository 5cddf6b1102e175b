//! Code that tests, benchmarks and fuzzing share: transports, and a reference for the bytes on the wire,
//! written from the documentation without the crate's code.

#[cfg(feature = "arbitrary")]
mod any;
pub mod blocks;
pub mod config;
pub mod form;
pub mod framings;
pub mod pipe;
pub mod polls;
pub mod programs;
pub mod reader;
pub mod reference;
pub mod scripted;
pub mod watched;
pub mod way;

pub use self::{
    blocks::*,
    form::{FORMS, Form},
    framings::{Case, Line, Magic},
    scripted::{Scripted, Step},
    watched::Watched,
    way::{WAYS, Way},
};
