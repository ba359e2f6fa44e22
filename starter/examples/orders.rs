//! An axum service in gray release: see docs/services.md.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Router, routing::get};
use gray_starter::{GrayClient, Starter, told_to_stop};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let starter = Starter::from_env("order-app")?;
    let router = Router::new().route("/order", get(order)).with_state(starter.client());
    let address = std::env::args().nth(1).unwrap_or("0.0.0.0:8080".to_owned());
    let listener = TcpListener::bind(address).await?;
    starter.serve(listener, router, told_to_stop()).await?;
    Ok(())
}

async fn order(State(client): State<GrayClient>) -> Result<String, (StatusCode, String)> {
    let failed = |error: String| (StatusCode::BAD_GATEWAY, error);
    let answer = client.get("http://user-app/user/1").send().await;
    let answer = answer.map_err(|error| failed(error.to_string()))?;
    answer.text().await.map_err(|error| failed(error.to_string()))
}
