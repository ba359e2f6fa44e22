//! Configuration that changes while the gateway runs.
//!
//! Documents are followed from their source (files, Nacos), parsed, and published whole. A document
//! that does not parse is reported and dropped, so readers keep the last good value. This crate
//! knows no rule and no version: it is given a parse function.
//!
//! - [`Live`] and [`Publisher`]: one writer, many readers, replaced whole.
//! - [`Document`]: YAML read into types, with all its faults at once and where they are.
//! - [`ConfigSource`]: where documents come from; [`follow`] keeps a value in step with them.
//! - [`Snapshot`]: the last good documents on disk, for a start without their source.

mod causes;
mod document;
mod environment;
mod fault;
mod follow;
mod human;
mod live;
#[cfg(feature = "nacos")]
pub mod nacos;
mod path;
mod problem;
mod snapshot;
mod source;
mod suggest;
mod yaml;

pub use self::causes::causes;
pub use self::document::{Document, Documents};
pub use self::environment::{Override, overrides_from};
pub use self::fault::{Fault, Faults, Severity};
pub use self::follow::{Follow, Health, follow};
pub use self::human::{ByteSize, HumanDuration};
pub use self::live::{Live, Publisher, live};
pub use self::path::KeyPath;
pub use self::problem::{Problem, Problems};
pub use self::snapshot::{Snapshot, SnapshotError};
#[cfg(feature = "nacos")]
pub use self::source::NacosSource;
pub use self::source::{ConfigSource, FileSource, Merged, SourceError, Update};
pub use self::suggest::did_you_mean;
