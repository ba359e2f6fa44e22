use std::cell::{Cell, OnceCell};
use std::net::IpAddr;

use jiff::Timestamp;

use crate::cookie::cookie;
use crate::share::IssuedId;
use crate::{Head, Place, Places, Unknown, Users};

/// What the gateway can find out about a request beyond its head.
#[derive(Debug, Default)]
pub struct Senses {
    /// Who the user is.
    pub users: Users,
    /// Where addresses are.
    pub places: Places,
    /// The cookie by which clients without any other key are known again, where it is switched on.
    pub issued_cookie: Option<String>,
}

/// One request as its rules see it; what costs something is found out when first asked for.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) head: &'a Head<'a>,
    senses: &'a Senses,
    user: OnceCell<Option<Vec<u8>>>,
    place: OnceCell<Option<Place>>,
    now: OnceCell<Timestamp>,
    issued: Cell<Option<IssuedId>>,
}

impl<'a> Subject<'a> {
    pub(crate) const fn new(head: &'a Head<'a>, senses: &'a Senses) -> Self {
        Self {
            head,
            senses,
            user: OnceCell::new(),
            place: OnceCell::new(),
            now: OnceCell::new(),
            issued: Cell::new(None),
        }
    }

    pub(crate) fn user(&self) -> Option<&[u8]> {
        self.user.get_or_init(|| self.senses.users.find(self.head)).as_deref()
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.get_or_init(|| self.senses.places.find(self.head.client)).as_ref()
    }

    pub(crate) fn now(&self) -> Timestamp {
        *self.now.get_or_init(Timestamp::now)
    }

    pub(crate) fn client(&self) -> IpAddr {
        self.head.client
    }

    /// Returns the key by which the client is known again, drawing one if it has none yet.
    pub(crate) fn issued_key(&self) -> Option<Vec<u8>> {
        let name = self.senses.issued_cookie.as_deref()?;
        if let Some(key) = cookie(self.head.headers, name).filter(|key| !key.is_empty()) {
            return Some(key.to_vec());
        }
        let id = self.issued.get().unwrap_or_else(IssuedId::draw);
        self.issued.set(Some(id));
        Some(id.as_bytes().to_vec())
    }

    /// Returns what was asked for and is not known.
    pub(crate) fn unknown(&self) -> Unknown {
        Unknown {
            user: matches!(self.user.get(), Some(None)),
            place: matches!(self.place.get(), Some(None)),
        }
    }

    /// Returns the key that was drawn for this request, if one was.
    pub(crate) const fn issued(&self) -> Option<IssuedId> {
        self.issued.get()
    }
}
