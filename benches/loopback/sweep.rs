//! `--sweep`: compares write lengths by the worst result of each.
//!
//! Tries all links, socket options and sources of payloads with each size, and `BlockTransport` and
//! `send_blocks` with each write length. `LengthDelimitedCodec` has its turn in each round.

use std::fmt;

use support::{
    contenders::Contender,
    load::{Load, Source},
    run::{Rounds, Schedule, of},
    stats::{self, Table, decimals},
    system,
};

use crate::{
    Args, blocks,
    ends::{self, Took},
    link::{Link, Via},
};

/// A write length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Length {
    Default,
    /// A multiple of what the path takes at once.
    Path(usize),
    Bytes(usize),
}

impl Length {
    /// Parses `default`, `path`, `2path` or a number.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "default" {
            return Ok(Self::Default);
        }
        if let Some(times) = text.strip_suffix("path") {
            let times = if times.is_empty() { "1" } else { times };
            return match times.parse() {
                Ok(times @ 1..=16) => Ok(Self::Path(times)),
                _ => Err("not a number from 1 to 16 before `path`".to_owned()),
            };
        }
        crate::parse_size(text).map(Self::Bytes)
    }

    fn write_len(self, path: usize) -> Option<usize> {
        match self {
            Self::Default => None,
            Self::Path(times) => Some(times * path),
            Self::Bytes(bytes) => Some(bytes),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Default => f.write_str("default"),
            Self::Path(1) => f.write_str("path's"),
            Self::Path(times) => write!(f, "{times} × path's"),
            Self::Bytes(bytes) => f.write_str(&stats::grouped(bytes)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Entry {
    Ld,
    Ours(Contender, Length),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ld => Contender::Ld.fmt(f),
            Self::Ours(contender, length) => write!(f, "{contender}, {length}"),
        }
    }
}

/// The figures that are printed for each length.
const COLUMNS: [(Contender, Figure, &str); 4] = [
    (Contender::Transport, Figure::Rate, "BlockTransport"),
    (Contender::Recv, Figure::Rate, "send_blocks"),
    (Contender::Transport, Figure::Cpu, "CPU, BlockTransport"),
    (Contender::Recv, Figure::Cpu, "CPU, send_blocks"),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    /// Throughput, as a ratio to `LengthDelimitedCodec`'s.
    Rate,
    /// Processor time, as a ratio to `LengthDelimitedCodec`'s.
    Cpu,
}

impl Figure {
    /// Returns the worse of two figures. NaN is no figure.
    fn worse(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Rate => a.min(b),
            Self::Cpu => a.max(b),
        }
    }
}

/// Figures by column, length and size.
type Cells = Vec<Vec<Vec<f64>>>;

pub(crate) fn measure(args: &Args, lengths: &[Length]) -> anyhow::Result<()> {
    let mut entries = vec![Entry::Ld];
    for contender in [Contender::Transport, Contender::Recv] {
        entries.extend(lengths.iter().map(|&len| Entry::Ours(contender, len)));
    }
    let links = [Via::Loopback, Via::Veth(1_500), Via::Veth(9_000)];
    let (links, missing): (Vec<_>, Vec<_>) =
        links.into_iter().partition(|via| via.missing().is_none());
    for via in missing {
        println!(
            "{} left out: {}\n",
            via.name(),
            via.missing().unwrap_or_default()
        );
    }
    let sources = args.sweep_sources();
    let tables = links.len() * 2 * sources.len();
    println!(
        "{} MiB a measurement, length-prefixed; {} rounds after one to warm up; over \
         LengthDelimitedCodec\n",
        args.mib, args.rounds
    );
    let schedule = Schedule::new(entries, args.rounds, tables * args.sizes.len());
    let mut worst = empty(lengths.len(), args.sizes.len());
    for &via in &links {
        for nodelay in [true, false] {
            let link = Link::new(via, nodelay)?;
            let path = path_len(&link)?;
            for &source in &sources {
                let cells = one_table(args, lengths, &schedule, &link, path, source)?;
                let option = if nodelay { "on" } else { "off" };
                let (via, source) = (via.name(), source.name());
                args.title(&format!(
                    "{via}, TCP_NODELAY {option}, {source}; the path's length is {}",
                    stats::grouped(path)
                ));
                print(args, lengths, &cells);
                merge(&mut worst, &cells);
            }
        }
    }
    schedule.finish();
    args.title("the worst of all tables");
    print(args, lengths, &worst);
    Ok(())
}

fn empty(lengths: usize, sizes: usize) -> Cells {
    vec![vec![vec![f64::NAN; sizes]; lengths]; COLUMNS.len()]
}

/// Returns how many bytes a connection over `link` takes at once.
fn path_len(link: &Link) -> anyhow::Result<usize> {
    let (near, _far) = link.connect()?;
    Ok(system::path_write_len(&near)?)
}

fn one_table(
    args: &Args,
    lengths: &[Length],
    schedule: &Schedule<Entry>,
    link: &Link,
    path: usize,
    source: Source,
) -> anyhow::Result<Cells> {
    let mut cells = empty(lengths.len(), args.sizes.len());
    for (column, &size) in args.sizes.iter().enumerate() {
        let rounds = schedule.measure(&stats::bytes(size), |entry| {
            let (contender, length) = match entry {
                Entry::Ld => (Contender::Ld, Length::Default),
                Entry::Ours(contender, length) => (contender, length),
            };
            let load = Load {
                size,
                prefixed: true,
                source,
                blocks: blocks(args.mib, size),
                write_len: length.write_len(path),
            };
            ends::throughput(contender, load, link)
        })?;
        for (of_kind, (contender, figure, _)) in cells.iter_mut().zip(COLUMNS) {
            for (of_length, &length) in of_kind.iter_mut().zip(lengths) {
                of_length[column] = ratio(&rounds, Entry::Ours(contender, length), figure);
            }
        }
    }
    Ok(cells)
}

fn ratio(rounds: &Rounds<Took, Entry>, entry: Entry, figure: Figure) -> f64 {
    let values = |entry| -> Vec<f64> {
        let took = of(rounds, entry).unwrap_or_default();
        took.iter()
            .map(|took| match figure {
                Figure::Rate => took.seconds,
                Figure::Cpu => took.cpu.unwrap_or(f64::NAN),
            })
            .collect()
    };
    let (ours, ld) = (values(entry), values(Entry::Ld));
    stats::median(&match figure {
        Figure::Rate => stats::ratios(&ld, &ours),
        Figure::Cpu => stats::ratios(&ours, &ld),
    })
}

/// Keeps the worse of each two figures in `worst`.
fn merge(worst: &mut Cells, cells: &Cells) {
    for ((worst, cells), (_, figure, _)) in worst.iter_mut().zip(cells).zip(COLUMNS) {
        for (worst, cell) in worst.iter_mut().flatten().zip(cells.iter().flatten()) {
            *worst = figure.worse(*worst, *cell);
        }
    }
}

fn print(args: &Args, lengths: &[Length], cells: &Cells) {
    for (cells, (_, _, name)) in cells.iter().zip(COLUMNS) {
        let sizes = args.sizes.iter().map(|&size| stats::bytes(size));
        let heading: Vec<_> = [name.to_owned()].into_iter().chain(sizes).collect();
        let heading: Vec<_> = heading.iter().map(String::as_str).collect();
        let mut table = Table::new(1, &heading);
        for (length, cells) in lengths.iter().zip(cells) {
            let cells = cells.iter().map(|&cell| decimals(cell, 2));
            table.row([length.to_string()].into_iter().chain(cells).collect());
        }
        println!("{}", table.render(args.markdown));
    }
}

impl Args {
    /// Returns the given sources; by default, payloads in the cache and out of it.
    fn sweep_sources(&self) -> Vec<Source> {
        match self.source.sources() {
            [Source::Slices] => vec![Source::Hot, Source::Cold],
            sources => sources.to_vec(),
        }
    }
}
