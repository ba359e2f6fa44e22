/// Returns the candidate that was probably meant, if one is close enough to be worth naming.
///
/// ```
/// assert_eq!(gray_config::did_you_mean("cookei", ["cookie", "header"]), Some("cookie"));
/// assert_eq!(gray_config::did_you_mean("zebra", ["cookie", "header"]), None);
/// ```
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = fold(word);
    let score = |candidate: &&str| strsim::jaro_winkler(&plain, &fold(candidate));
    candidates
        .into_iter()
        .map(|candidate| (score(&candidate), candidate))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// Folds the spellings of one key: `trusted-proxies`, `TRUSTED_PROXIES` and `trustedProxies`.
pub(crate) fn fold(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}
