use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::{NacosError, NacosProperties};
use crate::causes;

/// The pages that take user and password, those of Nacos 3 and of Nacos 2.
const PAGES: [&str; 2] = ["nacos/v3/auth/user/login", "nacos/v1/auth/login"];

/// Proof of a login, good for a while.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    /// When it should be replaced: well before it expires.
    pub(super) renew_at: Instant,
    /// When it is worth nothing any more.
    pub(super) expires_at: Instant,
}

/// For how many seconds a token is taken to be good where the server does not say it.
const UNSAID: u64 = 60;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_ttl: u64,
}

/// Logs in, where the properties name a user.
pub(super) async fn login(
    properties: &NacosProperties,
    server: &str,
) -> Result<Option<Token>, NacosError> {
    if properties.username.is_empty() {
        return Ok(None);
    }
    let refused = |reason: String| NacosError::Login {
        server: server.to_owned(),
        user: properties.username.clone(),
        reason,
    };
    let client = reqwest::Client::builder().timeout(properties.timeout.0).no_proxy().build();
    let client = client.map_err(|error| refused(causes(&error)))?;
    let mut reason = String::new();
    for page in PAGES {
        let form = form(&properties.username, &properties.password);
        let request = client.post(format!("http://{server}/{page}")).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.send().await.map_err(|error| refused(causes(&error)))?;
        let (status, body) = (answer.status(), answer.text().await.unwrap_or_default());
        if let Ok(answer) = serde_json::from_str::<Answer>(&body) {
            let lasts = if answer.token_ttl == 0 { UNSAID } else { answer.token_ttl };
            let (now, lasts) = (Instant::now(), Duration::from_secs(lasts));
            let (renew_at, expires_at) = (now + lasts / 2, now + lasts);
            return Ok(Some(Token { text: answer.access_token, renew_at, expires_at }));
        }
        reason = format!("{status} {}", body.chars().take(200).collect::<String>());
        if status != reqwest::StatusCode::NOT_FOUND {
            break;
        }
    }
    Err(refused(reason))
}

/// Two fields as `application/x-www-form-urlencoded`.
fn form(username: &str, password: &str) -> String {
    format!("username={}&password={}", encode(username), encode(password))
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_cannot_add_a_field() {
        assert_eq!(
            form("a", "x&username=b 灰"),
            "username=a&password=x%26username%3Db%20%E7%81%B0"
        );
    }
}
