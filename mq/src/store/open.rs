use std::sync::Arc;

use gray_config::nacos::{Link, Module, NacosProperties};

use super::{MemoryStore, NacosStore, NotCompared, SqlStore, StateStore, StoreError};

/// Why a state store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is of no kind that there is.
    #[error("`{0}` is no state store: `memory`, `nacos`, `postgres://…` and `mysql://…` are")]
    Unknown(String),
    /// No Nacos server was named.
    #[error("the state is to be kept in Nacos, and no server is named")]
    NoNacos,
    /// It is not fit for it.
    #[error(transparent)]
    Unfit(#[from] StoreError),
}

/// What of a name may be shown: a URL may have a password in it.
fn without_secrets(name: &str) -> String {
    name.split_once("://").map_or_else(|| name.to_owned(), |(scheme, _)| format!("{scheme}://…"))
}

/// Opens the state store of a name: `memory`, for one process only; `nacos`, as documents of the group
/// `DEFAULT_GROUP` on these servers; or the URL of a database. A store that cannot be reached yet is
/// waited for by whoever needs it.
///
/// # Errors
///
/// See [`OpenError`]; a Nacos server that can be reached is refused where it is not fit.
pub async fn open_store(
    name: &str,
    nacos: Option<&NacosProperties>,
) -> Result<Arc<dyn StateStore>, OpenError> {
    match name.split(':').next().unwrap_or_default() {
        "memory" => Ok(Arc::new(MemoryStore::default())),
        "nacos" => {
            let link = Link::new(nacos.ok_or(OpenError::NoNacos)?.clone(), Module::Config);
            let (mut states, limit) = (link.state(), link.properties().timeout.0);
            let connected = tokio::time::timeout(limit, states.wait_for(|state| state.connected));
            let store = NacosStore::new(link.clone(), "DEFAULT_GROUP");
            if connected.await.is_ok()
                && let Err(error) = store.ready().await
            {
                if error.source.is::<NotCompared>() {
                    return Err(error.into());
                }
                tracing::warn!(%error, "the state store is not to be had yet");
            }
            Ok(Arc::new(store))
        }
        "postgres" | "postgresql" | "mysql" | "mariadb" => Ok(Arc::new(SqlStore::open(name)?)),
        _ => Err(OpenError::Unknown(without_secrets(name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_misspelt_shows_no_password() {
        let opened = open_store("postgre://user:secret@host/name", None).await;
        let said = opened.err().unwrap().to_string();
        assert!(said.contains("`postgre://…`") && !said.contains("secret"), "{said}");
    }
}
