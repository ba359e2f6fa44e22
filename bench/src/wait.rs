//! Waiting for sockets to become readable, in one thread.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// How many events are taken at a time.
const EVENTS: usize = 1024;

/// Sockets that are waited for, each by a number.
pub(crate) struct Sockets {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Sockets {
    pub(crate) fn new() -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Waits for a socket to become readable from now on.
    pub(crate) fn add(&self, socket: impl AsFd, number: usize) -> std::io::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?)
    }

    /// Waits for room to write in, or not any more, beside.
    pub(crate) fn writes(
        &self,
        socket: impl AsFd,
        number: usize,
        writes: bool,
    ) -> std::io::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        let flags = if writes {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::IN
        };
        Ok(epoll::modify(&self.epoll, socket, data, flags)?)
    }

    /// Returns the numbers of those that are ready, after at most so long; for ever where not given.
    pub(crate) fn ready(&mut self, most: Option<Duration>) -> std::io::Result<Vec<usize>> {
        let most = most.map(|most| Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: most.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), most.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let number = |event: &epoll::Event| usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
        Ok(self.events.iter().map(number).collect())
    }
}
