use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use tokio::process::Command;

/// Runs `tests/verify.sh` for a scene.
///
/// # Errors
///
/// What the script printed, where the scene fails.
pub async fn verify(gateway: SocketAddr, scene: &str) -> anyhow::Result<()> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("verify.sh");
    let output = Command::new(script).arg(gateway.to_string()).arg(scene).output().await?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        bail!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Returns the scenes of the Spring Cloud design, each with the gateway's document that it needs.
pub fn scene_documents() -> Vec<(&'static str, String)> {
    let document = |keys: &str| {
        format!("kerwin:\n  tool:\n    gray:\n      gateway:\n        enabled: true\n{keys}")
    };
    vec![
        ("one", document("").replace("true", "false")),
        ("two", document("        grayIPList: ['10.0.0.1']\n        grayCityList: [深圳]\n")),
        ("header", document("")),
        ("ip", document("        grayIPList:\n        - '127.0.0.1'\n")),
        ("city", document("        grayCityList:\n        - 本地\n")),
        ("user", document("        grayUserNoList: [1001]\n")),
    ]
}
