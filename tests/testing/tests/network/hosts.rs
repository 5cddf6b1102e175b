//! The programs of the simulated hosts: clients bring their blocks to servers, and go on at the
//! block that the server names whenever they have to connect anew.

use std::{net::Ipv4Addr, rc::Rc, time::Duration};

use tokio::{
    select,
    task::JoinSet,
    time::{sleep, timeout},
};
use turmoil::net::{TcpListener, TcpStream};

use crate::{
    block::{self, HELLO, WANTED},
    connection::{Connection, Lost, STALL},
    run::{BLOCKS, Run, SERVERS},
};

const PORT: u16 = 8_800;

pub(crate) fn server_name(server: usize) -> String {
    format!("server-{server}")
}

pub(crate) fn client_name(client: usize) -> String {
    format!("client-{client}")
}

pub(crate) async fn server(run: Rc<Run>) -> turmoil::Result {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let mut served = JoinSet::new();
    loop {
        select! {
            biased; // chance comes from the seed only
            Some(ended) = served.join_next() => ended?,
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                let run = run.clone();
                served.spawn_local(async move { drop(serve(Connection::new(socket, run.clone()), &run).await) });
            }
        }
    }
}

pub(crate) async fn client(run: Rc<Run>, client: usize) -> turmoil::Result {
    let address = (server_name(client % SERVERS), PORT);
    while !run.done[client].get() {
        match timeout(STALL, TcpStream::connect(address.clone())).await {
            Ok(Ok(socket)) => match bring(Connection::new(socket, run.clone()), &run, client).await
            {
                Ok(()) => run.count("connection ended"),
                Err(Lost) => run.count("connection lost"),
            },
            Ok(Err(_)) => run.count("connection refused"),
            Err(_) => run.count("connecting timed out"),
        }
        sleep(Duration::from_millis(run.pick(5..=60))).await;
    }
    Ok(())
}

/// Records what a client brings, block by block, and says from time to time which it wants next.
async fn serve(mut connection: Connection, run: &Run) -> Result<(), Lost> {
    let Some(hello) = connection.take().await? else {
        return Ok(());
    };
    assert_eq!(hello.len(), 1, "a client that does not wait for the answer");
    let client = block::number(HELLO, &hello[0]).expect("another hello");
    let disk = &run.disks[client as usize];
    disk.connection.set(disk.connection.get() + 1);
    let this = disk.connection.get();
    let mut wanted = disk.wanted();
    connection.put(WANTED, vec![wanted]).await?;

    while let Some(blocks) = connection.take().await? {
        for block in blocks {
            let number = block::number(client, &block).expect("the contents are others");
            assert_eq!(number, wanted, "lost, repeated or out of order");
            // Writing takes time, in which the client may reconnect or the host may crash.
            let slowest = if run.one_in(20) { 200 } else { 4 };
            sleep(Duration::from_millis(run.pick(0..=slowest))).await;
            if disk.connection.get() != this {
                run.count("connection superseded");
                return Err(Lost);
            }
            disk.record(block);
            wanted += 1;
            // Not while the client may still be sending, because each could wait for the other to read.
            if wanted == run.until(wanted) {
                connection.put(WANTED, vec![wanted]).await?;
            }
        }
    }
    connection.close().await
}

/// Sends from the block that the server wants, some at a time, until it has recorded all.
async fn bring(mut connection: Connection, run: &Run, client: usize) -> Result<(), Lost> {
    connection.put(HELLO, vec![client as u64]).await?;
    let Some(answer) = connection.take().await? else {
        return Err(Lost);
    };
    assert_eq!(answer.len(), 1, "acknowledged before anything was sent");
    let mut recorded = block::number(WANTED, &answer[0]).expect("another answer");
    if recorded > 0 {
        run.count("resumed");
    }
    while recorded < BLOCKS {
        let until = run.until(recorded + 1);
        connection
            .put(client as u64, (recorded..until).collect())
            .await?;
        let Some(answer) = connection.take().await? else {
            return Err(Lost);
        };
        assert_eq!(answer.len(), 1, "acknowledged before anything was sent");
        recorded = block::number(WANTED, &answer[0]).expect("another answer");
        assert_eq!(recorded, until);
    }
    run.done[client].set(true);
    connection.close().await?;
    let end = connection.take().await?;
    assert!(end.is_none(), "more blocks: {end:?}");
    Ok(())
}
