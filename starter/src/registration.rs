//! A copy of a service in the registry.

#[cfg(feature = "nacos")]
use crate::nacos::Kept;

/// Nobody is kept where there is no Nacos.
#[cfg(not(feature = "nacos"))]
#[derive(Debug)]
pub(crate) enum Kept {}

#[cfg(not(feature = "nacos"))]
impl Kept {
    async fn end(self) {
        match self {}
    }
}

/// A copy of a service in the registry, from [`register`](crate::Starter::register) to its end.
///
/// Dropped, it is kept no more, and leaves the registry when the connection to it is missed, which lives as
/// long as the last of its [`Starter`](crate::Starter): [`end`](Self::end) it instead.
///
/// ```no_run
/// # async fn example() -> Result<(), gray_starter::StartError> {
/// let starter = gray_starter::Starter::from_env("order-app")?;
/// let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
/// // Serve by whatever server it is; once it is ready:
/// let registration = starter.register(listener.local_addr()?).await?;
/// // And before it stops:
/// registration.end().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a registration that is dropped is not kept any more"]
pub struct Registration(Option<Kept>);

impl Registration {
    /// A registration that is none, since the registry is a file.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    #[cfg(feature = "nacos")]
    pub(crate) const fn of(kept: Kept) -> Self {
        Self(Some(kept))
    }

    /// Tells whether there is anything to take off.
    pub const fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Takes the copy off the registry, so that nobody sends it anything new; what was sent already
    /// has to be served.
    pub async fn end(self) {
        if let Some(kept) = self.0 {
            kept.end().await;
        }
    }
}
