//! Where documents come from.

mod file;
mod merged;
#[cfg(feature = "nacos")]
mod nacos;

use futures_util::stream::BoxStream;

use crate::Documents;

pub use self::file::FileSource;
pub use self::merged::Merged;
#[cfg(feature = "nacos")]
pub use self::nacos::NacosSource;

/// News from a source.
#[derive(Clone, Debug)]
pub enum Update {
    /// The documents as they are now, all of them.
    Documents(Documents),
    /// The documents cannot be had at the moment; the last ones stay in force.
    Unavailable(SourceError),
}

/// Why documents cannot be had, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}: {reason}")]
pub struct SourceError {
    /// The file, or the server with its data id.
    pub source_name: String,
    /// What happened.
    pub reason: String,
    /// Whether the source itself says that there is no such document: nothing is wrong with the source.
    pub is_missing: bool,
}

/// A place that documents come from.
pub trait ConfigSource: Send {
    /// Returns the news of this source: the present state first, then every change of it.
    ///
    /// The stream may skip states that were replaced before anybody looked, never the last one.
    fn updates(self: Box<Self>) -> BoxStream<'static, Update>;
}
