//! Medians, and tables to print them in.

use std::fmt::Write;

/// Returns the value that a `share` (0 to 1) of `values` does not exceed. NaN if there are no values.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = share * last as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    below + (above - below) * place.fract()
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Returns the ratio within each round. If the machine is slow for a while, both sides of a ratio are slow.
pub fn ratios(over: &[f64], under: &[f64]) -> Vec<f64> {
    over.iter().zip(under).map(|(o, u)| o / u).collect()
}

/// Formats a number of bytes with the units of `--sizes`.
pub fn bytes(count: usize) -> String {
    match count {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n % (1 << 10) == 0 && n < 50 << 10 => format!("{} KiB", n >> 10),
        n => format!("{} B", grouped(n)),
    }
}

/// Formats `value` with `places` decimals, and NaN as a dash.
pub fn decimals(value: f64, places: usize) -> String {
    match value.is_nan() {
        true => "-".to_owned(),
        false => format!("{value:.places$}"),
    }
}

/// Formats `count` with a comma every three digits.
pub fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A table as padded columns or as Markdown.
#[derive(Debug)]
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
    /// How many columns at the left are names; numbers are right-aligned.
    names: usize,
}

impl Table {
    pub fn new(names: usize, heading: &[&str]) -> Self {
        Self {
            heading: heading.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
            names,
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn render(&self, markdown: bool) -> String {
        let lines = || std::iter::once(&self.heading).chain(&self.rows);
        let width = |column: usize| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.heading.len()).map(width).collect();
        let mut out = String::new();
        for (index, line) in lines().enumerate() {
            let cells = line.iter().zip(&widths).enumerate();
            let cells: Vec<_> = cells
                .map(|(column, (cell, &width))| match column < self.names {
                    true => format!("{cell:<width$}"),
                    false => format!("{cell:>width$}"),
                })
                .collect();
            push_line(&mut out, &cells, markdown);
            if index == 0 {
                let rules = widths.iter().enumerate();
                let rules: Vec<_> = rules
                    .map(|(column, &width)| match markdown && column >= self.names {
                        true => format!("{}:", "-".repeat(width - 1)),
                        false => "-".repeat(width),
                    })
                    .collect();
                push_line(&mut out, &rules, markdown);
            }
        }
        out
    }
}

fn push_line(out: &mut String, cells: &[String], markdown: bool) {
    // Writing to a `String` cannot fail.
    let _ = match markdown {
        true => writeln!(out, "| {} |", cells.join(" | ")),
        false => writeln!(out, "{}", cells.join("  ").trim_end()),
    };
}
