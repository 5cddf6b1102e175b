//! The error of a codec must be able to say what a transport and a block did wrong.

use std::fmt;

use wholeblock::BlockCodec;

fn main() {
    let _ = BlockCodec::length_prefixed().err_into::<fmt::Error>();
}
