use std::sync::Arc;

use gray_config::nacos::{Link, Module, NacosProperties};

use super::{MemoryStore, NacosStore, SqlStore, StateStore, StoreError, UnfitStore};

/// Why a state store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is of no kind that there is.
    #[error("`{0}` is no state store: `memory`, `nacos`, `postgres://…` and `mysql://…` are")]
    Unknown(String),
    /// No Nacos server was named.
    #[error("the state is to be kept in Nacos, and no server is named")]
    NoNacos,
    /// The Nacos server cannot keep it.
    #[error(transparent)]
    Unfit(#[from] UnfitStore),
    /// It cannot be reached, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the state store of a name: `memory`, for one process only; `nacos`, as documents of the group
/// `DEFAULT_GROUP` on these servers; or the URL of a database.
///
/// # Errors
///
/// See [`OpenError`].
pub async fn open_store(
    name: &str,
    nacos: Option<&NacosProperties>,
) -> Result<Arc<dyn StateStore>, OpenError> {
    match name.split(':').next().unwrap_or_default() {
        "memory" => Ok(Arc::new(MemoryStore::default())),
        "nacos" => {
            let link = Link::new(nacos.ok_or(OpenError::NoNacos)?.clone(), Module::Config);
            let mut states = link.state();
            // Whether it is reached says the first thing that is asked.
            let connected = states.wait_for(|state| state.connected);
            let _ = tokio::time::timeout(link.properties().timeout.0, connected).await;
            Ok(Arc::new(NacosStore::open(link, "DEFAULT_GROUP").await?))
        }
        "postgres" | "postgresql" | "mysql" | "mariadb" => {
            Ok(Arc::new(SqlStore::connect(name).await?))
        }
        _ => Err(OpenError::Unknown(name.to_owned())),
    }
}
