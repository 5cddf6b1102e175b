//! Another connection on the thread, which leaves its read buffer to the next connection or takes it away.
//! So every input finds the same state, whichever input ran before it.

use std::{future::Future, pin::pin, task::Poll};

use wholeblock::{BlockCodec, BlockTransport};

use testing::{
    KIB,
    polls::Task,
    scripted::{Scripted, Step},
};

/// Enough to fill a buffer of 8, 16, 32 and 64 KiB, and after a wait one more block.
static WIRE: [u8; 121 * KIB] = [0; 121 * KIB];
static READS: [Step; 5] = [Step::All, Step::All, Step::All, Step::All, Step::Pending];

/// Lets a connection receive until its buffer is as large as a batch. The connection returns the buffer when it
/// begins to wait. If it goes on, it takes the buffer again, so that none is left.
pub(crate) fn receive(goes_on: bool) {
    let codec = BlockCodec::exact(KIB).expect("a framing");
    let mut transport = BlockTransport::new(Scripted::sending(&WIRE, READS), codec);
    let task = Task::new();
    let mut poll_batch = || {
        let polled = pin!(transport.recv_batch()).poll(&mut task.context());
        polled.map(|batch| batch.expect("no error").expect("no end").count())
    };
    while poll_batch().is_ready() {}
    if goes_on {
        assert_eq!(poll_batch(), Poll::Ready(1));
    }
}
