//! The small examples print what the comment at their top shows, line by line.

use crate::harness::{check_shown_output, example};

macro_rules! examples {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let name = stringify!($name);
            let source = include_str!(concat!("../../examples/", stringify!($name), ".rs"));
            check_shown_output(example(name), &format!("cargo run --example {name}"), source);
        }
    )*};
}

examples! { echo custom_framing nbd writer_task request_response }
