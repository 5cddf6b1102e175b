//! The example `file`: killed in the middle, lied to, and refused.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use sha2::{Digest, Sha256};
use testing::programs::*;

const FILE: &str = env!("CARGO_BIN_EXE_file");

const MIB: usize = 1024 * 1024;

const PART: usize = 256 * 1024;

/// `len` bytes that do not repeat.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn receiver(folder: &Folder, listen: &str) -> (Running, SocketAddr) {
    receiver_with(folder, &["--listen", listen])
}

fn receiver_with(folder: &Folder, args: &[&str]) -> (Running, SocketAddr) {
    let args = [&["receive", "--into", "into"], args].concat();
    let mut receiver = Running::start(folder, FILE, &args);
    let address = address_of(&mut receiver);
    (receiver, address)
}

fn address_of(receiver: &mut Running) -> SocketAddr {
    let line = receiver.line_with("listening on ");
    let address = line.split([' ', ',']).nth(2).unwrap();
    address.parse().unwrap()
}

fn sender(folder: &Folder, receiver: SocketAddr, path: &str) -> Running {
    let receiver = receiver.to_string();
    Running::start(folder, FILE, &["send", "--connect", &receiver, path])
}

/// The other end of a connection of the example, played by a test.
struct Peer(TcpStream);

impl Peer {
    fn new(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn send(&mut self, block: &[u8]) {
        self.begin(block.len() as u64, block);
    }

    /// Sends the header of a block of `len` bytes, and its first bytes, `front`.
    fn begin(&mut self, len: u64, front: &[u8]) {
        self.0
            .write_all(&[&len.to_be_bytes(), front].concat())
            .unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let len = self.header();
        self.part(len as usize)
    }

    /// Receives the header of a block: its length.
    fn header(&mut self) -> u64 {
        let mut len = [0; 8];
        self.0.read_exact(&mut len).unwrap();
        u64::from_be_bytes(len)
    }

    /// Receives `len` bytes of a block.
    fn part(&mut self, len: usize) -> Vec<u8> {
        let mut part = vec![0; len];
        self.0.read_exact(&mut part).unwrap();
        part
    }

    fn hear(&mut self) -> String {
        String::from_utf8(self.receive()).unwrap()
    }

    /// Offers version `secs` of a file of ten bytes, whose path is `path` in JSON.
    fn offer(&mut self, path: &str, secs: u64) {
        self.offer_of(10, path, secs);
    }

    fn offer_of(&mut self, len: u64, path: &str, secs: u64) {
        let modified = format!(r#"{{"secs":{secs},"nanos":0}}"#);
        let file = format!(r#"{{"path":{path},"len":{len},"modified":{modified}}}"#);
        self.send(format!(r#"{{"File":{file}}}"#).as_bytes());
    }
}

/// Accepts the next connection that `sending` makes.
fn reconnected(listener: &TcpListener, sending: &mut Running) -> Peer {
    listener.set_nonblocking(true).unwrap();
    loop {
        if let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(false).unwrap(); // some systems inherit it
            return Peer::new(socket);
        }
        assert!(!sending.has_ended(), "it does not try again");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The path of the part of an incomplete file, if there is one.
fn partial(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder)
        .ok()?
        .map(|entry| entry.unwrap().path());
    let mut partial = entries.filter(|path| path.extension().is_some_and(|it| it == "part"));
    partial.next()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn partial_len(folder: &Path) -> Option<usize> {
    let data = fs::metadata(partial(folder)?).ok()?;
    Some(data.len() as usize)
}

#[test]
fn a_file_arrives_whole_however_often_either_end_is_killed() {
    const LEN: usize = 96 * MIB;
    let folder = Folder::new();
    let into = folder.path().join("into");
    let contents = noise(LEN);
    fs::write(folder.path().join("big"), &contents).unwrap();
    fs::create_dir(&into).unwrap();
    fs::write(into.join("big"), "what was there before").unwrap();

    // Under Wine the socket of a killed program may stay open, and only silence tells its peer.
    let patience = ["--patience", if cfg!(wine) { "1" } else { "30" }];
    let receive = |listen: &str| {
        let args = [&["--listen", listen], &patience[..]].concat();
        receiver_with(&folder, &args)
    };
    let send = |to: SocketAddr| {
        let to = to.to_string();
        let args = [&["send", "--connect", &to, "big"], &patience[..]].concat();
        Running::start(&folder, FILE, &args)
    };

    let (mut receiving, address) = receive("127.0.0.1:0");
    let mut sending = send(address);
    let (mut reached, mut kills) = (0, 0);
    while kills < 20 {
        // Only the growth of the part shows how far the transfer is.
        let mut len = reached;
        while len <= reached + MIB && !sending.has_ended() {
            thread::sleep(Duration::from_millis(1));
            if let Some(now) = partial_len(&into) {
                assert!(now >= reached, "{now} of {reached} bytes are left");
                len = now;
            }
        }
        if sending.has_ended() {
            break;
        }
        if kills % 2 == 0 {
            drop(sending);
            sending = send(address);
        } else {
            drop(receiving);
            receiving = receive(&address.to_string()).0;
        }
        kills += 1;
        reached = len;
        let in_place = fs::read(into.join("big")).unwrap();
        if in_place == contents {
            break;
        }
        assert_eq!(in_place, b"what was there before");
    }
    let ended = sending.end();
    assert_eq!(ended.status, SUCCESS, "{}", ended.stderr);
    assert!(
        kills >= 3,
        "it was over after {kills} kills: too fast for this test"
    );
    assert!(
        fs::read(into.join("big")).unwrap() == contents,
        "it is not what was sent"
    );
    assert_eq!(partial(&into), None);
}

#[test]
fn folder_arrives_whole_and_a_second_transfer_sends_only_changes() {
    let folder = Folder::new();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("a/empty")).unwrap();
    fs::write(from.join("a/one"), noise(300_000)).unwrap();
    fs::write(from.join("nothing"), "").unwrap();

    let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
    let first = sender(&folder, address, "from").end();
    assert!(
        first.stdout.starts_with("sent 2 files, 0.3 MB in "),
        "{}",
        first.stdout
    );
    let second = sender(&folder, address, "from").end();
    assert!(
        second.stdout.starts_with("sent 0 files, 0.0 MB in "),
        "{}",
        second.stdout
    );
    assert!(
        second.stdout.contains(", 2 were there already,"),
        "{}",
        second.stdout
    );

    let into = folder.path().join("into/from");
    assert!(into.join("a/empty").is_dir());
    assert_eq!(fs::read(into.join("nothing")).unwrap(), b"");
    assert!(fs::read(into.join("a/one")).unwrap() == noise(300_000));

    fs::write(from.join("a/one"), "changed").unwrap();
    sender(&folder, address, "from").end();
    assert_eq!(fs::read(into.join("a/one")).unwrap(), b"changed");
}

#[test]
fn part_damaged_on_the_disk_is_dropped_and_sent_again() {
    let folder = Folder::new();
    let into = folder.path().join("into");
    let contents = noise(40 * MIB);
    fs::write(folder.path().join("big"), &contents).unwrap();
    let (receiving, address) = receiver(&folder, "127.0.0.1:0");
    let sending = sender(&folder, address, "big");
    while partial_len(&into).unwrap_or(0) < MIB {
        thread::sleep(Duration::from_millis(1));
    }
    drop(sending);
    drop(receiving);
    let part = partial(&into).expect("it was cut");
    let mut bytes = fs::read(&part).unwrap();
    bytes[1000] ^= 1;
    fs::write(&part, bytes).unwrap();

    let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
    let ended = sender(&folder, address, "big").end();
    assert_eq!(ended.status, SUCCESS, "{}", ended.stderr);
    assert!(fs::read(into.join("big")).unwrap() == contents);
}

#[test]
fn a_name_that_leads_out_of_the_folder_is_refused() {
    let folder = Folder::new();
    let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    for path in [
        r#"[".."]"#,
        r#"["..","x"]"#,
        r#"["/x"]"#,
        r#"["a/../../x"]"#,
        r#"["a\\b"]"#,
        r#"["C:x"]"#,
        r#"[""]"#,
        "[]",
    ] {
        peer.offer(path, 0);
        let answer = peer.hear();
        assert!(answer.contains(r#"{"Refused":""#), "{path}: {answer:?}");
    }
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}

#[test]
fn refused_name_does_not_stop_the_others() {
    let folder = Folder::new();
    let from = folder.path().join("from");
    fs::create_dir(&from).unwrap();
    let long = "n".repeat(240);
    // In the order in which they are sent.
    let refused = [
        "a.part",
        #[cfg(unix)]
        "b:c",
        &long,
    ];
    for name in ["0", "z"].iter().chain(&refused) {
        fs::write(from.join(name), "contents").unwrap();
    }
    let (mut receiving, address) = receiver(&folder, "127.0.0.1:0");
    let sent = sender(&folder, address, "from").end();
    assert_eq!(sent.status, FAILURE);
    assert!(sent.stdout.starts_with("sent 2 files, "), "{}", sent.stdout);
    let lines: Vec<&str> = sent.stderr.lines().collect();
    assert_eq!(lines.len(), refused.len(), "{}", sent.stderr);
    for name in refused {
        let named = format!("{name}: the receiver says: ");
        let is_named = lines.iter().any(|line| line.contains(&named));
        assert!(is_named, "{name} is not named: {}", sent.stderr);
        receiving.complaint_with(name);
    }
    for name in ["0", "z"] {
        let arrived = fs::read(folder.path().join("into/from").join(name)).unwrap();
        assert_eq!(arrived, b"contents");
    }
}

#[cfg(target_os = "linux")] // elsewhere each name is Unicode
#[test]
fn name_that_is_not_unicode_does_not_stop_the_others() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = Folder::new();
    let from = folder.path().join("from");
    let odd = from.join(OsStr::from_bytes(b"folder\xff"));
    fs::create_dir_all(&odd).unwrap();
    fs::write(odd.join("below"), "contents").unwrap();
    fs::write(from.join(OsStr::from_bytes(b"file\xff")), "contents").unwrap();
    fs::write(from.join("z"), "contents").unwrap();
    let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
    let sent = sender(&folder, address, "from").end();
    assert_eq!(sent.status, FAILURE);
    assert!(sent.stdout.starts_with("sent 1 files, "), "{}", sent.stdout);
    let mut lines = sent.stderr.lines();
    for part in ["file\u{fffd}: its name", "folder\u{fffd}: its name"] {
        assert!(lines.next().unwrap().contains(part), "{}", sent.stderr);
    }
    assert_eq!(lines.next(), None);
    let into = folder.path().join("into/from");
    assert_eq!(fs::read(into.join("z")).unwrap(), b"contents");
    assert_eq!(fs::read_dir(into).unwrap().count(), 1);
}

#[cfg(unix)] // elsewhere no such limit can be set for one process only
#[test]
fn file_that_does_not_fit_on_the_disk_does_not_stop_the_others() {
    let folder = Folder::new();
    let from = folder.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a-large"), noise(40 * MIB)).unwrap();
    fs::write(from.join("small"), "contents").unwrap();
    let args = ["receive", "--listen", "127.0.0.1:0", "--into", "into"];
    // 1 or 2 MiB: shells differ in their unit.
    let limit = "trap '' XFSZ && ulimit -f 2048";
    let mut receiving = Running::start_after(&folder, limit, FILE, &args);
    let address = address_of(&mut receiving);
    let sent = sender(&folder, address, "from").end();
    let sent = sent.failed(&["a-large: the receiver says: cannot write"]);
    assert!(sent.stdout.starts_with("sent 1 files, "), "{}", sent.stdout);
    let into = folder.path().join("into/from");
    assert_eq!(fs::read(into.join("small")).unwrap(), b"contents");
    assert!(!into.join("a-large").exists());
}

#[test]
fn old_part_is_removed_before_another_version_is_stored() {
    let folder = Folder::new();
    let into = folder.path().join("into");
    let (mut receiving, address) = receiver(&folder, "127.0.0.1:0");
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    peer.offer(r#"["f"]"#, 1);
    assert_eq!(peer.hear(), r#"{"From":0}"#);
    peer.begin(10, b"front");
    drop(peer);
    receiving.line_with("received from ");
    assert_eq!(names(&into), ["f.10-1.000000000.part"]);
    // Parts of another file, and of another program.
    let others = ["f.10-1.000000000.10-1.000000000.part", "f.x.part"];
    for other in others {
        fs::write(into.join(other), "").unwrap();
    }

    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    peer.offer(r#"["f"]"#, 2);
    assert_eq!(peer.hear(), r#"{"From":0}"#);
    assert_eq!(
        names(&into),
        [others[0], "f.10-2.000000000.part", others[1]]
    );
}

#[cfg(unix)] // elsewhere it takes a privilege to make a link
#[test]
fn links_in_the_folder_are_not_followed() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new();
    let (into, outside) = (folder.path().join("into"), folder.path().join("outside"));
    fs::create_dir(&into).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "contents").unwrap();
    symlink("../outside", into.join("folder")).unwrap();
    symlink("../outside/file", into.join("file")).unwrap();
    symlink("../outside/new", into.join("dangling")).unwrap();
    symlink("../outside/file", into.join("f.10-1.000000000.part")).unwrap();
    symlink("../outside/file", into.join("g.10-1.000000000.part")).unwrap();
    let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    let is_refused = |answer: String| assert!(answer.contains("Refused"), "{answer}");
    for path in [
        r#"["folder","x"]"#,
        r#"["folder","x","y"]"#,
        r#"["file"]"#,
        r#"["dangling"]"#,
        r#"["f"]"#,
    ] {
        peer.offer(path, 1);
        is_refused(peer.hear());
    }
    for path in [r#"["folder"]"#, r#"["folder","x"]"#] {
        peer.send(format!(r#"{{"Folder":{{"path":{path}}}}}"#).as_bytes());
        is_refused(peer.hear());
    }
    // The link of an old version is removed, and not what it leads to.
    peer.offer(r#"["g"]"#, 2);
    assert_eq!(peer.hear(), r#"{"From":0}"#);
    assert_eq!(names(&outside), ["file"]);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"contents");
}

#[test]
fn file_that_changes_while_it_is_sent_is_given_up() {
    let folder = Folder::new();
    let from = folder.path().join("from");
    fs::create_dir(&from).unwrap();
    // More than the buffers of a connection hold, so that most is read after the change.
    const LEN: usize = 40 * MIB;
    let large = noise(LEN);
    for name in ["grows", "rewritten", "shrinks"] {
        fs::write(from.join(name), &large).unwrap();
    }
    fs::write(from.join("stays"), "contents").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sending = sender(&folder, listener.local_addr().unwrap(), "from");
    let mut peer = Peer::new(listener.accept().unwrap().0);
    assert!(peer.hear().contains("Folder"));
    peer.send(br#""Whole""#);
    for name in ["grows", "rewritten", "shrinks"] {
        assert!(peer.hear().contains(name));
        peer.send(br#"{"From":0}"#);
        assert_eq!(peer.header(), LEN as u64);
        peer.part(1);
        let mut options = fs::File::options();
        let mut file = options.write(true).open(from.join(name)).unwrap();
        match name {
            "grows" => file.set_len(41 * MIB as u64).unwrap(),
            "shrinks" => file.set_len(39 * MIB as u64).unwrap(),
            _ => file.write_all(b"other contents").unwrap(),
        }
        // Two changes within a tick of the clock have the same time.
        let later = SystemTime::now() + Duration::from_secs(10);
        file.set_modified(later).unwrap();
        if name == "shrinks" {
            // There is no rest to send, so the block stays unfinished.
            let rest = io::copy(&mut peer.0, &mut io::sink()).unwrap();
            assert!(rest < LEN as u64 - 1, "{rest} bytes followed");
            peer = reconnected(&listener, &mut sending);
        } else {
            peer.part(LEN - 1);
            assert_eq!(peer.receive(), b"");
            peer.send(br#""Differs""#);
        }
    }
    assert!(peer.hear().contains("stays"));
    peer.send(br#"{"From":0}"#);
    assert_eq!(peer.receive(), b"contents");
    assert_eq!(peer.receive(), Sha256::digest("contents")[..]);
    peer.send(br#""Whole""#);
    drop(peer);
    let ended = sending.end();
    assert_eq!(ended.status, FAILURE);
    let mut lines = ended.stderr.lines();
    for name in ["grows", "rewritten", "shrinks"] {
        let said = format!("{name}: it changed while it was sent");
        assert!(lines.next().unwrap().contains(&said), "{}", ended.stderr);
    }
    assert_eq!(lines.next(), None);
}

/// Passes connections on to `receiver`, and calls `between` when 1 MiB of the first has passed.
fn relay(receiver: SocketAddr, between: impl FnOnce() + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut between = Some(between);
        for sender in listener.incoming() {
            let (sender, receiver) = (sender.unwrap(), TcpStream::connect(receiver).unwrap());
            thread::scope(|scope| {
                scope.spawn(|| io::copy(&mut &receiver, &mut &sender));
                let _ = io::copy(&mut (&sender).take(MIB as u64), &mut &receiver);
                if let Some(between) = between.take() {
                    between();
                }
                let _ = io::copy(&mut &sender, &mut &receiver);
                let _ = receiver.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

#[test]
fn file_that_changes_its_length_is_not_taken_for_whole() {
    let contents = noise(40 * MIB);
    for len in [MIB, 39 * MIB, 41 * MIB] {
        let folder = Folder::new();
        let path = folder.path().join("log");
        fs::write(&path, &contents).unwrap();
        let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
        let change = {
            let path = path.clone();
            move || {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_len(len as u64).unwrap();
            }
        };
        let sent = sender(&folder, relay(address, change), "log").end();
        let sent = sent.failed(&["log: it changed while it was sent"]);
        assert!(sent.stdout.starts_with("sent 0 files, "), "{}", sent.stdout);
        let arrived = folder.path().join("into/log");
        assert!(!arrived.exists());

        sender(&folder, address, "log").end().ok();
        assert!(fs::read(arrived).unwrap() == fs::read(path).unwrap());
        assert_eq!(names(&folder.path().join("into")), ["log"]);
    }
}

#[cfg(unix)] // elsewhere there is no signal to send to one process only
#[test]
fn ctrl_c_keeps_the_part_that_has_arrived() {
    let folder = Folder::new();
    let into = folder.path().join("into");
    fs::write(folder.path().join("large"), noise(40 * MIB)).unwrap();
    let (mut receiving, address) = receiver(&folder, "127.0.0.1:0");
    let sending = sender(&folder, address, "large");
    while partial_len(&into).unwrap_or(0) < MIB {
        thread::sleep(Duration::from_millis(1));
    }
    sending.signal("INT");
    sending
        .end()
        .failed(&["stopped by Ctrl-C; what has come is kept"]);
    receiving.line_with("received from ");
    assert!(partial_len(&into).unwrap() >= MIB);
    sender(&folder, address, "large").end().ok();
    receiving.line_with(": 1 files, ");
    receiving.signal("INT");
    let ended = receiving.end();
    assert_eq!(ended.status, FAILURE);
    assert!(ended.stdout.contains("1 resumed"), "{}", ended.stdout);
}

#[test]
fn sender_resumes_at_the_byte_that_the_receiver_asks_for() {
    const HAD: usize = 1_000_003;
    let folder = Folder::new();
    let contents = noise(8 * MIB);
    fs::write(folder.path().join("large"), &contents).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sending = sender(&folder, listener.local_addr().unwrap(), "large");
    let mut peer = Peer::new(listener.accept().unwrap().0);
    assert!(peer.hear().contains("large"));
    peer.send(br#"{"From":0}"#);
    assert_eq!(peer.header(), contents.len() as u64);
    assert!(peer.part(HAD) == contents[..HAD]);
    drop(peer);

    let mut peer = reconnected(&listener, &mut sending);
    assert!(peer.hear().contains("large"));
    peer.send(format!(r#"{{"From":{HAD}}}"#).as_bytes());
    assert!(peer.receive() == contents[HAD..]);
    assert_eq!(peer.receive(), Sha256::digest(&contents)[..]);
    peer.send(br#""Whole""#);
    drop(peer);
    let ended = sending.end().ok();
    assert!(
        ended.stdout.ends_with(", 0 refused, 1 reconnections"),
        "{}",
        ended.stdout
    );
}

#[test]
fn receiver_resumes_at_the_byte_where_the_block_was_cut() {
    let folder = Folder::new();
    let (mut receiving, address) = receiver(&folder, "127.0.0.1:0");
    for (from, sent) in [(0, "h"), (1, "ell"), (4, "")] {
        let mut peer = Peer::new(TcpStream::connect(address).unwrap());
        peer.offer(r#"["f"]"#, 1);
        assert_eq!(peer.hear(), format!(r#"{{"From":{from}}}"#));
        peer.begin(10 - from, sent.as_bytes());
        drop(peer);
        receiving.complaint_with("f: stream ended inside block 1, ");
    }
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    peer.offer(r#"["f"]"#, 1);
    assert_eq!(peer.hear(), r#"{"From":4}"#);
    peer.send(b"o, you");
    drop(peer); // the file is complete, but its checksum is missing
    receiving.complaint_with("f: the other end has gone away");

    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    peer.offer(r#"["f"]"#, 1);
    assert_eq!(peer.hear(), r#"{"From":10}"#);
    peer.send(b"");
    peer.send(&Sha256::digest("hello, you"));
    assert_eq!(peer.hear(), r#""Whole""#);
    assert_eq!(
        fs::read(folder.path().join("into/f")).unwrap(),
        b"hello, you"
    );
}

#[test]
fn file_of_more_than_4_gib_is_one_block() {
    const LEN: u64 = 5 << 30;
    let folder = Folder::new();
    let file = fs::File::create(folder.path().join("huge")).unwrap();
    file.set_len(LEN).unwrap(); // takes no space
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _sending = sender(&folder, listener.local_addr().unwrap(), "huge");
    let mut peer = Peer::new(listener.accept().unwrap().0);
    assert!(peer.hear().contains(r#""len":5368709120,"#));
    peer.send(br#"{"From":0}"#);
    assert_eq!(peer.header(), LEN);
    assert_eq!(peer.part(MIB), vec![0; MIB]);

    let (mut receiving, address) = receiver(&folder, "127.0.0.1:0");
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    peer.offer_of(LEN, r#"["f"]"#, 1);
    assert_eq!(peer.hear(), r#"{"From":0}"#);
    peer.begin(LEN, b"front");
    drop(peer);
    receiving.complaint_with("5 of 5368709120 payload bytes arrived");
    assert_eq!(partial_len(&folder.path().join("into")), Some(5));
}

#[test]
fn file_changed_before_its_turn_is_offered_as_it_is_now() {
    let folder = Folder::new();
    let from = folder.path().join("from");
    fs::create_dir(&from).unwrap();
    for name in ["gone", "longer"] {
        fs::write(from.join(name), "contents").unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sending = sender(&folder, listener.local_addr().unwrap(), "from");
    let mut peer = Peer::new(listener.accept().unwrap().0);
    assert!(peer.hear().contains("Folder"));
    fs::remove_file(from.join("gone")).unwrap();
    fs::write(from.join("longer"), "longer contents").unwrap();
    peer.send(br#""Whole""#);
    let offer = peer.hear();
    assert!(offer.contains(r#"["from","longer"],"len":15,"#), "{offer}");
    peer.send(br#""Whole""#);
    drop(peer);
    sending.end().failed(&["gone: cannot read it"]);
}

#[test]
fn file_with_a_wrong_or_empty_checksum_is_not_stored() {
    let folder = Folder::new();
    let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    for checksum in [&[][..], &[7; 32], &Sha256::digest("hello, you")] {
        peer.offer(r#"["f"]"#, 1);
        assert_eq!(peer.hear(), r#"{"From":0}"#);
        peer.send(b"hello, me!");
        peer.send(checksum);
        assert_eq!(peer.hear(), r#""Differs""#);
        assert_eq!(names(&folder.path().join("into")), [""; 0]);
    }
}

#[test]
fn block_of_another_length_than_was_asked_for_ends_the_connection() {
    let folder = Folder::new();
    let (mut receiving, address) = receiver(&folder, "127.0.0.1:0");
    for len in [9, 11, u64::MAX] {
        let mut peer = Peer::new(TcpStream::connect(address).unwrap());
        peer.offer(r#"["f"]"#, 1);
        assert_eq!(peer.hear(), r#"{"From":0}"#);
        peer.begin(len, b"hello");
        receiving.complaint_with(&format!("announces {len} bytes where 10 are due"));
    }
    assert_eq!(partial_len(&folder.path().join("into")), Some(0));
}

#[test]
fn sender_over_the_limit_waits_until_a_silent_one_is_given_up() {
    let folder = Folder::new();
    let args = [
        "--listen",
        "127.0.0.1:0",
        "--senders",
        "2",
        "--patience",
        "1",
    ];
    let (_receiving, address) = receiver_with(&folder, &args);
    let mut silent = Peer::new(TcpStream::connect(address).unwrap());
    // A sender that stops inside a file is silent, too.
    let mut late = Peer::new(TcpStream::connect(address).unwrap());
    late.offer(r#"["late"]"#, 1);
    assert_eq!(late.hear(), r#"{"From":0}"#);
    late.begin(10, b"l");
    let mut waiting = Peer::new(TcpStream::connect(address).unwrap());
    waiting.offer(r#"["f"]"#, 1);
    assert_eq!(waiting.hear(), r#"{"From":0}"#);
    let ended = [&mut silent, &mut late].map(|peer| {
        peer.0.set_nonblocking(true).unwrap();
        matches!(peer.0.read(&mut [0]), Ok(0))
    });
    assert_ne!(ended, [false, false], "three were served at once");
}

#[test]
fn dribbled_file_ends_the_connection() {
    let folder = Folder::new();
    let args = ["--listen", "127.0.0.1:0", "--patience", "1"];
    let (mut receiving, address) = receiver_with(&folder, &args);
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    peer.offer(r#"["f"]"#, 1);
    assert_eq!(peer.hear(), r#"{"From":0}"#);
    peer.begin(10, b"");
    let started = Instant::now();
    // A byte now and then, so the peer is never silent.
    while started.elapsed() < PATIENCE && peer.0.write_all(b"x").is_ok() {
        thread::sleep(Duration::from_millis(300));
    }
    receiving.complaint_with("took longer than 1s");
}

#[test]
fn file_may_take_longer_than_the_receiver_may_be_silent() {
    const LEN: usize = 96 * MIB;
    let folder = Folder::new();
    fs::write(folder.path().join("large"), vec![7; LEN]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let args = ["send", "--patience", "1", "--connect", &address, "large"];
    let sending = Running::start(&folder, FILE, &args);
    let mut peer = Peer::new(listener.accept().unwrap().0);
    assert!(peer.hear().contains("large"));
    peer.send(br#"{"From":0}"#);
    assert_eq!(peer.header(), LEN as u64);
    let started = Instant::now();
    for _ in 0..LEN / PART {
        peer.part(PART);
        // Slow enough that the whole takes longer than a second, and each read far less.
        if started.elapsed() < Duration::from_millis(1_500) {
            thread::sleep(Duration::from_millis(8));
        }
    }
    assert!(started.elapsed() > Duration::from_secs(1));
    assert_eq!(peer.receive().len(), 32);
    peer.send(br#""Whole""#);
    drop(peer);
    let ended = sending.end().ok();
    assert!(
        ended.stdout.ends_with(", 0 reconnections"),
        "{}",
        ended.stdout
    );
}

#[test]
fn sender_does_not_give_up_while_a_file_makes_progress() {
    let folder = Folder::new();
    fs::write(folder.path().join("large"), vec![7; 96 * MIB]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let args = ["send", "--give-up", "1", "--connect", &address, "large"];
    let mut sending = Running::start(&folder, FILE, &args);
    let mut peer = Peer::new(listener.accept().unwrap().0);
    assert!(peer.hear().contains("large"));
    peer.send(br#"{"From":0}"#);
    peer.header();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1_500) {
        peer.part(PART);
        thread::sleep(Duration::from_millis(8));
    }
    drop(peer);
    reconnected(&listener, &mut sending);
}

#[test]
fn failed_transfer_ends_with_an_error_that_says_why() {
    let folder = Folder::new();
    fs::write(folder.path().join("small"), "contents").unwrap();
    fs::write(
        folder.path().join("into"),
        "a file where the folder should be",
    )
    .unwrap();
    let (_receiving, address) = receiver(&folder, "127.0.0.1:0");
    sender(&folder, address, "small")
        .end()
        .failed(&["small", "the receiver says: cannot write"]);
    sender(&folder, address, "none")
        .end()
        .failed(&["cannot read none"]);

    let args = [
        "send",
        "--give-up",
        "0",
        "--connect",
        "127.0.0.1:1",
        "small",
    ];
    Running::start(&folder, FILE, &args)
        .end()
        .failed(&["nothing has moved on", "cannot connect to 127.0.0.1:1"]);
}
