use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use maxminddb::Reader;
use serde::Deserialize;

use super::Place;
use super::xdb::{InvalidXdb, Xdb};

/// Why a database of places cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is none of ip2region, or is damaged.
    #[error("{path} is no database of places")]
    Xdb {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidXdb,
    },
    /// The file is no database in `MaxMind`'s format, or is damaged.
    #[error("{path} is no usable mmdb file")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: maxminddb::MaxMindDbError,
    },
}

/// A file in `MaxMind`'s format, in the nested layout of `GeoIP2` or the flat one of ip-location-db,
/// or in ip2region's.
pub struct Database {
    path: PathBuf,
    format: Format,
}

enum Format {
    Mmdb(Reader<Vec<u8>>),
    Xdb(Xdb),
}

impl Database {
    /// Opens a database.
    ///
    /// # Errors
    ///
    /// See [`DatabaseError`].
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let bytes = std::fs::read(path)
            .map_err(|source| DatabaseError::Io { path: path.to_owned(), source })?;
        let path = path.to_owned();
        let format = if is_mmdb(&bytes) {
            match Reader::from_source(bytes) {
                Ok(reader) => Format::Mmdb(reader),
                Err(source) => return Err(DatabaseError::Format { path, source }),
            }
        } else {
            match Xdb::parse(bytes) {
                Ok(xdb) => Format::Xdb(xdb),
                Err(source) => return Err(DatabaseError::Xdb { path, source }),
            }
        };
        Ok(Self { path, format })
    }

    /// Returns the place of an address; a damaged record is as good as none.
    pub(super) fn find(&self, address: IpAddr) -> Option<Place> {
        match &self.format {
            Format::Xdb(xdb) => xdb.find(address),
            Format::Mmdb(reader) => {
                let record = reader.lookup(address).ok()?.decode::<Record>().ok()??;
                Some(record.into())
            }
        }
    }
}

/// Tells whether the mark of `MaxMind`'s format stands near the end, where it has to.
fn is_mmdb(bytes: &[u8]) -> bool {
    const MARK: &[u8] = b"\xab\xcd\xefMaxMind.com";
    let tail = bytes.len().saturating_sub(128 << 10);
    bytes.get(tail..).is_some_and(|tail| tail.windows(MARK.len()).any(|part| part == MARK))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.path.display())
    }
}

/// Both layouts at once: in the flat one the fields are texts, in the nested one they are records.
#[derive(Deserialize)]
struct Record {
    #[serde(default)]
    country: Option<Names>,
    #[serde(default)]
    country_code: Option<String>,
    #[serde(default)]
    subdivisions: Vec<Names>,
    #[serde(default)]
    state1: Option<String>,
    #[serde(default)]
    city: Option<Names>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    Flat(String),
    Nested {
        #[serde(default)]
        iso_code: Option<String>,
        #[serde(default)]
        names: BTreeMap<String, String>,
    },
}

impl Names {
    fn all(&self) -> Vec<&str> {
        match self {
            Self::Flat(name) => vec![name],
            Self::Nested { iso_code, names } => {
                names.values().map(String::as_str).chain(iso_code.as_deref()).collect()
            }
        }
    }
}

impl From<Record> for Place {
    fn from(record: Record) -> Self {
        let mut country = record.country.as_ref().map(Names::all).unwrap_or_default();
        country.extend(record.country_code.as_deref());
        let mut province = record.subdivisions.first().map(Names::all).unwrap_or_default();
        province.extend(record.state1.as_deref());
        let city = record.city.as_ref().map(Names::all).unwrap_or_default();
        Self::new(&country, &province, &city)
    }
}

#[cfg(test)]
mod tests {
    use mmdb_writer::Writer;
    use serde_json::json;

    use super::*;

    fn database(network: &str, record: &serde_json::Value) -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("city.mmdb");
        let mut writer = Writer::new("City");
        writer.insert(network.parse::<ipnet::IpNet>().unwrap(), record).unwrap();
        std::fs::write(&path, writer.to_bytes().unwrap()).unwrap();
        let database = Database::open(&path).unwrap();
        (folder, database)
    }

    #[test]
    fn reads_the_nested_layout() {
        let (_folder, database) = database(
            "1.2.3.0/24",
            &json!({
                "city": { "names": { "en": "Shenzhen", "zh-CN": "深圳市" } },
                "subdivisions": [{ "iso_code": "GD", "names": { "zh-CN": "广东" } }],
                "country": { "iso_code": "CN", "names": { "en": "China" } },
            }),
        );
        let place = database.find("1.2.3.4".parse().unwrap()).unwrap();
        assert_eq!(place, Place::new(&["CN", "China"], &["广东", "GD"], &["Shenzhen", "深圳市"]));
        assert!(database.find("1.2.4.4".parse().unwrap()).is_none());
    }

    #[test]
    fn reads_the_flat_layout() {
        let (_folder, database) = database(
            "2001:db8::/32",
            &json!({ "city": "Shenzhen", "state1": "Guangdong", "country_code": "CN" }),
        );
        let place = database.find("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(place, Place::new(&["CN"], &["Guangdong"], &["Shenzhen"]));
    }

    #[test]
    fn refuses_what_is_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.mmdb");
        std::fs::write(&path, "no database").unwrap();
        assert!(matches!(Database::open(&path), Err(DatabaseError::Xdb { .. })));
    }
}
