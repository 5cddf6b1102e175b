//! Hostile peers over TCP: each causes the right error, in time, and leaves nothing behind.
//!
//! Each rule makes hundreds of connections over 127.0.0.1; the last one makes two thousand. Both ends are
//! in this process, on one runtime of two workers. During the attacks and after them, a rule counts the
//! heap bytes, tasks and open files of the whole process. So this is a program of its own, and one rule
//! runs after the other.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("nothing was tested: open files are counted in /proc/self/fd, which Linux alone has");
}

#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod honest;
#[cfg(target_os = "linux")]
mod receiver;
#[cfg(target_os = "linux")]
mod resources;
#[cfg(target_os = "linux")]
mod sender;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    rules::run()
}

#[cfg(target_os = "linux")]
mod rules {
    use std::{
        process::ExitCode,
        sync::{Arc, LazyLock},
        time::Duration,
    };

    use libtest_mimic::{Arguments, Trial};
    use tokio::{
        runtime::{Builder, Runtime},
        time::timeout,
    };

    use crate::{
        crowd::{Attack, Crowd},
        honest::Honest,
        receiver, resources, sender,
    };

    /// Hostile connections at once, beside `HONEST` others.
    const HOSTILE: usize = 2_000;
    const HONEST: usize = 50;

    /// Connections at once in a rule about attacks of one sort.
    const OF_ONE_SORT: usize = 240;

    /// Attacks of each of the two thousand, one after the other.
    const ROUNDS: usize = 4;

    /// Nothing here takes half as long. The limit turns a hang into a failure.
    const LIMIT: Duration = Duration::from_secs(120);

    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    });

    pub(crate) fn run() -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = Some(1); // the counts are of the whole process
        let mut trials = vec![
            of_one_sort(
                "the_largest_announcement_of_every_width_reserves_nothing",
                receiver::announcements,
                resources::OF_A_SILENT_PEER,
            ),
            of_one_sort(
                "silence_at_every_stage_ends_at_the_stall_timeout",
                receiver::silences,
                resources::OF_A_SILENT_PEER,
            ),
            of_one_sort(
                "a_byte_at_a_time_ends_at_the_block_deadline",
                receiver::dribbles,
                resources::OF_A_SILENT_PEER,
            ),
            of_one_sort(
                "a_flood_of_empty_blocks_is_counted_to_the_last",
                receiver::floods,
                resources::OF_ANY_PEER,
            ),
            of_one_sort(
                "a_block_that_looks_like_others_stays_one_block",
                receiver::decoys,
                resources::OF_ANY_PEER,
            ),
            of_one_sort(
                "a_half_close_is_clean_between_blocks_and_truncation_inside_one",
                receiver::half_closes,
                resources::OF_ANY_PEER,
            ),
            of_one_sort(
                "a_reset_is_an_error_at_every_stage",
                receiver::resets,
                resources::OF_ANY_PEER,
            ),
            of_one_sort(
                "a_reader_that_never_reads_stalls_its_sender",
                sender::never_read,
                resources::OF_ANY_PEER,
            ),
            of_one_sort(
                "a_peer_gone_while_1_gib_is_sent_is_noticed",
                sender::gone,
                resources::OF_ANY_PEER,
            ),
        ];
        trials.push(Trial::test(
            "two_thousand_hostile_peers_at_once_cost_fifty_honest_ones_no_block",
            || {
                within_limit(beside_honest_ones());
                Ok(())
            },
        ));
        libtest_mimic::run(&arguments, trials).exit_code()
    }

    fn of_one_sort(name: &str, attacks: fn() -> Vec<Arc<dyn Attack>>, heap_each: usize) -> Trial {
        Trial::test(name, move || {
            within_limit(among_themselves(attacks(), heap_each));
            Ok(())
        })
    }

    fn within_limit(rule: impl Future<Output = ()>) {
        let limited = async { timeout(LIMIT, rule).await.expect("it hangs") };
        RUNTIME.block_on(limited);
    }

    async fn among_themselves(attacks: Vec<Arc<dyn Attack>>, heap_each: usize) {
        let count = OF_ONE_SORT.min(connections_possible());
        // The first few leave a read buffer on each thread, and make tokio allocate what it keeps.
        Crowd::new(&attacks, 2 * attacks.len(), 1).run().await;
        let before = resources::settled().await;
        let report = Crowd::new(&attacks, count, 1).run().await;
        resources::assert_returned_to(&before).await;
        println!("{report}");
        report.assert_heap_each(&before, count, heap_each);
    }

    async fn beside_honest_ones() {
        let hostile = HOSTILE.min(connections_possible() - HONEST);
        let attacks = [
            receiver::announcements(),
            receiver::silences(),
            receiver::dribbles(),
            receiver::floods(),
            receiver::decoys(),
            receiver::half_closes(),
            receiver::resets(),
            sender::never_read(),
            sender::gone(),
        ]
        .concat();
        Crowd::new(&attacks, 2 * attacks.len(), 1).run().await;
        Honest::start(HONEST).await.finish().await;
        let before = resources::settled().await;

        let alone = Honest::start(HONEST).await;
        tokio::time::sleep(Duration::from_secs(2)).await; // the time that is measured
        let alone = alone.finish().await;

        let honest = Honest::start(HONEST).await;
        let report = Crowd::new(&attacks, hostile, ROUNDS).run().await;
        let beside = honest.finish().await;

        resources::assert_returned_to(&before).await;
        println!("{report}");
        println!("{HONEST} honest peers alone: {alone}");
        println!("{HONEST} honest peers beside {hostile} hostile ones: {beside}");
        report.assert_heap_each(&before, hostile + HONEST, resources::OF_ANY_PEER);
    }

    /// Connections whose two ends fit the limit on open files.
    fn connections_possible() -> usize {
        const OTHER_FILES: usize = 100;
        let possible = (resources::raise_file_limit() - OTHER_FILES) / 2;
        if possible < HOSTILE + HONEST {
            println!(
                "SCALED DOWN: the limit on open files allows {possible} connections of the {} \
                 that this test is about: ulimit -Hn {}",
                HOSTILE + HONEST,
                2 * (HOSTILE + HONEST) + OTHER_FILES
            );
        }
        assert!(possible >= 4 * HONEST, "too few to prove anything");
        possible
    }
}
