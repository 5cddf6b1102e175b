//! syslog over TCP and TLS, with octet counting: [RFC 6587](https://www.rfc-editor.org/rfc/rfc6587),
//! section 3.4.1, and [RFC 5425](https://www.rfc-editor.org/rfc/rfc5425), section 4.3.

use std::ops::RangeInclusive;

use bytes::BufMut;
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_invalid, check};

/// A length in decimal digits and a space, which are stripped.
#[derive(Clone, Copy)]
struct Counted;

impl Framing for Counted {
    fn block_lens(&self) -> RangeInclusive<u64> {
        1..=9_999_999 // 7 digits
    }

    fn max_header_len(&self) -> usize {
        8
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let mut len = 0;
        for (i, &byte) in front.iter().take(8).enumerate() {
            match byte {
                b' ' if len > 0 => {
                    return Ok(Header::Complete {
                        stripped: i + 1,
                        block_len: len,
                    });
                }
                b'0'..=b'9' if i < 7 && (len > 0 || byte != b'0') => {
                    len = len * 10 + u64::from(byte - b'0');
                }
                _ => return Err(InvalidHeader("it is no length of up to 7 digits")),
            }
        }
        Ok(Header::Incomplete {
            at_least: (front.len() + 1).max(2),
        })
    }

    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        dst.put_slice(format!("{block_len} ").as_bytes());
    }
}

#[test]
fn syslog_messages_are_blocks_without_their_lengths() {
    // RFC 5424, section 6.5, examples 1 and 2.
    let su = b"<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \
        \xef\xbb\xbf'su root' failed for lonvick on /dev/pts/8";
    let myproc = b"<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - \
        %% It's time to make the do-nuts.";
    let wire = [&b"110 "[..], su, b"99 ", myproc].concat();
    check("syslog", Counted, &wire, &[su, myproc], &wire);
    assert_invalid(Counted, &[b"0", b" ", b"<", b"12345678"]);
}
