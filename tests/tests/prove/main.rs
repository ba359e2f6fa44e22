//! Long proofs, run by `cargo xtask prove`; each leaves its report in `tests/reports`.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

mod corpora;
mod crash;
mod fuzz;
mod latency;
mod rocketmq;
mod storm;

/// Keeps what a proof found.
fn report(name: &str, text: &str) -> anyhow::Result<()> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("reports").join(name);
    Ok(std::fs::write(path.with_extension("txt"), text)?)
}

/// Returns the value below which this share of the values lie.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a position in a short list"
    )]
    let position = (values.len().saturating_sub(1) as f64 * share) as usize;
    values.get(position).copied().unwrap_or(f64::NAN)
}
