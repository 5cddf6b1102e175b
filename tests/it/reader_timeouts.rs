//! Timeouts of a block that is received part by part: while it is read, between two reads, and while the
//! rest that a reader has left is discarded.

use std::{thread, time::Instant as WallInstant};

use futures::{FutureExt, StreamExt, future::join};
use testing::{Form, KIB, MIB, transport};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, interval, sleep, timeout},
};
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockTransport, Exact, LengthPrefix, recv_blocks,
};

use crate::timeouts::{
    SECOND, TIMEOUT, assert_late, assert_stalled, flood, occupy_thread, trickle,
};

/// How a reader is asked for more.
#[derive(Clone, Copy, Debug)]
enum Asking {
    FillBuf,
    /// `read` through the buffer.
    Read,
    /// `read` straight into the memory of the caller.
    Straight,
}

const ASKINGS: [Asking; 3] = [Asking::FillBuf, Asking::Read, Asking::Straight];

/// Reads what is there, and returns its length.
async fn ask<R: AsyncBufRead + Unpin>(reader: &mut R, asking: Asking) -> Result<usize, BlockError> {
    match asking {
        Asking::FillBuf => {
            let lent = reader.fill_buf().await?.len();
            reader.consume(lent);
            Ok(lent)
        }
        Asking::Read => Ok(reader.read(&mut [0; 100]).await?),
        Asking::Straight => Ok(reader.read(&mut vec![0; 20_000]).await?),
    }
}

/// The header of a block of 1 MiB.
const MIB_HEADER: &[u8] = b"\0\x10\0\0";

async fn reader_goes_on_after_a_stall_inside_a_block() {
    for asking in ASKINGS {
        let (mut near, far) = duplex(64);
        let mut transport = transport(far).stall_timeout(30 * SECOND);
        near.write_all(MIB_HEADER).await.unwrap();
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        for _ in 0..2 {
            let begun = Instant::now();
            for waits in 1..3 {
                let error = ask(&mut reader, asking).await.unwrap_err();
                assert_stalled(&error);
                assert_eq!(begun.elapsed(), 30 * waits * SECOND, "{asking:?}");
            }
            near.write_all(b"more").await.unwrap();
            assert_eq!(ask(&mut reader, asking).await.unwrap(), 4, "{asking:?}");
        }
        assert_eq!(reader.remaining(), MIB as u64 - 8);
    }
}

async fn bytes_that_arrive_as_the_timeout_ends_are_read() {
    for asking in ASKINGS {
        let (mut near, far) = duplex(64);
        let mut transport = transport(far).stall_timeout(30 * SECOND);
        near.write_all(MIB_HEADER).await.unwrap();
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        for _ in 0..3 {
            let sending = async {
                sleep(30 * SECOND).await;
                near.write_all(b"late").await.unwrap();
            };
            let (read, ()) = join(ask(&mut reader, asking), sending).await;
            assert_eq!(read.unwrap(), 4, "{asking:?}");
        }
    }
}

async fn time_between_two_reads_does_not_stall_a_reader() {
    for asking in ASKINGS {
        let (mut near, far) = duplex(64);
        let mut transport = transport(far).stall_timeout(30 * SECOND);
        near.write_all(MIB_HEADER).await.unwrap();
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        for _ in 0..3 {
            sleep(100 * SECOND).await;
            near.write_all(b"more").await.unwrap();
            assert_eq!(ask(&mut reader, asking).await.unwrap(), 4, "{asking:?}");
        }
        // As for a stream, the first timeout that is found too late is forgiven.
        assert!(timeout(SECOND, ask(&mut reader, asking)).await.is_err());
        sleep(100 * SECOND).await;
        let begun = Instant::now();
        assert_stalled(&ask(&mut reader, asking).await.unwrap_err());
        assert_eq!(begun.elapsed(), 30 * SECOND, "{asking:?}");
    }
}

async fn wait_of_a_reader_does_not_count_for_the_next_future() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).stall_timeout(30 * SECOND);
    near.write_all(MIB_HEADER).await.unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    assert!(timeout(20 * SECOND, reader.read_u8()).await.is_err());
    drop(reader);
    let begun = Instant::now();
    assert_stalled(&transport.recv().await.unwrap_err());
    assert_eq!(begun.elapsed(), 30 * SECOND);
}

async fn wait_of_a_dropped_reader_counts_for_the_stream() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).stall_timeout(30 * SECOND);
    near.write_all(MIB_HEADER).await.unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    assert!(timeout(20 * SECOND, reader.read_u8()).await.is_err());
    drop(reader);
    sleep(100 * SECOND).await; // a second of it counts
    let begun = Instant::now();
    let error = StreamExt::next(&mut transport).await.unwrap().unwrap_err();
    assert_stalled(&error);
    assert_eq!(begun.elapsed(), 9 * SECOND);
}

async fn dropped_waits_for_a_reader_add_up() {
    let (_near, far) = duplex(64);
    let mut transport = transport(far).stall_timeout(30 * SECOND);
    assert!(timeout(SECOND, transport.recv_reader()).await.is_err());
    sleep(100 * SECOND).await; // a second of it counts
    let begun = Instant::now();
    assert_stalled(&transport.recv_reader().await.unwrap_err());
    assert_eq!(begun.elapsed(), 28 * SECOND);
    // A new wait begins, whatever time has passed since.
    sleep(100 * SECOND).await;
    let begun = Instant::now();
    assert_stalled(&transport.recv_reader().await.unwrap_err());
    assert_eq!(begun.elapsed(), 30 * SECOND);
}

async fn trickling_block_is_late_to_its_reader_again_and_again() {
    for asking in ASKINGS {
        let (mut near, far) = duplex(64);
        let mut transport = transport(far)
            .stall_timeout(5 * SECOND)
            .block_deadline(10 * SECOND);
        near.write_all(MIB_HEADER).await.unwrap();
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        let begun = Instant::now();
        let near = trickle(near, b"trickling along", 2 * SECOND);
        let mut read = 0;
        for waits in 1..3 {
            let error = loop {
                match ask(&mut reader, asking).await {
                    Ok(bytes) => read += bytes,
                    Err(error) => break error,
                }
            };
            assert_late(&error, 10 * SECOND, 0, 0);
            assert_eq!(begun.elapsed(), 10 * waits * SECOND, "{asking:?}");
        }
        while read < 15 {
            read += ask(&mut reader, asking).await.unwrap();
        }
        drop(near);
    }
}

async fn deadline_runs_while_nobody_reads() {
    for asking in ASKINGS {
        let (mut near, far) = duplex(64);
        let mut transport = transport(far).block_deadline(10 * SECOND);
        near.write_all(MIB_HEADER).await.unwrap();
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        near.write_all(b"some").await.unwrap();
        assert_eq!(ask(&mut reader, asking).await.unwrap(), 4);
        near.write_all(b"more").await.unwrap();
        sleep(60 * SECOND).await;
        let late = ask(&mut reader, asking).now_or_never().expect("at once");
        assert_late(&late.unwrap_err(), 10 * SECOND, 0, 0);
        assert_eq!(ask(&mut reader, asking).await.unwrap(), 4, "{asking:?}");
    }
}

async fn unread_rest_stalls_and_is_late_before_it_is_discarded() {
    for form in [
        Form::Next,
        Form::Recv,
        Form::Batch,
        Form::Into,
        Form::Reader,
        Form::Helper,
    ] {
        let (mut near, far) = duplex(64);
        let mut transport = transport(far)
            .stall_timeout(4 * SECOND)
            .block_deadline(10 * SECOND);
        near.write_all(b"\0\0\0\x09\0\0").await.unwrap();
        drop(transport.recv_reader().await.unwrap().unwrap());
        let begun = Instant::now();
        for at in [4, 8, 10] {
            let error = wait_for_error(&mut transport, form).await;
            match at {
                10 => assert_late(&error, 10 * SECOND, 0, 0),
                _ => assert_stalled(&error),
            }
            assert_eq!(begun.elapsed(), at * SECOND, "{form:?}");
        }
        near.write_all(b"\0\x05decoy\0\0\0\x04next").await.unwrap();
        let next = transport.next().await.unwrap().unwrap();
        assert_eq!(next, "next", "{form:?}");
    }
}

/// Returns the error of the next block, received in `form`.
async fn wait_for_error(
    transport: &mut BlockTransport<DuplexStream, LengthPrefix>,
    form: Form,
) -> BlockError {
    match form {
        Form::Recv => transport.recv().await.map(drop).unwrap_err(),
        Form::Batch => transport.recv_batch().await.map(drop).unwrap_err(),
        Form::Into => transport.recv_into(&mut [0; 9]).await.unwrap_err(),
        Form::Reader => transport.recv_reader().await.map(drop).unwrap_err(),
        Form::Helper => recv_blocks(transport).next().await.map(drop).unwrap_err(),
        _ => transport.next().await.unwrap().unwrap_err(),
    }
}

async fn block_with_bytes_always_ready_is_late_to_its_reader() {
    for (asking, piece) in ASKINGS.into_iter().flat_map(|a| [(a, 64 * KIB), (a, 8)]) {
        let head = b"@\0\0\0\0\0\0\0"; // 2^62 bytes
        for io in [flood(head, piece).spending(), flood(head, piece)] {
            let begun = WallInstant::now();
            let codec = BlockCodec::new(LengthPrefix::u64());
            let mut transport = BlockTransport::new(io, codec).block_deadline(TIMEOUT / 4);
            let mut reader = transport.recv_reader().await.unwrap().unwrap();
            let error = loop {
                if let Err(error) = ask(&mut reader, asking).await {
                    break error;
                }
            };
            assert_late(&error, TIMEOUT / 4, 0, 0);
            assert!(begun.elapsed() >= TIMEOUT / 4);
            ask(&mut reader, asking).await.unwrap();
            drop(reader);
            // The whole deadline once more, while the rest is discarded.
            let error = transport.recv().await.unwrap_err();
            assert_late(&error, TIMEOUT / 4, 0, 0);
            assert!(begun.elapsed() >= TIMEOUT / 2);
            assert!(begun.elapsed() < 10 * SECOND, "{asking:?}, {piece}");
        }
    }
}

async fn busy_thread_delays_the_timeouts_of_a_reader_and_does_not_prevent_them() {
    let begun = WallInstant::now();
    occupy_thread(TIMEOUT / 4);
    for asking in ASKINGS {
        let (mut near, far) = duplex(64);
        near.write_all(MIB_HEADER).await.unwrap();
        let mut transport = transport(far).stall_timeout(TIMEOUT / 10);
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        assert_stalled(&ask(&mut reader, asking).await.unwrap_err());
        drop(reader);
        let mut transport = transport.block_deadline(TIMEOUT / 100);
        let late = transport.recv_reader().await.unwrap_err();
        assert_late(&late, TIMEOUT / 100, 0, 0);
    }
    assert!(begun.elapsed() < 30 * SECOND, "{:?}", begun.elapsed());
}

async fn busy_select_loop_still_stalls_inside_a_block() {
    let (mut near, far) = duplex(64);
    near.write_all(MIB_HEADER).await.unwrap();
    let mut transport = transport(far).stall_timeout(TIMEOUT / 4);
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    // Always ready, because each turn takes longer.
    let mut ticks = interval(TIMEOUT / 10);
    for blocking in [false, true].into_iter().cycle().take(40) {
        tokio::select! {
            read = reader.read_u8() => {
                assert_stalled(&read.unwrap_err().into());
                return;
            }
            _ = ticks.tick() => match blocking {
                false => sleep(TIMEOUT / 2).await,
                true => thread::sleep(TIMEOUT / 2),
            }
        }
    }
    panic!("no stall was seen");
}

async fn reader_whose_rest_has_arrived_is_never_late() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).block_deadline(10 * SECOND);
    near.write_all(b"\0\0\0\x08some").await.unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    assert_eq!(reader.fill_buf().await.unwrap(), b"some");
    reader.consume(4);
    near.write_all(b"more").await.unwrap();
    assert_eq!(reader.fill_buf().await.unwrap(), b"more");
    reader.consume(1);
    sleep(100 * SECOND).await;
    assert_eq!(reader.fill_buf().await.unwrap(), b"ore");
}

async fn reader_at_the_end_of_its_block_is_never_late() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).block_deadline(10 * SECOND);
    // The next block is unfinished.
    near.write_all(b"\0\0\0\x05hello\0\0\0\x05ag")
        .await
        .unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    reader.read_exact(&mut [0; 5]).await.unwrap();
    for _ in 0..3 {
        assert!(reader.fill_buf().await.unwrap().is_empty());
        assert_eq!(reader.read(&mut [0; 20_000]).await.unwrap(), 0);
        sleep(20 * SECOND).await;
    }
}

async fn last_bytes_that_have_arrived_are_read_however_late() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).block_deadline(10 * SECOND);
    near.write_all(b"\0\0\0\x05hel").await.unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    assert_eq!(reader.fill_buf().await.unwrap(), b"hel");
    reader.consume(2);
    near.write_all(b"lo\0\0\0").await.unwrap();
    sleep(9 * SECOND).await;
    reader.consume(1);
    assert_eq!(reader.fill_buf().await.unwrap(), b"lo");
    sleep(20 * SECOND).await;
    assert_eq!(reader.fill_buf().await.unwrap(), b"lo");
    let mut rest = [0; 2];
    reader.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"lo");
}

async fn deadline_of_a_block_begins_when_its_reader_is_made() {
    for (framing, sent) in [
        (
            AnyFraming::from(LengthPrefix::u32()),
            &b"\0\0\0\x05hell"[..],
        ),
        (Exact::new(5).unwrap().into(), b"hell"),
    ] {
        let (mut near, far) = duplex(64);
        let codec = BlockCodec::new(framing);
        let mut transport = BlockTransport::new(far, codec).block_deadline(10 * SECOND);
        near.write_all(sent).await.unwrap();
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        let begun = Instant::now();
        sleep(4 * SECOND).await;
        let error = reader.read_exact(&mut [0; 5]).await.unwrap_err();
        assert_late(&error.into(), 10 * SECOND, 0, 0);
        assert_eq!(begun.elapsed(), 10 * SECOND);
    }
}

twice! {
    paused {
        reader_goes_on_after_a_stall_inside_a_block,
        bytes_that_arrive_as_the_timeout_ends_are_read,
        time_between_two_reads_does_not_stall_a_reader,
        wait_of_a_reader_does_not_count_for_the_next_future,
        wait_of_a_dropped_reader_counts_for_the_stream,
        dropped_waits_for_a_reader_add_up,
        trickling_block_is_late_to_its_reader_again_and_again,
        deadline_runs_while_nobody_reads,
        unread_rest_stalls_and_is_late_before_it_is_discarded,
        reader_whose_rest_has_arrived_is_never_late,
        reader_at_the_end_of_its_block_is_never_late,
        last_bytes_that_have_arrived_are_read_however_late,
        deadline_of_a_block_begins_when_its_reader_is_made,
    }
    passes {
        block_with_bytes_always_ready_is_late_to_its_reader,
        busy_thread_delays_the_timeouts_of_a_reader_and_does_not_prevent_them,
        busy_select_loop_still_stalls_inside_a_block,
    }
}
