/// Endings that Chinese names have in one source and lack in another, the longest first.
const SUFFIXES: [&str; 16] = [
    "维吾尔自治区",
    "壮族自治区",
    "回族自治区",
    "特别行政区",
    "自治区",
    "自治州",
    "自治县",
    "地区",
    "省",
    "市",
    "盟",
    "县",
    " province",
    " city",
    " shi",
    " sheng",
];

/// Brings the spellings of one name together: 深圳市 and 深圳, `Shenzhen` and `shenzhen shi`.
pub(crate) fn fold(name: &str) -> String {
    let plain = name.trim().to_lowercase();
    let cut = |suffix: &&str| {
        let stem = plain.strip_suffix(*suffix)?;
        (stem.chars().count() >= 2).then(|| stem.trim_end().to_owned())
    };
    SUFFIXES.iter().find_map(cut).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(fold(name), expected);
    }

    #[test]
    fn drops_what_names_only_sometimes_have() {
        check("深圳市", "深圳");
        check("深圳", "深圳");
        check("广东省", "广东");
        check("内蒙古自治区", "内蒙古");
        check("新疆维吾尔自治区", "新疆");
        check("Shenzhen", "shenzhen");
        check(" Beijing Shi ", "beijing");
        check("本地", "本地");
        check("沙市", "沙市");
    }
}
