//! What every error says, and whose fault an `io::Error` made from it says it is.

use std::{error::Error as _, io, time::Duration};

use wholeblock::{BlockError, ConfigError, Part};

#[test]
fn every_error_prints_its_numbers_and_becomes_an_io_error_of_the_right_kind() {
    let (index, offset) = (3, 153_600);
    let table = [
        (
            BlockError::Truncated {
                part: Part::Payload,
                expected: 51_200,
                received: 14_283,
                index,
                offset,
            },
            "stream ended inside block 3, which begins at byte 153600: \
             14283 of 51200 payload bytes arrived",
            io::ErrorKind::UnexpectedEof,
        ),
        (
            BlockError::Truncated {
                part: Part::Header,
                expected: 4,
                received: 2,
                index,
                offset,
            },
            "stream ended inside block 3, which begins at byte 153600: \
             2 of at least 4 header bytes arrived",
            io::ErrorKind::UnexpectedEof,
        ),
        (
            BlockError::TooLarge {
                announced: 4_294_967_295,
                limit: 8_388_608,
                index,
                offset,
            },
            "block 3, which begins at byte 153600, announces 4294967295 bytes; \
             the limit is 8388608",
            io::ErrorKind::InvalidData,
        ),
        (
            BlockError::InvalidHeader {
                reason: "its varint overflows 64 bits",
                index,
                offset,
            },
            "invalid header in block 3, which begins at byte 153600: its varint overflows 64 bits",
            io::ErrorKind::InvalidData,
        ),
        (
            BlockError::TooFew {
                expected: 100,
                received: 3,
            },
            "stream ended after 3 of 100 blocks",
            io::ErrorKind::UnexpectedEof,
        ),
        (
            BlockError::WrongHeader {
                announced: Some(6),
                actual: 5,
                index,
            },
            "block 3, of 5 bytes, cannot be sent: its header announces 6",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongHeader {
                announced: None,
                actual: 5,
                index,
            },
            "block 3, of 5 bytes, cannot be sent: its header cannot be read back",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 1,
                max: 0,
                actual: 5,
                index,
            },
            "block 3, of 5 bytes, cannot be sent: the framing carries no block at all",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 51_200,
                max: 51_200,
                actual: 14_283,
                index,
            },
            "block 3, of 14283 bytes, cannot be sent: the framing carries exactly 51200",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 0,
                max: 255,
                actual: 256,
                index,
            },
            "block 3, of 256 bytes, cannot be sent: the framing carries at most 255",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 4,
                max: 255,
                actual: 2,
                index,
            },
            "block 3, of 2 bytes, cannot be sent: the framing carries 4 to 255",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::Stalled {
                waited: Duration::from_secs(30),
                index,
                offset,
            },
            "nothing moved for 30s at block 3, which begins at byte 153600",
            io::ErrorKind::TimedOut,
        ),
        (
            BlockError::Late {
                allowed: Duration::from_secs(10),
                index,
                offset,
            },
            "block 3, which begins at byte 153600, was not whole 10s after its first bytes",
            io::ErrorKind::TimedOut,
        ),
        (
            BlockError::Source("no more tape".into()),
            "the source of the blocks failed",
            io::ErrorKind::Other,
        ),
    ];
    for (error, text, kind) in table {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), kind, "{text}");
        let error = io::Error::from(error);
        assert_eq!(error.kind(), kind, "{text}");
        assert_eq!(error.to_string(), text);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert!(
            matches!(inner, Some(e) if BlockError::to_string(e) == text),
            "the numbers can still be had from the io::Error"
        );
        let debug = format!("{:?}", inner.unwrap());
        let back = BlockError::from(error);
        assert_eq!(format!("{back:?}"), debug, "it comes back as it was");
    }
}

#[test]
fn an_io_error_goes_in_and_comes_out_as_it_was() {
    let error = BlockError::from(io::Error::new(io::ErrorKind::ConnectionReset, "cable cut"));
    assert_eq!(error.to_string(), "cable cut");
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(error.to_string(), "cable cut");

    let error = BlockError::from(io::Error::from_raw_os_error(1));
    assert_eq!(io::Error::from(error).raw_os_error(), Some(1));
}

#[test]
fn an_error_of_the_transport_has_its_kind() {
    let error = BlockError::Io(io::ErrorKind::ConnectionReset.into());
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_source_that_failed_with_an_error_of_a_kind_has_that_kind() {
    type Cause = Box<dyn std::error::Error + Send + Sync>;
    let too_few = || BlockError::TooFew {
        expected: 2,
        received: 1,
    };
    let table: [(Cause, io::ErrorKind); 6] = [
        ("words".into(), io::ErrorKind::Other),
        (
            Box::new(io::Error::new(io::ErrorKind::NotFound, "gone")),
            io::ErrorKind::NotFound,
        ),
        (Box::new(too_few()), io::ErrorKind::UnexpectedEof),
        (
            Box::new(io::Error::from(too_few())),
            io::ErrorKind::UnexpectedEof,
        ),
        (
            Box::new(BlockError::Source(Box::new(io::Error::from(
                io::ErrorKind::TimedOut,
            )))),
            io::ErrorKind::TimedOut,
        ),
        (
            Box::new(BlockError::Io(io::ErrorKind::AddrInUse.into())),
            io::ErrorKind::AddrInUse,
        ),
    ];
    for (cause, kind) in table {
        let text = cause.to_string();
        let error = BlockError::Source(cause);
        assert_eq!(error.kind(), kind, "{text}");
        let error = io::Error::from(error);
        assert_eq!(error.kind(), kind, "{text}");
        // It is still the source that failed, and with what.
        match BlockError::from(error) {
            BlockError::Source(cause) => assert_eq!(cause.to_string(), text),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_io_error_that_holds_something_else_stays_what_it_is() {
    let error = BlockError::from(io::Error::new(io::ErrorKind::InvalidData, "not ours"));
    assert!(matches!(&error, BlockError::Io(e) if e.to_string() == "not ours"));
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_chain_of_errors_names_the_cause_of_a_failed_source_once() {
    let error = BlockError::Source(Box::new(io::Error::other("no more tape")));
    assert!(error.source().unwrap().is::<io::Error>());
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(chain, "the source of the blocks failed: no more tape");
}

#[test]
fn every_configuration_error_says_what_would_work() {
    let table = [
        (
            ConfigError::EmptyBlocks,
            "exact-length blocks must be at least 1 byte long",
        ),
        (
            ConfigError::Width { width: 9 },
            "a length has 1 to 8 bytes, not 9",
        ),
        (
            ConfigError::LimitTooSmall { limit: 2, min: 4 },
            "a limit of 2 bytes is below the shortest block, of 4",
        ),
        (
            ConfigError::LimitTooLarge {
                limit: 300,
                max: 255,
            },
            "blocks of 300 bytes cannot be carried; the most is 255",
        ),
        (
            ConfigError::Header {
                field_end: 5,
                header_len: 4,
                strip: 4,
            },
            "a header of 4 bytes, of which 4 are stripped, does not go with a length field that \
             ends after 5; a header has at most 1024 bytes",
        ),
        (
            ConfigError::Adjustment { adjustment: -300 },
            "with an adjustment of -300, no length is that of a block",
        ),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), text);
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }
}
