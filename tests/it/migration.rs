//! What `docs/migration.md` says: for the settings of other libraries and the headers of protocols, the
//! framing that is the same on the wire, tested with the examples of their own documentation.

mod erlang;
mod ldc;
mod netty;
mod page;
mod protocols;
mod shapes;

use bytes::Bytes;
use testing::{Scripted, WAYS, ready, wire};
use wholeblock::{
    AnyFraming, BlockCodec, BlockTransport, Framing, LengthFieldConfig, check_framing,
};

/// An example: the bytes that a peer sends, and their blocks.
struct Row {
    name: &'static str,
    framing: AnyFraming,
    wire: &'static [u8],
    blocks: &'static [&'static [u8]],
    /// The bytes on the wire if the blocks are sent.
    sent: &'static [u8],
}

impl Row {
    /// Blocks that are sent as they were received.
    fn new(
        name: &'static str,
        framing: impl Into<AnyFraming>,
        wire: &'static [u8],
        blocks: &'static [&'static [u8]],
    ) -> Self {
        Self {
            name,
            framing: framing.into(),
            wire,
            blocks,
            sent: wire,
        }
    }

    fn field(
        name: &'static str,
        config: LengthFieldConfig,
        wire: &'static [u8],
        blocks: &'static [&'static [u8]],
    ) -> Self {
        let framing = config.build().unwrap_or_else(|e| panic!("{name}: {e}"));
        Self::new(name, framing, wire, blocks)
    }

    /// Sets other bytes for sending, because stripped content of a header is sent as zeros.
    fn sent_as(mut self, sent: &'static [u8]) -> Self {
        self.sent = sent;
        self
    }

    fn check(&self) {
        check(self.name, self.framing, self.wire, self.blocks, self.sent);
    }
}

/// Receives `blocks` from `wire` in every way, whole and byte by byte, and sends them as `sent`.
fn check<F: Framing + Copy>(name: &str, framing: F, wire: &[u8], blocks: &[&[u8]], sent: &[u8]) {
    check_framing(&framing).unwrap_or_else(|e| panic!("{name}: {e}"));

    for way in WAYS {
        for chunk in [1, usize::MAX] {
            let io = Scripted::chunked(wire, chunk, false);
            let (received, error) = way.receive(io, BlockCodec::new(framing));
            assert_eq!(received, blocks, "{name}, {way:?}, chunks of {chunk}");
            assert!(error.is_none(), "{name}, {way:?}, {chunk}: {error:?}");
        }
    }

    let blocks: Vec<_> = blocks.iter().map(|b| Bytes::copy_from_slice(b)).collect();
    assert_eq!(self::wire(framing, &blocks), sent, "{name}, encoded");
    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(framing));
    for block in blocks {
        ready(transport.send(block)).unwrap();
    }
    assert_eq!(transport.get_ref().written, sent, "{name}, sent");
}
