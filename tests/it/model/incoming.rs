//! What a receiver is to be given next.

use wholeblock::BlockError;

use super::{
    coverage::met,
    socket::Socket,
    wire::{Coming, Stream, Wire},
};

#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) stream: Stream,
    /// The first block that was not received, nor known to be skipped.
    pub(crate) next: usize,
    /// Which of the wires the codec speaks.
    pub(crate) stage: usize,
    /// Whether blocks over the limit are skipped.
    pub(crate) skips: bool,
    limit: usize,
    /// The limits that may hold for the next block: a new one need not, where it has begun.
    of_next: Vec<usize>,
    /// Whether the last poll was in vain: what has arrived has been looked at.
    waited: bool,
    /// Whether the stream has just given an error, and is to give an end.
    pub(crate) none_due: bool,
    /// The error after which there are no more blocks.
    pub(crate) dead: Option<String>,
}

impl Incoming {
    pub(crate) fn new(stream: Stream, skips: bool) -> Self {
        let limit = *stream.wires[0].lens().end();
        Self {
            stream,
            next: 0,
            stage: 0,
            skips,
            limit,
            of_next: vec![limit],
            waited: false,
            none_due: false,
            dead: None,
        }
    }

    pub(crate) fn wire(&self) -> Wire {
        self.stream.wires[self.stage]
    }

    /// Blocks that will surely come on the wire that the codec speaks. What is behind them is to be
    /// read on another.
    pub(crate) fn remaining(&self) -> usize {
        let sent = &self.stream.blocks;
        if self.stream.stage_of(sent.len()) == self.stage {
            return usize::MAX;
        }
        let rest = sent.iter().skip(self.next);
        let on_this: Vec<_> = rest.take_while(|s| s.stage == self.stage).collect();
        let least = self.of_next.iter().min().copied().unwrap_or(0);
        let limits = std::iter::once(least).chain(std::iter::repeat(self.limit));
        let sure = on_this.iter().zip(limits).filter(|(s, max)| s.len <= *max);
        sure.count().max(usize::from(!on_this.is_empty()))
    }

    /// Goes on with the next wire. Returns whether there is one.
    pub(crate) fn go_on(&mut self) -> bool {
        if self.remaining() > 0 {
            return false;
        }
        self.stage += 1;
        self.limit = *self.wire().lens().end();
        self.of_next = vec![self.limit];
        self.waited = false;
        true
    }

    /// Everything that may come next: the block that it is about, and what comes of it.
    fn outcomes(&self) -> Vec<(usize, Coming)> {
        let outcome = |&limit: &usize| {
            let (mut index, mut limit) = (self.next, limit);
            let all = self.stream.bytes.len();
            while self.skips
                && self.stream.is_whole(index, all)
                && self.stream.blocks[index].len > limit
            {
                (index, limit) = (index + 1, self.limit);
            }
            (index, self.stream.coming(index, limit, self.skips))
        };
        self.of_next.iter().map(outcome).collect()
    }

    /// Panics unless `block` is the next one.
    pub(crate) fn take(&mut self, block: &[u8]) {
        assert!(self.dead.is_none(), "a block after {:?}", self.dead);
        let outcomes = self.outcomes();
        let is_it = |(index, coming): &&(usize, Coming)| {
            *coming == Coming::Block && self.stream.blocks[*index].block == block
        };
        let Some(&(index, _)) = outcomes.iter().find(is_it) else {
            panic!("{} bytes instead of {outcomes:?}", block.len());
        };
        if index > self.next {
            met("a block skipped");
        }
        self.next = index + 1;
        self.of_next = vec![self.limit];
        self.waited = false;
    }

    /// Panics unless the stream is to end with `error`.
    pub(crate) fn fail(&mut self, error: &BlockError) {
        let error = match error {
            BlockError::InvalidHeader { index, offset, .. } => {
                format!("InvalidHeader, block {index} at {offset}")
            }
            error => format!("{error:?}"),
        };
        met(match error.split_once([' ', ',']) {
            Some(("Truncated", rest)) if rest.contains("Header") => "an end in a header",
            Some(("Truncated", _)) => "an end in a payload",
            Some(("TooLarge", _)) => "a block over the limit",
            Some(("InvalidHeader", _)) => "an invalid header",
            _ => panic!("{error}"),
        });
        if let Some(first) = &self.dead {
            return assert_eq!(error, *first, "the same again");
        }
        let outcomes = self.outcomes();
        let expected = Coming::Error(error.clone());
        let is_it = |(_, coming): &(usize, Coming)| *coming == expected;
        assert!(
            outcomes.iter().any(is_it),
            "{error} instead of {outcomes:?}"
        );
        self.dead = Some(error);
    }

    /// Panics unless the stream has ended, or has failed before.
    pub(crate) fn end(&self) {
        met("a clean end");
        let outcomes = self.outcomes();
        let has_ended = outcomes.iter().any(|(_, coming)| *coming == Coming::End);
        assert!(
            self.dead.is_some() || has_ended,
            "an end instead of {outcomes:?}"
        );
    }

    /// Panics unless there is reason to be pending after so many polls.
    pub(crate) fn wait(&mut self, polls: usize, socket: &Socket) {
        if polls == 0 {
            return met("a future dropped before it is polled");
        }
        self.waited = true;
        assert!(self.dead.is_none(), "pending after {:?}", self.dead);
        if socket.is_silent() {
            met("silence");
            let outcomes = self.outcomes();
            let silent = outcomes
                .iter()
                .any(|(_, coming)| *coming == Coming::Silence);
            assert!(silent, "pending instead of {outcomes:?}");
        }
    }

    /// A whole block has been found. Should it be left, in a batch of which none is taken, a limit
    /// that is set then may hold for it or not.
    pub(crate) fn meet(&mut self) {
        self.waited = false;
    }

    /// Takes note of an error of the socket.
    pub(crate) fn interrupt(&mut self) {
        met("a read that failed");
        self.waited = true;
    }

    /// Panics unless all that was read and is not in the buffer is what was received.
    pub(crate) fn assert_consumed(&self, consumed: usize, arrived: usize) {
        let next = self.stream.offset_of(self.next);
        let places = next..=if self.skips { arrived.max(next) } else { next };
        assert!(
            self.dead.is_some() || places.contains(&consumed),
            "{consumed} bytes are gone, and {next} were received"
        );
    }

    /// After a receiver was leaked: what it lent since `first` and what is still in the buffer comes
    /// again.
    pub(crate) fn rewind(&mut self, first: usize, consumed: usize) {
        let is_there = |&index: &usize| self.stream.offset_of(index) == consumed;
        if let Some(index) = (first..self.next).find(is_there) {
            met("blocks that come again after a leak");
            self.go_back(index);
        }
    }

    /// The `index`th block comes again.
    pub(crate) fn go_back(&mut self, index: usize) {
        if index < self.next {
            self.next = index;
            self.of_next = vec![usize::MAX]; // it was within its limit
            self.waited = false;
        }
    }

    /// Whether the limit of the next block is that of those after it.
    pub(crate) fn has_one_limit(&self) -> bool {
        self.of_next == [self.limit]
    }

    /// Whether the next block is whole in the first `arrived` bytes, and within its limit.
    pub(crate) fn has_arrived(&self, arrived: usize) -> bool {
        let within = |sent: &super::wire::Sent| sent.len <= self.limit;
        self.stream.is_whole(self.next, arrived)
            && self.stream.blocks.get(self.next).is_some_and(within)
    }

    /// Sets the limit from the next block on; of that, so many bytes are gone, or have arrived.
    pub(crate) fn limit(&mut self, limit: usize, consumed: usize, arrived: usize) {
        while self.stream.offset_of(self.next + 1) <= consumed
            && self.next < self.stream.blocks.len()
        {
            assert!(self.skips);
            self.next += 1;
            self.of_next = vec![self.limit];
        }
        self.limit = limit;
        if consumed > self.stream.offset_of(self.next) {
            met("another limit while a block is skipped");
            self.of_next = vec![0];
        } else if arrived == consumed {
            self.of_next = vec![limit];
        } else if self.is_promised(arrived) {
            met("another limit for a block that has begun");
            self.of_next = vec![usize::MAX];
        } else {
            self.of_next.push(limit);
        }
    }

    /// Whether the next block has begun, and was found to be within its limit.
    fn is_promised(&self, arrived: usize) -> bool {
        let within = |sent: &super::wire::Sent| self.of_next.iter().all(|max| sent.len <= *max);
        self.waited
            && self.stream.is_announced(self.next, arrived)
            && self.stream.blocks.get(self.next).is_some_and(within)
    }

    /// The least limit with which the last block on this wire is received, so that what is behind it
    /// is not read before another is spoken.
    pub(crate) fn least_limit(&self) -> usize {
        let on_this = |sent: &&super::wire::Sent| sent.stage == self.stage;
        let last = self.stream.blocks.iter().rfind(on_this);
        match self.remaining() {
            usize::MAX => 0,
            _ => last.map_or(0, |sent| sent.len),
        }
    }

    /// Whether there is more to receive: a block, an error or an end.
    pub(crate) fn is_owed(&self) -> bool {
        let is_owed = |(_, coming): &(usize, Coming)| *coming != Coming::Silence;
        self.dead.is_none() && self.outcomes().iter().any(is_owed)
    }

    pub(crate) fn can_end(&self) -> bool {
        self.outcomes()
            .iter()
            .any(|(_, coming)| *coming == Coming::End)
    }
}
