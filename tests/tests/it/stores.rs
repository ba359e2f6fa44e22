//! Stores of tables: whoever writes must have seen what it replaces, on every real server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use gray_config::nacos::NacosProperties;
use gray_mq::{
    Ledger, MemberId, MemoryStore, OpenError, Ownership, Side, SqlStore, StateStore, UnknownMember,
    open_store,
};
use gray_tests::{Database, Kind, Nacos, Sql, eventually};

const LIMIT: Duration = Duration::from_secs(20);

/// What holds for every store.
async fn compares_before_it_writes(store: Arc<dyn StateStore>) -> anyhow::Result<()> {
    let key = "graylane.mq.g.t";
    ensure!(store.read(key).await?.is_none(), "something is there");
    ensure!(store.swap(key, None, "one").await?, "not created");
    // A write may take a moment to be seen.
    let first = eventually(LIMIT, async || store.read(key).await?.context("not there")).await?;
    ensure!(first.text == "one", "{first:?}");
    ensure!(!store.swap(key, None, "two").await?, "created twice");
    ensure!(store.swap(key, Some(&first), "two").await?, "not replaced");
    ensure!(!store.swap(key, Some(&first), "three").await?, "replaced by who has not seen it");
    let second = eventually(LIMIT, async || {
        let entry = store.read(key).await?.context("not there")?;
        ensure!(entry.revision != first.revision, "out of date");
        Ok(entry)
    })
    .await?;
    ensure!(second.text == "two", "{second:?}");
    let keys = store.keys("graylane.mq.").await?;
    ensure!(keys == [key] && store.keys("other").await?.is_empty(), "{keys:?}");
    // The tables of two groups' retries, which differ where their names are longest.
    let long = ["a", "b"]
        .map(|end| format!("graylane.mq.{}.:rRETRY:r{}{end}", "g".repeat(119), "g".repeat(119)));
    for key in &long {
        ensure!(store.swap(key, None, key).await?, "not created");
    }
    for key in &long {
        let entry = eventually(LIMIT, async || store.read(key).await?.context("not there")).await?;
        ensure!(entry.text == *key, "{entry:?}");
        ensure!(store.keys("graylane.mq.g").await?.contains(key), "not listed");
    }
    everybody_is_heard(store).await
}

/// Many who write at once: nobody's change is lost.
async fn everybody_is_heard(store: Arc<dyn StateStore>) -> anyhow::Result<()> {
    const WRITERS: u64 = 8;
    const CHANGES: u64 = 5;
    let ledger = Ledger::new(store, "group", "%RETRY%topic");
    let writers = (0..WRITERS).map(|writer| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for number in 0..CHANGES {
                let register = |table: &mut Ownership| {
                    table.register(MemberId::new(&format!("w{writer}"), number), Side::Base);
                    Ok::<_, UnknownMember>(())
                };
                ledger.change(register).await.map_err(|error| anyhow::anyhow!("{error}"))?;
            }
            anyhow::Ok(())
        })
    });
    for writer in writers {
        writer.await??;
    }
    eventually(LIMIT, async || {
        let members = ledger.read().await?.members().len();
        ensure!(u64::try_from(members)? == WRITERS * CHANGES, "{members}");
        Ok(())
    })
    .await
}

/// A database that goes and comes back: an error meanwhile, and nothing lost.
async fn a_database_comes_back(kind: Sql) -> anyhow::Result<()> {
    let mut database = Database::start(kind)?;
    let store: Arc<dyn StateStore> = Arc::new(SqlStore::open(&database.url())?);
    compares_before_it_writes(Arc::clone(&store)).await?;
    let ledger = Ledger::new(Arc::clone(&store), "group", "%RETRY%topic");
    let before = ledger.read().await?;
    database.kill();
    let Err(error) = ledger.read().await else { bail!("read from nowhere") };
    ensure!(error.to_string().starts_with("the state store at"), "{error}");
    database.run()?;
    eventually(LIMIT, async || {
        ensure!(ledger.read().await? == before, "something else");
        Ok(())
    })
    .await
}

async fn open(nacos: &Nacos) -> Result<Arc<dyn StateStore>, OpenError> {
    let servers = vec![nacos.address()];
    let properties = NacosProperties { servers, ..NacosProperties::default() };
    open_store("nacos", Some(&properties)).await
}

#[tokio::test]
async fn memory_compares_before_it_writes() -> anyhow::Result<()> {
    compares_before_it_writes(Arc::new(MemoryStore::default())).await
}

#[tokio::test]
async fn a_database_of_another_kind_is_refused() -> anyhow::Result<()> {
    let Err(error) = SqlStore::open("sqlite://me:secret@file") else { bail!("taken") };
    let text = gray_config::causes(&error);
    ensure!(text.contains("postgres://") && !text.contains("secret"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_store_of_no_kind_is_refused() -> anyhow::Result<()> {
    let Err(error) = open_store("redis://x", None).await else { bail!("taken") };
    ensure!(error.to_string().contains("`postgres://…`"), "{error}");
    let Err(error) = open_store("nacos", None).await else { bail!("taken") };
    ensure!(matches!(error, OpenError::NoNacos), "{error}");
    Ok(())
}

mod on_postgresql {
    use super::*;

    #[tokio::test]
    async fn a_database_comes_back() -> anyhow::Result<()> {
        super::a_database_comes_back(Sql::Postgres).await
    }
}

mod on_mariadb {
    use super::*;

    #[tokio::test]
    async fn a_database_comes_back() -> anyhow::Result<()> {
        super::a_database_comes_back(Sql::Maria).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn compares_before_it_writes() -> anyhow::Result<()> {
        let nacos = Nacos::start(Kind::Java).await?;
        super::compares_before_it_writes(open(&nacos).await?).await
    }
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn a_server_that_does_not_compare_is_refused() -> anyhow::Result<()> {
        let nacos = Nacos::start(Kind::Rnacos).await?;
        let Err(error) = open(&nacos).await else { bail!("taken") };
        let text = gray_config::causes(&error);
        ensure!(text.contains("does not compare before it writes"), "{text}");
        Ok(())
    }
}
