use std::sync::Arc;

use anyhow::bail;
use clap::ValueEnum;
use gray_config::nacos::NacosProperties;
use gray_mq::{StateStore, open_store};
use gray_tests::{Database, Kind, Nacos, Sql};

/// Where the tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// In PostgreSQL.
    #[default]
    Postgres,
    /// In MariaDB.
    Mariadb,
    /// In the documents of a Nacos server.
    Nacos,
}

impl Place {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Mariadb => "MariaDB",
            Self::Nacos => "Nacos",
        }
    }
}

/// The server that keeps the tables.
pub(crate) enum Server {
    Sql(Database),
    Nacos(Nacos),
}

impl Server {
    pub(crate) async fn start(place: Place) -> anyhow::Result<Self> {
        Ok(match place {
            Place::Postgres => Self::Sql(Database::start(Sql::Postgres)?),
            Place::Mariadb => Self::Sql(Database::start(Sql::Maria)?),
            Place::Nacos => Self::Nacos(Nacos::start(Kind::Java).await?),
        })
    }

    /// Returns what [`open`] finds it by.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sql(database) => database.url(),
            Self::Nacos(nacos) => format!("nacos:{}", nacos.address()),
        }
    }

    pub(crate) fn kill(&mut self) {
        match self {
            Self::Sql(database) => database.kill(),
            Self::Nacos(nacos) => nacos.kill(),
        }
    }

    /// Starts it again on what it left behind.
    pub(crate) async fn run(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Sql(database) => database.run(),
            Self::Nacos(nacos) => nacos.run().await,
        }
    }
}

/// Opens the store at a server.
pub(crate) async fn open(url: &str) -> anyhow::Result<Arc<dyn StateStore>> {
    let Some(address) = url.strip_prefix("nacos:") else {
        return Ok(open_store(url, None).await?);
    };
    if address.is_empty() {
        bail!("`{url}` names no server");
    }
    let properties =
        NacosProperties { servers: vec![address.to_owned()], ..NacosProperties::default() };
    Ok(open_store("nacos", Some(&properties)).await?)
}
