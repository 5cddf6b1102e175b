//! `recv_reader`: a block that is received part by part.

use testing::{Scripted, ready, transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt};

#[test]
fn error_about_the_block_comes_again_from_its_reader() {
    let truncated = "stream ended inside block 0, which begins at byte 0: \
                     5 of 65536 payload bytes arrived";
    // Read by way of the buffer, and straight.
    for mut memory in [vec![0; 10], vec![0; 20_000]] {
        let mut transport = transport(Scripted::default().send(b"\0\x01\0\0hello"));
        let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
        ready(reader.read_exact(&mut memory[..5])).unwrap();
        for _ in 0..3 {
            let error = ready(reader.read(&mut memory)).unwrap_err();
            assert_eq!(error.to_string(), truncated);
            let error = ready(reader.fill_buf()).unwrap_err();
            assert_eq!(error.to_string(), truncated);
            assert_eq!(reader.remaining(), 65_531);
        }
    }
}
