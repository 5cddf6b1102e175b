//! Speaks PostgreSQL's protocol to a real server: logs in, reads rows and copies rows in. `tokio-postgres` does
//! the same in turns with it, and the times of both are compared.
//!
//! ```text
//! PGPASSWORD=secret cargo run --release -p postgres -- --connect 127.0.0.1:5432
//!
//! logged in to 127.0.0.1:5432 as postgres: PostgreSQL 15.18 (...)
//! query:   50000 rows, 3.5 MB: 43.3 ms; tokio-postgres 44.2 ms, 1.06 times as long
//! copy in: 611112 rows, 50.0 MB: 238.8 ms; tokio-postgres 238.4 ms, 0.94 times as long
//! ```
//!
//! Nearly all of that is the server's time. `.ci/postgres` starts a server and runs this example.
//!
//! `wholeblock` does only the framing: see `connection.rs`. The program checks every row, and lets the server
//! count what was copied in. `--help` lists the options.

mod connection;

use std::{
    env,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Parser;
use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut, stream};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use connection::{Connection, Login, copy_data};

/// Bytes of lines in one message to copy in. `psql` and others send as much at once, or less.
const COPY_MESSAGE: usize = 64 * 1024;

/// Reads from PostgreSQL and copies into it, by its own protocol and by tokio-postgres
#[derive(Parser, Debug)]
struct Args {
    /// The server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5432")]
    connect: String,

    /// Whom to log in as; the password is taken from PGPASSWORD
    #[arg(long, default_value = "postgres")]
    user: String,

    /// The database; only a temporary table is made in it
    #[arg(long, default_value = "postgres")]
    database: String,

    /// Rows to read
    #[arg(long, default_value = "50000")]
    rows: u64,

    /// Megabytes to copy in
    #[arg(long, value_name = "MB", default_value = "50")]
    copy: usize,

    /// How often to do each, by turns; the medians are shown
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(start(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: &Args) -> anyhow::Result<()> {
    let password = env::var("PGPASSWORD").ok();
    let login = Login {
        user: &args.user,
        database: &args.database,
        password: password.as_deref(),
    };
    let cannot = || format!("cannot log in to {} as {}", args.connect, args.user);
    let mut ours = Connection::open(&args.connect, &login)
        .await
        .with_context(cannot)?;
    let mut version = String::new();
    ours.query("SELECT version()", |row| {
        let [text] = row.columns()?;
        version = text.unwrap_or_default().to_owned();
        Ok(())
    })
    .await?;
    println!("logged in to {} as {}: {version}", args.connect, args.user);
    let theirs = tokio_postgres_client(args, password.as_deref())
        .await
        .with_context(cannot)?;

    read(args, &mut ours, &theirs)
        .await
        .context("reading rows")?;
    copy(args, &mut ours, &theirs).await.context("copying in")?;
    ours.close().await
}

async fn tokio_postgres_client(
    args: &Args,
    password: Option<&str>,
) -> anyhow::Result<tokio_postgres::Client> {
    let (host, port) = args
        .connect
        .rsplit_once(':')
        .context("HOST:PORT is expected")?;
    let mut config = tokio_postgres::Config::new();
    config
        .host(host)
        .port(port.parse()?)
        .user(&args.user)
        .dbname(&args.database);
    if let Some(password) = password {
        config.password(password);
    }
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Reads rows whose contents follow from their number.
async fn read(
    args: &Args,
    ours: &mut Connection,
    theirs: &tokio_postgres::Client,
) -> anyhow::Result<()> {
    let sql = format!(
        "SELECT n, repeat(chr(97 + (n % 26)::int), (n % 100)::int) \
         FROM generate_series(1, {}) AS n ORDER BY n",
        args.rows
    );
    let mut times = Times::default();
    let mut bytes = 0;
    for _ in 0..args.rounds {
        let (mut rows, started) = (0, Instant::now());
        bytes = ours
            .query(&sql, |row| {
                rows += 1;
                check(rows, row.columns()?)
            })
            .await?;
        times.ours.push(started.elapsed());
        ensure!(rows == args.rows, "{rows} rows came, and not {}", args.rows);

        let (mut rows, started) = (0, Instant::now());
        let messages = theirs.simple_query_raw(&sql).await?;
        pin_mut!(messages);
        while let Some(message) = messages.try_next().await? {
            if let SimpleQueryMessage::Row(row) = message {
                rows += 1;
                check(rows, [row.get(0), row.get(1)])?;
            }
        }
        times.theirs.push(started.elapsed());
        ensure!(
            rows == args.rows,
            "tokio-postgres: {rows} rows came, and not {}",
            args.rows
        );
    }
    println!(
        "query:   {} rows, {:.1} MB: {times}",
        args.rows,
        bytes as f64 / 1e6
    );
    Ok(())
}

/// Fails unless `columns` are those of row `n`.
fn check(n: u64, columns: [Option<&str>; 2]) -> anyhow::Result<()> {
    let [Some(number), Some(text)] = columns else {
        anyhow::bail!("row {n} has a null");
    };
    let letter = b'a' + (n % 26) as u8;
    let right = number.parse() == Ok(n)
        && text.len() as u64 == n % 100
        && text.bytes().all(|byte| byte == letter);
    ensure!(right, "row {n} reads {number:?}, {text:?}");
    Ok(())
}

/// Copies lines into a temporary table, and lets the server count them.
async fn copy(
    args: &Args,
    ours: &mut Connection,
    theirs: &tokio_postgres::Client,
) -> anyhow::Result<()> {
    let (lines, chunks) = lines(args.copy * 1_000_000);
    let framed: Vec<Bytes> = chunks.iter().map(|chunk| copy_data(chunk)).collect();
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    let create = "CREATE TEMPORARY TABLE copied (n bigint, text text)";
    let (empty, copy) = ("TRUNCATE copied", "COPY copied FROM STDIN");
    let count = "SELECT count(*), coalesce(sum(n), 0), coalesce(sum(length(text)), 0) FROM copied";
    ours.query(create, |_| Ok(())).await?;
    theirs.simple_query(create).await?;

    let mut times = Times::default();
    let mut copied = [String::new(), String::new()];
    for _ in 0..args.rounds {
        ours.query(empty, |_| Ok(())).await?;
        let started = Instant::now();
        ours.copy_in(copy, framed.iter().cloned()).await?;
        times.ours.push(started.elapsed());

        theirs.simple_query(empty).await?;
        let started = Instant::now();
        let sink = theirs.copy_in(copy).await?;
        pin_mut!(sink);
        sink.send_all(&mut stream::iter(chunks.iter().cloned()).map(Ok))
            .await?;
        sink.finish().await?;
        times.theirs.push(started.elapsed());
    }
    ours.query(count, |row| {
        let columns: [_; 3] = row.columns()?;
        copied[0] = columns.map(Option::unwrap_or_default).join(" ");
        Ok(())
    })
    .await?;
    for message in theirs.simple_query(count).await? {
        if let SimpleQueryMessage::Row(row) = message {
            copied[1] = [0, 1, 2]
                .map(|column| row.get(column).unwrap_or_default())
                .join(" ");
        }
    }
    let expected = format!(
        "{lines} {} {}",
        lines * (lines + 1) / 2,
        lines * TEXT.len() as u64
    );
    for (name, copied) in [("wholeblock", &copied[0]), ("tokio-postgres", &copied[1])] {
        ensure!(
            *copied == expected,
            "{name}: the server counts {copied}, and not {expected}"
        );
    }
    println!(
        "copy in: {lines} rows, {:.1} MB: {times}",
        bytes as f64 / 1e6
    );
    Ok(())
}

/// The text of each line, after its number.
const TEXT: &str = "The quick brown fox jumps over the lazy dog, and the dog goes on sleeping.";

/// Returns about `bytes` bytes of lines, in messages, and the number of lines.
fn lines(bytes: usize) -> (u64, Vec<Bytes>) {
    let (mut count, mut total, mut chunks) = (0, 0, Vec::new());
    while total < bytes {
        let mut chunk = String::with_capacity(COPY_MESSAGE + 100);
        while chunk.len() < COPY_MESSAGE.min(bytes - total) {
            count += 1;
            chunk.push_str(&format!("{count}\t{TEXT}\n"));
        }
        total += chunk.len();
        chunks.push(chunk.into());
    }
    (count, chunks)
}

/// The times of both, round by round.
#[derive(Default)]
struct Times {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let median = |values: &mut dyn Iterator<Item = f64>| {
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let millis =
            |times: &[Duration]| median(&mut times.iter().map(|time| time.as_secs_f64() * 1e3));
        let ratios = self.theirs.iter().zip(&self.ours);
        let ratio =
            median(&mut ratios.map(|(theirs, ours)| theirs.as_secs_f64() / ours.as_secs_f64()));
        write!(
            f,
            "{:.1} ms; tokio-postgres {:.1} ms, {ratio:.2} times as long",
            millis(&self.ours),
            millis(&self.theirs)
        )
    }
}
