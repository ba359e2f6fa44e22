use gray_filters::{Classified, ClientAddr, Head, Subject};

use super::RequestHead;
use crate::observe::Trail;
use crate::revision::Revision;

/// A request on its way through the gateway.
#[derive(Debug)]
pub struct Call<B> {
    /// Its head.
    pub head: Box<RequestHead>,
    /// Its body.
    pub body: B,
    /// Who sent it.
    pub client: ClientAddr,
    /// What has become of it; nothing while nobody has classified it.
    pub trail: Option<Box<Trail>>,
}

impl<B> Subject<Revision> for Call<B> {
    fn head(&self) -> Head<'_> {
        let RequestHead { method, target, fields, .. } = &*self.head;
        Head {
            method,
            path: target.path(),
            query: target.query(),
            target_host: target.authority().map(http::uri::Authority::host),
            headers: fields,
            client: self.client.address,
        }
    }

    fn decided(&mut self, classified: Classified<Revision>) {
        self.trail = Some(Box::new(Trail::of(classified)));
    }
}
