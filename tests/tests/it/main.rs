//! The whole system on 127.0.0.1.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

/// Makes tests of functions that take a release of RocketMQ, on each of them.
macro_rules! on_each_rocketmq {
    ($module:ident, $release:expr, $($test:ident),*) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() -> anyhow::Result<()> {
                    super::$test($release).await
                }
            )*
        }
    };
    ($($test:ident),* $(,)?) => {
        on_each_rocketmq!(on_rocketmq_4, gray_tests::Release::Four, $($test),*);
        on_each_rocketmq!(on_rocketmq_5, gray_tests::Release::Five, $($test),*);
    };
}

mod calls;
mod chain;
mod cli;
mod demo;
mod disk;
mod docker;
mod docs;
mod draining;
mod edge;
mod environment;
mod explaining;
mod fallback;
mod flips;
mod forging;
mod impossible;
mod interop;
mod letter;
mod listening;
mod lists;
mod messages;
mod model;
mod nacos;
mod observing;
mod operating;
mod outage;
mod places;
mod producing;
mod proxying;
mod retries;
mod rewriting;
mod rocketmq;
mod servers;
mod slowness;
mod starting;
mod stores;
mod streams;
mod tags;
mod tidy;
mod tokens;
mod traces;
mod upstreams;
mod walkthrough;
mod wire;
