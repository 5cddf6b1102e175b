use std::{env, io::Write};

use anyhow::Context;
use public_api::Builder;

/// Traits that only the compiler and the standard library use. They change with the compiler.
const INTERNAL: [&str; 3] = [
    "core::marker::Freeze",
    "core::marker::StructuralPartialEq",
    "core::marker::UnsafeUnpin",
];

fn main() -> anyhow::Result<()> {
    let path = env::args().nth(1).context("which rustdoc JSON file?")?;
    // Every type has the blanket impls.
    let api = Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .build()?;
    let lines = api.items().map(|item| item.to_string() + "\n");
    let ours = |line: &String| !INTERNAL.iter().any(|name| line.contains(name));
    let listed: String = lines.filter(ours).collect();
    Ok(std::io::stdout().write_all(listed.as_bytes())?)
}
