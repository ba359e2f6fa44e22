use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::mysql::{MySqlPool, MySqlPoolOptions};
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::OnceCell;

use super::{Entry, StateStore, StoreError};

/// How long it may take until there is a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// Keeps tables in a PostgreSQL, MySQL or MariaDB database, in a table of its own.
#[derive(Debug)]
pub struct SqlStore {
    database: Database,
    /// Where it is, without the password.
    place: String,
    created: OnceCell<()>,
}

#[derive(Debug)]
enum Database {
    Postgres(PgPool),
    MySql(MySqlPool),
}

impl SqlStore {
    /// Keeps tables in a database, given as `postgres://user:password@host/name` or `mysql://…`. It is
    /// connected to when it is first needed, and again when it has been away; the table
    /// `graylane_mq_state` is created where it is not there.
    ///
    /// # Errors
    ///
    /// Where the URL is none of such a database.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let place = place(url);
        let failed = |source| StoreError { place: place.clone(), what: "being opened", source };
        let database = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => {
                let options = PgPoolOptions::new().max_connections(2).acquire_timeout(CONNECT);
                options.connect_lazy(url).map(Database::Postgres)
            }
            Some("mysql" | "mariadb") => {
                let options = MySqlPoolOptions::new().max_connections(2).acquire_timeout(CONNECT);
                options.connect_lazy(url).map(Database::MySql)
            }
            _ => {
                let what = "a database is given as postgres://… or mysql://…";
                return Err(failed(what.into()));
            }
        };
        let database = database.map_err(|error| failed(error.into()))?;
        Ok(Self { database, place, created: OnceCell::new() })
    }

    /// Makes sure that its table is there.
    async fn ready(&self) -> Result<(), StoreError> {
        let create =
            async || self.create().await.map_err(|error| self.failed("creating its table", error));
        self.created.get_or_try_init(create).await.copied()
    }

    async fn create(&self) -> Result<(), sqlx::Error> {
        match &self.database {
            Database::Postgres(pool) => {
                let create = "CREATE TABLE IF NOT EXISTS graylane_mq_state (\
                              id VARCHAR(767) PRIMARY KEY, revision BIGINT NOT NULL, \
                              document TEXT NOT NULL)";
                sqlx::query(create).execute(pool).await.map(drop)
            }
            Database::MySql(pool) => {
                let create = "CREATE TABLE IF NOT EXISTS graylane_mq_state (\
                              id VARCHAR(767) CHARACTER SET ascii COLLATE ascii_bin PRIMARY KEY, \
                              revision BIGINT NOT NULL, document MEDIUMTEXT NOT NULL)";
                sqlx::query(create).execute(pool).await.map(drop)
            }
        }
    }

    fn failed(&self, what: &'static str, error: sqlx::Error) -> StoreError {
        StoreError { place: self.place.clone(), what, source: error.into() }
    }

    async fn read_entry(&self, key: &str) -> Result<Option<Entry>, sqlx::Error> {
        const POSTGRES: &str = "SELECT revision, document FROM graylane_mq_state WHERE id = $1";
        const MYSQL: &str = "SELECT revision, document FROM graylane_mq_state WHERE id = ?";
        let row: Option<(i64, String)> = match &self.database {
            Database::Postgres(pool) => {
                sqlx::query_as(POSTGRES).bind(key).fetch_optional(pool).await?
            }
            Database::MySql(pool) => sqlx::query_as(MYSQL).bind(key).fetch_optional(pool).await?,
        };
        Ok(row.map(|(revision, text)| Entry { text, revision: revision.to_string() }))
    }

    /// Returns how many rows were written.
    async fn replace(&self, key: &str, seen: &Entry, text: &str) -> Result<u64, sqlx::Error> {
        const POSTGRES: &str = "UPDATE graylane_mq_state SET document = $1, \
                                revision = revision + 1 WHERE id = $2 AND revision = $3";
        const MYSQL: &str = "UPDATE graylane_mq_state SET document = ?, \
                             revision = revision + 1 WHERE id = ? AND revision = ?";
        let revision: i64 = seen.revision.parse().unwrap_or(-1);
        Ok(match &self.database {
            Database::Postgres(pool) => {
                let query = sqlx::query(POSTGRES).bind(text).bind(key).bind(revision);
                query.execute(pool).await?.rows_affected()
            }
            Database::MySql(pool) => {
                let query = sqlx::query(MYSQL).bind(text).bind(key).bind(revision);
                query.execute(pool).await?.rows_affected()
            }
        })
    }

    /// Writes what was not there; `false` where it is there by now.
    async fn create_entry(&self, key: &str, text: &str) -> Result<bool, sqlx::Error> {
        const POSTGRES: &str =
            "INSERT INTO graylane_mq_state (id, revision, document) VALUES ($1, 1, $2)";
        const MYSQL: &str =
            "INSERT INTO graylane_mq_state (id, revision, document) VALUES (?, 1, ?)";
        let created = match &self.database {
            Database::Postgres(pool) => {
                sqlx::query(POSTGRES).bind(key).bind(text).execute(pool).await.map(drop)
            }
            Database::MySql(pool) => {
                sqlx::query(MYSQL).bind(key).bind(text).execute(pool).await.map(drop)
            }
        };
        match created {
            Ok(()) => Ok(true),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn find(&self, prefix: &str) -> Result<Vec<String>, sqlx::Error> {
        const POSTGRES: &str =
            "SELECT id FROM graylane_mq_state WHERE LEFT(id, $1) = $2 ORDER BY id";
        const MYSQL: &str = "SELECT id FROM graylane_mq_state WHERE LEFT(id, ?) = ? ORDER BY id";
        let length = i32::try_from(prefix.len()).unwrap_or(i32::MAX);
        let rows: Vec<(String,)> = match &self.database {
            Database::Postgres(pool) => {
                sqlx::query_as(POSTGRES).bind(length).bind(prefix).fetch_all(pool).await?
            }
            Database::MySql(pool) => {
                sqlx::query_as(MYSQL).bind(length).bind(prefix).fetch_all(pool).await?
            }
        };
        Ok(rows.into_iter().map(|(id,)| id).collect())
    }
}

/// Returns where a database is, without who asks it.
fn place(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{}", host.split('?').next().unwrap_or_default())
}

impl StateStore for SqlStore {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        async move {
            self.ready().await?;
            self.read_entry(key).await.map_err(|error| self.failed("reading", error))
        }
        .boxed()
    }

    fn swap<'a>(
        &'a self,
        key: &'a str,
        seen: Option<&'a Entry>,
        text: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            self.ready().await?;
            let swapped = match seen {
                Some(seen) => self.replace(key, seen, text).await.map(|rows| rows > 0),
                None => self.create_entry(key, text).await,
            };
            swapped.map_err(|error| self.failed("writing", error))
        }
        .boxed()
    }

    fn keys<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            self.ready().await?;
            self.find(prefix).await.map_err(|error| self.failed("listing", error))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(place("postgres://me:secret@db:5432/mq?x=y"), "postgres://db:5432/mq");
        assert_eq!(place("mysql://db/mq"), "mysql://db/mq");
    }
}
