//! Faults of the network and the hosts, and their repair.

use std::{rc::Rc, time::Duration};

use turmoil::{Builder, Sim};

use crate::{
    hosts::{self, client_name, server_name},
    run::{CLIENTS, Run, SERVERS, Tally},
};

/// New faults begin until this time.
const TROUBLE: Duration = Duration::from_secs(4);

/// By this time, every connection that hangs is given up, and one or two more have brought the rest.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a simulation until every client has brought all its blocks.
///
/// # Errors
///
/// Fails if a host fails, or if the run takes too long.
pub(crate) fn simulate(seed: u64) -> Result<Tally, String> {
    let run = Rc::new(Run::new(seed));
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(10))
        .max_message_latency(Duration::from_millis(run.pick(1..=60)))
        // Segments under way in each direction. They are few, so a sender often waits inside a block, and a
        // crash then cuts the block.
        .tcp_capacity(run.pick(8..=32) as usize)
        .enable_random_order()
        .build();
    for server in 0..SERVERS {
        let run = run.clone();
        sim.host(server_name(server), move || hosts::server(run.clone()));
    }
    for client in 0..CLIENTS {
        let run = run.clone();
        sim.host(client_name(client), move || {
            hosts::client(run.clone(), client)
        });
    }

    let mut faults = Faults::default();
    while !run.is_done() {
        let now = sim.elapsed();
        if now > LIMIT {
            return Err(format!("not done after {LIMIT:?}: {:#?}", run.tally()));
        }
        faults.mend(&mut sim, now);
        if now < TROUBLE {
            faults.inject(&mut sim, &run, now);
        }
        sim.step().map_err(|error| error.to_string())?;
    }
    run.check_disks();
    Ok(run.tally())
}

#[derive(Default)]
struct Faults {
    /// When the next fault begins.
    next: Duration,
    /// The present faults, each with its end.
    present: Vec<(Duration, Fault)>,
}

#[derive(Clone, PartialEq)]
enum Fault {
    Link {
        client: String,
        server: String,
        is_held: bool,
    },
    Host(String),
}

impl Faults {
    fn mend(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (over, present) = self.present.drain(..).partition(|&(until, _)| until <= now);
        self.present = present;
        let over: Vec<(Duration, Fault)> = over;
        for (_, fault) in over {
            match fault {
                Fault::Link {
                    client,
                    server,
                    is_held: true,
                } => sim.release(client, server),
                Fault::Link { client, server, .. } => sim.repair(client, server),
                Fault::Host(host) => {
                    for other in others(&host) {
                        sim.repair(host.as_str(), other);
                    }
                    sim.bounce(host);
                }
            }
        }
    }

    fn inject(&mut self, sim: &mut Sim<'_>, run: &Run, now: Duration) {
        if now < self.next {
            return;
        }
        let after = |from, to| now + Duration::from_millis(run.pick(from..=to));
        self.next = after(20, 400);
        let until = after(20, 900);
        let client = run.pick(0..=CLIENTS as u64 - 1) as usize;
        let server = server_name(client % SERVERS);
        let client = client_name(client);
        let fault = match run.pick(0..=9) {
            kind @ 0..=5 => Fault::Link {
                client: client.clone(),
                server: server.clone(),
                is_held: kind >= 3,
            },
            6 | 7 => Fault::Host(server.clone()),
            _ => Fault::Host(client.clone()),
        };
        let is_taken = |(_, present): &(_, Fault)| match present {
            Fault::Link { client: c, .. } => *c == client,
            Fault::Host(host) => *host == client || *host == server,
        };
        if self.present.iter().any(is_taken) {
            return;
        }
        strike(sim, run, &fault);
        self.present.push((until, fault));
    }
}

fn strike(sim: &mut Sim<'_>, run: &Run, fault: &Fault) {
    match fault {
        Fault::Link {
            client,
            server,
            is_held: true,
        } => {
            run.count("hold");
            sim.hold(client.as_str(), server.as_str());
        }
        Fault::Link { client, server, .. } => match run.pick(0..=3) {
            0 => {
                run.count("partition to the client");
                sim.partition_oneway(server.as_str(), client.as_str());
            }
            1 => {
                run.count("partition to the server");
                sim.partition_oneway(client.as_str(), server.as_str());
            }
            _ => {
                run.count("partition");
                sim.partition(client.as_str(), server.as_str());
            }
        },
        Fault::Host(host) => {
            let is_server = host.starts_with("server");
            // The system of a program that crashes closes its sockets; a host without power says
            // nothing.
            if run.one_in(2) {
                for other in others(host) {
                    sim.partition(host.as_str(), other);
                }
                run.count(if is_server {
                    "server without power"
                } else {
                    "client without power"
                });
            } else {
                run.count(if is_server {
                    "server crash"
                } else {
                    "client crash"
                });
            }
            sim.crash(host.as_str());
        }
    }
}

fn others(host: &str) -> impl Iterator<Item = String> {
    let servers = (0..SERVERS).map(server_name);
    let all = servers.chain((0..CLIENTS).map(client_name));
    all.filter(move |other| other != host)
}
