//! The service itself: a tower `Service` that turns a block into a block.
//!
//! | request | answer |
//! |---|---|
//! | `echo TEXT` | `+TEXT` |
//! | `upper TEXT` | `+` and the text in capitals |
//! | `sum 1 2 -4` | `+-1` |
//! | `sleep 250` | `+slept 250 ms`, after so long |
//! | any other, or one that takes too long | `-` and why |
//!
//! It knows nothing of connections. A layer of tower limits the time of a request.

use std::{str::FromStr, time::Duration};

use bytes::{Bytes, BytesMut};
use tower::{BoxError, Service, ServiceBuilder};

/// The first byte of an answer.
pub(crate) const DONE: u8 = b'+';
pub(crate) const REFUSED: u8 = b'-';

/// Returns the service. A request that takes longer than `limit` fails.
pub(crate) fn service(
    limit: Duration,
) -> impl Service<BytesMut, Response = Bytes, Error = BoxError, Future: Send> + Clone + Send + 'static
{
    ServiceBuilder::new().timeout(limit).service_fn(answer)
}

/// Turns an error into the answer that a client gets.
pub(crate) fn refusal(error: BoxError) -> Bytes {
    format!("{}{error}", char::from(REFUSED)).into()
}

async fn answer(block: BytesMut) -> Result<Bytes, Refusal> {
    match Request::parse(block)? {
        Request::Echo(text) => Ok(text.done()),
        Request::Upper(mut text) => {
            text.0.make_ascii_uppercase();
            Ok(text.done())
        }
        Request::Sum(numbers) => {
            let sum = numbers.iter().try_fold(0_i64, |sum, n| sum.checked_add(*n));
            let sum = sum.ok_or(Refusal::Overflow)?;
            Ok(format!("{}{sum}", char::from(DONE)).into())
        }
        Request::Sleep(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(format!("{}slept {millis} ms", char::from(DONE)).into())
        }
    }
}

enum Request {
    Echo(Text),
    Upper(Text),
    Sum(Vec<i64>),
    Sleep(u64),
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("unknown request; known are echo, upper, sum, sleep")]
    Unknown,
    #[error("not a number: {0:?}")]
    NotANumber(String),
    #[error("the sum does not fit into 64 bits")]
    Overflow,
}

impl Request {
    fn parse(mut block: BytesMut) -> Result<Self, Refusal> {
        let space = block.iter().position(|byte| *byte == b' ');
        let verb = block.split_to(space.unwrap_or(block.len()));
        let text = Text(block);
        match &verb[..] {
            b"echo" => Ok(Self::Echo(text)),
            b"upper" => Ok(Self::Upper(text)),
            b"sum" => text.numbers().map(Self::Sum),
            b"sleep" => match text.numbers()?[..] {
                [millis] => Ok(Self::Sleep(millis)),
                _ => Err(Refusal::NotANumber(text.lossy())),
            },
            _ => Err(Refusal::Unknown),
        }
    }
}

/// The text after the verb, with the space before it. The first byte of the answer replaces the space in place,
/// so nothing is copied.
struct Text(BytesMut);

impl Text {
    fn done(mut self) -> Bytes {
        match self.0.first_mut() {
            Some(space) => *space = DONE,
            None => self.0.extend_from_slice(&[DONE]),
        }
        self.0.freeze()
    }

    fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }

    fn numbers<N: FromStr>(&self) -> Result<Vec<N>, Refusal> {
        let number = |word: &str| {
            let parsed = word.parse();
            parsed.map_err(|_| Refusal::NotANumber(word.to_owned()))
        };
        self.lossy().split_ascii_whitespace().map(number).collect()
    }
}
