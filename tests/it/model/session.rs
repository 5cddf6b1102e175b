//! A session: what is planned, and how it goes.

use wholeblock::BlockCodec;

use super::{
    coverage::met,
    incoming::Incoming,
    link::{Begins, Link, Speaks},
    outgoing::{Draft, Outgoing},
    receive::{self, Lend, Lending},
    send::{self, Transfer},
    socket::{Script, Socket},
    wire::{Ending, Stream, Wire},
};

/// More polls than any wait takes.
const ENOUGH: usize = 2_000;

/// Everything that a session is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The wires that it goes through, and the lengths of the blocks that come on each.
    pub(crate) stages: Vec<(Wire, Vec<usize>)>,
    pub(crate) ending: Ending,
    /// Whether the peer goes silent instead of ending the stream.
    pub(crate) silent: bool,
    pub(crate) skips: bool,
    pub(crate) max_retained: Option<usize>,
    pub(crate) begins: Begins,
    pub(crate) reads: Script,
    pub(crate) writes: Script,
    pub(crate) vectored: bool,
    pub(crate) ops: Vec<Op>,
}

/// What one end of a connection does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Next {
        times: usize,
        polls: usize,
    },
    Lend(Lending),
    Feed {
        blocks: Vec<Draft>,
        polls: usize,
        leaked: bool,
    },
    Send {
        block: Draft,
        polls: usize,
    },
    Flush {
        polls: usize,
        leaked: bool,
    },
    Transfer(Transfer),
    Close {
        polls: usize,
    },
    /// Waits on the wire that was spoken, before the next is, and while nothing comes.
    Idle {
        lent: bool,
    },
    /// Another limit, somewhere between the least and the most there can be.
    Limit {
        sender: bool,
        at: usize,
    },
    /// Another form, by its parts or not.
    Turn {
        sender: bool,
        by_parts: bool,
    },
}

struct Session<F> {
    socket: Socket,
    link: Link<F>,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// Runs a session. Panics where it does not go as the model says.
pub(crate) fn run<F: Speaks>(plan: &Plan) {
    let mut session = Session::<F>::new(plan);
    for op in &plan.ops {
        session.step(op);
    }
    session.finish();
}

impl<F: Speaks> Session<F> {
    fn new(plan: &Plan) -> Self {
        let stream = Stream::new(&plan.stages, plan.ending, plan.silent);
        let mut reads = plan.reads.clone();
        reads.piece = reads.piece.max(stream.bytes.len() / 300);
        let (writes, vectored) = (plan.writes.clone(), plan.vectored);
        let socket = Socket::new(&stream.bytes, plan.silent, reads, writes, vectored);
        let wire = stream.wires[0];
        let mut codec = BlockCodec::new(F::speaking(&wire)).skip_too_large(plan.skips);
        if let Some(bytes) = plan.max_retained {
            codec = codec.max_retained(bytes);
        }
        Self {
            link: Link::new(plan.begins, &socket, &codec),
            socket,
            incoming: Incoming::new(stream, plan.skips),
            outgoing: Outgoing::new(wire),
        }
    }

    fn step(&mut self, op: &Op) {
        let Self {
            socket,
            link,
            incoming,
            outgoing,
        } = self;
        match op {
            Op::Next { times, polls } => {
                receive::next(link, incoming, socket, *times, *polls);
            }
            Op::Lend(lending) => receive::lend(link, incoming, socket, lending),
            Op::Feed {
                blocks,
                polls,
                leaked,
            } if !outgoing.closed => {
                send::feed(link, outgoing, socket, blocks, *polls, *leaked);
            }
            Op::Flush { polls, leaked } => {
                send::flush(link, outgoing, socket, *polls, *leaked);
            }
            Op::Transfer(transfer) if !outgoing.closed => {
                send::transfer(link, outgoing, socket, transfer);
            }
            Op::Close { polls } if !outgoing.closed => {
                send::close(link, outgoing, socket, *polls);
            }
            Op::Send { block, polls } if !outgoing.closed => {
                send::send(link, outgoing, socket, *block, *polls);
            }
            Op::Feed { .. } | Op::Send { .. } | Op::Transfer(_) | Op::Close { .. } => {}
            Op::Idle { lent } => receive::idle(link, incoming, socket, *lent),
            Op::Limit { sender, at } => self.limit(*sender, *at),
            Op::Turn { sender, by_parts } => {
                met("another form");
                if !sender || !link.has_halves() {
                    incoming.none_due = false; // the new one knows of no error
                }
                link.turn(*sender, *by_parts);
            }
        }
        self.follow();
    }

    /// Blocks to send go on the wire that the receiver has come to.
    fn follow(&mut self) {
        let stage = self.incoming.stage;
        if self.outgoing.stage < stage {
            self.outgoing.speak(stage, self.incoming.wire());
        }
    }

    fn limit(&mut self, sender: bool, at: usize) {
        if sender {
            let lens = self.outgoing.wire.lens();
            let limit = lens.start() + at % (lens.end() - lens.start() + 1);
            let codec = self.link.sender().codec_mut();
            codec.set_max_encode_len(limit).unwrap();
            assert!(codec.set_max_encode_len(lens.end() + 1).is_err());
            self.outgoing.max = limit;
            return;
        }
        let lens = self.incoming.wire().lens();
        let limit = lens.start() + at % (lens.end() - lens.start() + 1);
        let limit = limit.max(self.incoming.least_limit());
        let end = self.link.receiver();
        end.codec_mut().set_max_decode_len(limit).unwrap();
        let arrived = self.socket.arrived();
        let consumed = arrived - end.read_buffer().len();
        if self.incoming.dead.is_none() {
            self.incoming.limit(limit, consumed, arrived);
        }
    }

    /// Sends and receives all the rest.
    fn finish(mut self) {
        let Self {
            socket,
            link,
            incoming,
            outgoing,
        } = &mut self;
        let mut turns = 0;
        let mut turn = || {
            turns += 1;
            assert!(turns < ENOUGH, "it takes without end");
        };
        while !send::flush(link, outgoing, socket, ENOUGH, false) {
            turn();
        }
        let lent = Lend::Next {
            polls: ENOUGH,
            leaked: false,
        };
        let lending = Lending {
            steps: vec![lent; 2],
            at_least: 0,
            leaked: false,
        };
        while incoming.is_owed() && !incoming.can_end() {
            turn();
            let waits = receive::next(link, incoming, socket, 1, ENOUGH);
            if waits && socket.is_silent() {
                break;
            }
            if incoming.is_owed() {
                receive::lend(link, incoming, socket, &lending);
            }
        }
        // And then the same again and again.
        for _ in 0..2 {
            receive::next(link, incoming, socket, 2, 2);
            receive::lend(link, incoming, socket, &lending);
        }
        while !outgoing.closed {
            turn();
            send::close(link, outgoing, socket, ENOUGH);
        }
    }
}
