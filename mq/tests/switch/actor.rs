//! The members of the modelled world: what each knows, and what it is about to do.

use gray_mq::{Side, Standing};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Actor {
    pub(crate) side: Side,
    pub(crate) kind: Kind,
    pub(crate) state: State,
    /// Others may take it off.
    pub(crate) missing: bool,
    /// What it pulls next.
    pub(crate) position: u64,
    /// What its last pull brought and is still to be judged.
    pub(crate) pulled: std::ops::Range<u64>,
    /// An acknowledgement that it is about to write.
    pub(crate) owes: Option<u64>,
    /// Where the queue ended after it had read the table as it still is.
    pub(crate) end: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Works. What it does on its own, without anybody being able to tell, happens at once.
    Plain,
    /// Works; others may come between any two of its steps.
    Stepwise,
    /// Does so too, and may fail between any two.
    Failing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Off,
    On(Standing),
    Dead,
}

impl Actor {
    pub(crate) const fn new(side: Side, kind: Kind) -> Self {
        Self {
            side,
            kind,
            state: State::Off,
            missing: false,
            position: 0,
            pulled: 0..0,
            owes: None,
            end: None,
        }
    }

    pub(crate) const fn standing(&mut self) -> Option<&mut Standing> {
        match &mut self.state {
            State::On(standing) => Some(standing),
            State::Off | State::Dead => None,
        }
    }
}
