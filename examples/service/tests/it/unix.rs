//! Tests that need Unix: socket files, TLS as it is built here, and limits on open files.

use super::*;

#[test]
fn service_replaces_only_the_socket_file_of_a_killed_service() {
    let folder = Folder::new();
    let (killed, _) = serve(&folder, "local", &[]);
    drop(killed);
    assert!(folder.path().join("service.sock").exists());
    let (service, address) = serve(&folder, "local", &[]);
    let client = call(&folder, "local", &address, &["echo here"]).end().ok();
    assert_eq!(client.stdout, "here");
    stop(service);

    // A file that is no socket stays.
    std::fs::write(folder.path().join("service.sock"), "precious").unwrap();
    let args = ["serve", "--over", "local"];
    let other = Running::start(&folder, SERVICE, &args).end();
    other.failed(&["cannot listen on service.sock: "]);
    let kept = std::fs::read(folder.path().join("service.sock")).unwrap();
    assert_eq!(kept, b"precious");
}

#[test]
fn tls_client_trusts_only_the_service_with_its_certificate() {
    let folder = Folder::new();
    let client = call(&folder, "tls", "127.0.0.1:1", &["echo x"]).end();
    client.failed(&["cannot read service-cert.pem: "]);

    let (_trusted, _) = serve(&folder, "tls", &[]);
    let (_other, address) = serve(&folder, "tls", &["--certificate", "other.pem"]);
    let client = call(&folder, "tls", &address, &["echo x"]).end();
    client.failed(&[&format!("cannot connect to {address}: "), "certificate"]);
    let trusting = ["--certificate", "other.pem", "echo x"];
    let client = call(&folder, "tls", &address, &trusting).end().ok();
    assert_eq!(client.stdout, "x");

    // A client without a handshake is not waited for, and delays nobody else.
    let (service, address) = serve(&folder, "tls", &["--block-deadline", "0.2"]);
    Peer::new(&address).ends();
    let mut rude = Peer::new(&address);
    rude.0.write_all(b"echo, is anybody there?").unwrap();
    rude.0.read_to_end(&mut Vec::new()).unwrap(); // an alert
    let ended = stop(service);
    let warnings = ended.stderr.lines().filter(|line| line.contains("WARN"));
    assert_eq!(warnings.count(), 2, "{}", ended.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn service_out_of_files_accepts_again_once_one_is_free() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let folder = Folder::new();
    let (service, address) = serve(&folder, "tcp", &[]);
    let mut first = Peer::new(&address);
    first.send(&[b"echo first"]);
    assert_eq!(first.receive(), "+first");
    let id = service.child.id();
    // The next file gets the lowest free number.
    let mut free = 0;
    while std::fs::symlink_metadata(format!("/proc/{id}/fd/{free}")).is_ok() {
        free += 1;
    }
    let limit = Rlimit {
        current: Some(free),
        maximum: Some(free),
    };
    let pid = Pid::from_raw(id as i32);
    prlimit(pid, Resource::Nofile, limit).unwrap();

    let mut second = Peer::new(&address);
    second.send(&[b"echo second"]);
    assert!(second.is_silent());
    drop(first);
    assert_eq!(second.receive(), "+second");
    let ended = stop(service);
    assert!(ended.stderr.contains("cannot accept"), "{}", ended.stderr);
    let said = "stopped; connections: 2, requests answered: 2";
    assert!(ended.stdout.ends_with(said), "{}", ended.stdout);
}
