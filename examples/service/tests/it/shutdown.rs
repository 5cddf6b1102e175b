//! Ctrl-C and SIGTERM.

use super::*;

#[test]
fn shutdown_answers_requests_in_flight_and_succeeds() {
    for (over, name) in [("tcp", "TERM"), ("tls", "INT"), ("local", "TERM")] {
        let folder = Folder::new();
        let (mut service, address) = serve(&folder, over, &[]);
        // All three arrive together, so the second and the third are in flight once the first
        // is answered.
        let requests = ["echo begun", "sleep 1500", "upper in flight"];
        let mut clients = [(); 3].map(|()| call(&folder, over, &address, &requests));
        for client in &mut clients {
            client.line_with("begun");
        }
        service.signal(name);
        service.line_with("stopping; open connections: 3");
        let late = call(&folder, over, &address, &["echo late"]).end();
        late.failed(&[&format!("cannot connect to {address}: ")]);
        for client in clients {
            let answers = client.end().ok().stdout;
            assert_eq!(answers, "begun\nslept 1500 ms\nIN FLIGHT");
        }
        let ended = service.end().ok();
        let said = "stopped; connections: 3, requests answered: 9";
        assert!(ended.stdout.ends_with(said), "{}", ended.stdout);
        assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
    }
}

#[test]
fn shutdown_drops_requests_not_begun_without_a_reset() {
    let folder = Folder::new();
    let (mut service, address) = serve(&folder, "tcp", &["--pipelined", "2"]);
    let mut peer = Peer::new(&address);
    // More than the client's receive buffer takes, so that a reset would destroy the rest of it.
    let text = "x".repeat(300_000);
    let large = format!("echo {text}");
    let unread = large.as_bytes();
    peer.send(&[b"echo begun", b"sleep 500", unread, unread]);
    assert_eq!(peer.receive(), "+begun");
    service.signal("TERM");
    service.line_with("stopping; open connections: 1");
    assert_eq!(peer.receive(), "+slept 500 ms");
    // A service that did not wait for its client would close the connection in this time.
    std::thread::sleep(A_WHILE);
    assert_eq!(peer.receive(), format!("+{text}"));
    peer.ends();
    drop(peer);
    let ended = service.end().ok();
    let said = "stopped; connections: 1, requests answered: 3";
    assert!(ended.stdout.ends_with(said), "{}", ended.stdout);
}

#[test]
fn shutdown_disconnects_idle_clients_at_once() {
    let folder = Folder::new();
    let (service, address) = serve(&folder, "tcp", &["--stall-timeout", "60"]);
    let mut idle = Peer::new(&address);
    idle.send(&[b"echo in"]);
    assert_eq!(idle.receive(), "+in");
    service.signal("INT");
    idle.ends();
    drop(idle);
    service.end().ok();
}

#[test]
fn open_handshake_ends_at_once() {
    let folder = Folder::new();
    let patient = ["--block-deadline", "60", "--grace", "60"];
    let (mut service, address) = serve(&folder, "tls", &patient);
    let mut silent = Peer::new(&address);
    service.complaint_with(": open");
    service.signal("TERM");
    silent.ends();
    let ended = service.end().ok();
    assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
}

#[test]
fn service_fails_after_the_grace_or_at_a_second_signal() {
    let folder = Folder::new();
    for (grace, error) in [
        ("0.3", "error: not done after 300ms; open connections: 1"),
        ("60", ""),
    ] {
        let (mut service, address) = serve(&folder, "tcp", &["--grace", grace]);
        let mut peer = Peer::new(&address);
        peer.send(&[b"echo begun", b"sleep 9000"]);
        assert_eq!(peer.receive(), "+begun");
        service.signal("TERM");
        service.line_with("stopping; open connections: 1");
        if error.is_empty() {
            service.signal("TERM");
        }
        let ended = service.end();
        assert_eq!(ended.status, FAILURE);
        assert!(ended.stderr.ends_with(error), "{}", ended.stderr);
        assert!(!ended.stdout.contains("stopped"), "{}", ended.stdout);
    }
}
