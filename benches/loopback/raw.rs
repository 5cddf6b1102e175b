//! The loops over a bare socket, blocking and of tokio.

use std::{
    hint::black_box,
    io::{IoSlice, Read, Write},
    net::TcpStream,
};

use anyhow::ensure;
use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    contenders::BOUNDARY,
    ends::{Load, Start, Took, time},
    support::{
        self,
        memory::{Blocks, PIECE},
    },
};

/// As many as tokio-util passes to one vectored write.
const MAX_SLICES: usize = 64;

/// Payload bytes in one vectored write, or one block if that is larger. Beyond this the kernel
/// takes only a part each time.
const MAX_VECTORED: usize = 1024 * 1024;

/// From this payload length on, copying a block costs more than a slice of its own.
const VECTORED_FROM: usize = 4096;

/// A blocking sender, with the blocking receiver.
pub(crate) fn blocking(
    load: Load,
    send: fn(TcpStream, Load, Start<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Took> {
    time(
        load,
        |socket, start| send(socket, load, start),
        |socket, start| receive(socket, load, start),
    )
}

pub(crate) fn filled(mut socket: TcpStream, load: Load, start: Start<'_>) -> anyhow::Result<()> {
    let wire = support::wire(load.size, load.prefixed);
    let (header, payload) = wire.split_at(load.header_len());
    let mut batch = Vec::with_capacity(PIECE);
    start.line_up();
    for _ in 0..load.blocks {
        if batch.len() + wire.len() > PIECE {
            socket.write_all(&batch)?;
            batch.clear();
        }
        batch.extend_from_slice(header);
        if wire.len() <= PIECE {
            batch.extend_from_slice(payload);
        } else {
            socket.write_all(&batch)?;
            batch.clear();
            socket.write_all(payload)?;
        }
    }
    socket.write_all(&batch)?;
    Ok(())
}

/// As much as leaves as one segment, whatever the link: see `MAX_WRITE` in `src/queue.rs`.
const CUT: usize = 60 * 1024;

pub(crate) fn cut(mut socket: TcpStream, load: Load, start: Start<'_>) -> anyhow::Result<()> {
    let mut blocks = Blocks::new(&support::wire(load.size, load.prefixed), load.blocks);
    start.line_up();
    loop {
        match blocks.piece(CUT) {
            [] => return Ok(()),
            piece => socket.write_all(piece)?,
        }
    }
}

pub(crate) fn vectored(mut socket: TcpStream, load: Load, start: Start<'_>) -> anyhow::Result<()> {
    let wire = support::wire(load.size, load.prefixed);
    let (header, payload) = wire.split_at(load.header_len());
    let pieces: &[&[u8]] = match load.prefixed {
        true => &[header, payload],
        false => &[payload],
    };
    let at_once = (MAX_VECTORED / load.size).clamp(1, MAX_SLICES / pieces.len());
    start.line_up();
    let mut left = load.blocks;
    while left > 0 {
        let count = left.min(at_once as u64);
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut used = 0;
        for _ in 0..count {
            for piece in pieces {
                slices[used] = IoSlice::new(piece);
                used += 1;
            }
        }
        let mut unsent = &mut slices[..used];
        while !unsent.is_empty() {
            let written = socket.write_vectored(unsent)?;
            ensure!(written > 0, "the socket takes nothing");
            IoSlice::advance_slices(&mut unsent, written);
        }
        left -= count;
    }
    Ok(())
}

fn receive(mut socket: TcpStream, load: Load, start: Start<'_>) -> anyhow::Result<u64> {
    let (mut buffer, at_once) = load.read_buffer();
    start.line_up();
    let mut seen = 0;
    while seen < load.blocks {
        let count = at_once.min(load.blocks - seen);
        let bytes = &mut buffer[..count as usize * load.wire_len()];
        socket.read_exact(bytes)?;
        seen += load.look(bytes);
    }
    ensure!(socket.read(&mut buffer)? == 0, "more came than was sent");
    Ok(seen)
}

pub(crate) async fn tokio_send(
    mut socket: tokio::net::TcpStream,
    load: Load,
) -> anyhow::Result<()> {
    let wire = support::wire(load.size, load.prefixed);
    let (header, payload) = wire.split_at(load.header_len());
    let mut batch = Vec::with_capacity(PIECE);
    for _ in 0..load.blocks {
        if load.size >= VECTORED_FROM {
            let mut block = Buf::chain(header, payload);
            socket.write_all_buf(&mut block).await?;
            continue;
        }
        if batch.len() + load.wire_len() > PIECE {
            socket.write_all(&batch).await?;
            batch.clear();
        }
        batch.extend_from_slice(header);
        batch.extend_from_slice(payload);
    }
    socket.write_all(&batch).await?;
    socket.shutdown().await?;
    Ok(())
}

pub(crate) async fn tokio_receive(
    mut socket: tokio::net::TcpStream,
    load: Load,
) -> anyhow::Result<u64> {
    let (mut buffer, at_once) = load.read_buffer();
    let mut seen = 0;
    while seen < load.blocks {
        let count = at_once.min(load.blocks - seen);
        let bytes = &mut buffer[..count as usize * load.wire_len()];
        socket.read_exact(bytes).await?;
        seen += load.look(bytes);
    }
    let after = socket.read(&mut buffer).await?;
    ensure!(after == 0, "more came than was sent");
    Ok(seen)
}

/// The least that any sink does which is given blocks and hands on bytes that lie together.
pub(crate) async fn tokio_send_copied(
    mut socket: tokio::net::TcpStream,
    load: Load,
) -> anyhow::Result<()> {
    let wire = support::wire(load.size, load.prefixed);
    let (header, payload) = wire.split_at(load.header_len());
    let mut buffer = BytesMut::new();
    for _ in 0..load.blocks {
        if buffer.len() >= BOUNDARY {
            socket.write_all(&buffer).await?;
            buffer.clear();
        }
        buffer.put_slice(header);
        buffer.put_slice(payload);
    }
    socket.write_all(&buffer).await?;
    socket.shutdown().await?;
    Ok(())
}

/// The least that any stream does which gives each block as a `BytesMut` of its own.
pub(crate) async fn tokio_receive_owned(
    mut socket: tokio::net::TcpStream,
    load: Load,
) -> anyhow::Result<u64> {
    let room = load.read_room();
    let mut buffer = BytesMut::with_capacity(room);
    let mut seen = 0;
    loop {
        while let Some(len) = load.payload_len(&buffer) {
            buffer.advance(load.header_len());
            black_box(&buffer.split_to(len)[..]);
            seen += 1;
        }
        buffer.reserve(room - buffer.len());
        if socket.read_buf(&mut buffer).await? == 0 {
            return Ok(seen);
        }
    }
}
