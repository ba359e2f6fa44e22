//! Every interleaving of a switch, with members that fail at any step.
//!
//! The members here are made of the same [`Ownership`] and [`Standing`] that run in production. What
//! is around them is a model: one queue, a broker that serves what it has, a state store that answers
//! with what is out of date, members that crash or fall asleep and wake up as if nothing had happened.
//! In every state that can be reached each message must have been handled by its owner only, and must
//! be handled once those that work go on.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "how much was explored")]

mod actor;
mod explore;
mod wander;
mod world;

use gray_mq::Side;
use gray_propagation::Lane;

use self::actor::{Actor, Kind};
use self::explore::explore;
use self::wander::wander;
use self::world::{Budget, World};

const GRAY: Side = Side::Lane(Lane::GRAY);

#[track_caller]
fn check(actors: Vec<Actor>, budget: Budget) {
    // All of them where it is a long proof.
    let settled = if asked().is_some() { 1 } else { 16 };
    let (states, wrong) = explore(World::new(actors, budget), settled);
    assert_eq!(wrong, None, "{states} states");
    assert!(states > 1_000, "only {states} states: nothing happens");
    println!("{states} states");
}

/// How much happens: more messages where it is a long proof.
fn budget(requests: u8, failures: u8, abandons: u8) -> Budget {
    Budget { messages: asked().unwrap_or(1), requests, failures, abandons }
}

fn asked() -> Option<u64> {
    std::env::var("GRAYLANE_MESSAGES").ok().and_then(|text| text.parse().ok())
}

#[test]
fn a_base_member_fails_at_any_step() {
    let actors = vec![
        Actor::new(Side::Base, Kind::Failing),
        Actor::new(Side::Base, Kind::Plain),
        Actor::new(GRAY, Kind::Plain),
    ];
    check(actors, budget(1, 1, 0));
}

#[test]
fn a_gray_member_fails_at_any_step() {
    let actors = vec![
        Actor::new(Side::Base, Kind::Plain),
        Actor::new(GRAY, Kind::Failing),
        Actor::new(GRAY, Kind::Plain),
    ];
    check(actors, budget(1, 1, 0));
}

#[test]
fn either_of_two_fails_at_any_step() {
    let actors = vec![Actor::new(Side::Base, Kind::Failing), Actor::new(GRAY, Kind::Failing)];
    check(actors, budget(1, 1, 0));
}

#[test]
fn a_lane_opens_and_closes() {
    let actors = vec![Actor::new(Side::Base, Kind::Stepwise), Actor::new(GRAY, Kind::Plain)];
    check(actors, budget(2, 0, 1));
}

/// Larger worlds, by a thousand seeds: three members of each side of which two may fail, and many switches.
#[test]
fn a_thousand_walks_go_well() {
    let kinds = [Kind::Failing, Kind::Failing, Kind::Stepwise];
    let actors = || {
        let of = |side| kinds.map(|kind| Actor::new(side, kind));
        [of(Side::Base), of(GRAY)].concat()
    };
    let budget = Budget { messages: 40, requests: 12, failures: 8, abandons: 3 };
    for seed in 0..1_000 {
        assert_eq!(wander(World::new(actors(), budget.clone()), seed), None);
    }
}
