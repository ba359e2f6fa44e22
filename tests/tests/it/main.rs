//! The whole system on 127.0.0.1.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

mod calls;
mod chain;
mod cli;
mod demo;
mod disk;
mod docker;
mod docs;
mod draining;
mod edge;
mod fallback;
mod flips;
mod forging;
mod interop;
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
mod tags;
mod tidy;
mod tokens;
mod traces;
mod upstreams;
mod walkthrough;
