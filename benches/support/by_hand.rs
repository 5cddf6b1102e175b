//! Loops as a program without a codec has them: tokio's `BufWriter` and `BufReader`, a header, `write_all`
//! and `read_exact`.

use std::{hint::black_box, io, sync::mpsc::Sender, time::Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};

use super::{
    contenders::{Io, Moved, Running, Task, micros_since},
    load::{Blocks, Load},
};

/// Bytes of each of the two buffers.
const BUFFER: usize = 64 * 1024;

pub fn run(task: Task, io: impl Io, load: Load) -> Running {
    let end = End {
        io: BufStream::with_capacity(BUFFER, BUFFER, io),
        block: vec![0; load.size],
        load,
    };
    match task {
        Task::Send(source) => Box::pin(send(end, source)),
        Task::Receive => Box::pin(receive(end)),
        Task::Ask(source, micros) => Box::pin(ask(end, source, micros)),
        Task::Echo => Box::pin(echo(end)),
    }
}

struct End<T> {
    io: BufStream<T>,
    /// The last block that was received.
    block: Vec<u8>,
    load: Load,
}

impl<T: Io> End<T> {
    async fn write(&mut self, block: &[u8]) -> io::Result<()> {
        if self.load.prefixed {
            self.io.write_u32(block.len() as u32).await?;
        }
        self.io.write_all(block).await
    }

    /// Reads a block, and returns false at the end.
    async fn read(&mut self) -> io::Result<bool> {
        if self.load.prefixed {
            match self.io.read_u32().await {
                Ok(len) => self.block.resize(len as usize, 0),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        match self.io.read_exact(&mut self.block).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

async fn send(mut end: End<impl Io>, source: Blocks) -> Moved {
    let mut sent = 0;
    for block in source {
        end.write(&block).await?;
        sent += 1;
    }
    end.io.shutdown().await?;
    Ok(sent)
}

async fn receive(mut end: End<impl Io>) -> Moved {
    let mut seen = 0;
    while end.read().await? {
        black_box(&end.block[..]);
        seen += 1;
    }
    Ok(seen)
}

async fn ask(mut end: End<impl Io>, source: Blocks, micros: Sender<f64>) -> Moved {
    let mut trips = 0;
    for block in source {
        let started = Instant::now();
        end.write(&block).await?;
        end.io.flush().await?;
        anyhow::ensure!(end.read().await?, "the end instead of an answer");
        black_box(&end.block[..]);
        micros.send(micros_since(started))?;
        trips += 1;
    }
    end.io.shutdown().await?;
    Ok(trips)
}

async fn echo(mut end: End<impl Io>) -> Moved {
    let mut trips = 0;
    while end.read().await? {
        let block = std::mem::take(&mut end.block);
        end.write(&block).await?;
        end.io.flush().await?;
        end.block = block;
        trips += 1;
    }
    Ok(trips)
}
