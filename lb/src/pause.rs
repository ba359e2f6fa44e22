use tokio::time::Instant;

/// Waits for something, but not before a moment has come: what happens meanwhile is met at once, together.
pub(crate) async fn after<T>(ready_at: Instant, future: impl Future<Output = T>) -> T {
    tokio::time::sleep_until(ready_at).await;
    future.await
}
