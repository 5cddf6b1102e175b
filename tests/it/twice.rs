//! Tests that run both in a task and outside of one. In a task, a timer is kept from wait to wait. Outside, in
//! `block_on`, it is made anew for each, because the runtime is unknown.

use tokio::task::{LocalSet, spawn_local};

/// Makes a test of each function twice. Time is `paused`, or `passes`.
macro_rules! twice {
    ($($time:ident { $($test:ident,)* })*) => {
        mod outside_of_tasks {
            $($(twice! { @ $time $test super::$test() })*)*
        }
        mod in_a_task {
            $($(twice! { @ $time $test crate::twice::in_a_task(super::$test()) })*)*
        }
    };
    (@ paused $test:ident $run:expr) => {
        #[tokio::test(start_paused = true)]
        async fn $test() {
            $run.await;
        }
    };
    (@ passes $test:ident $run:expr) => {
        #[tokio::test]
        async fn $test() {
            $run.await;
        }
    };
}

pub(super) async fn in_a_task(test: impl Future<Output = ()> + 'static) {
    let tasks = LocalSet::new();
    let test = tasks.run_until(async { spawn_local(test).await });
    test.await.unwrap();
}
