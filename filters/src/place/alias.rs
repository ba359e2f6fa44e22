use super::fold;

/// Names that sources write in different languages; each line is one place.
const ALIASES: &[&[&str]] = &[
    &["cn", "china", "中国", "中华人民共和国"],
    &["hk", "hong kong", "香港"],
    &["mo", "macao", "macau", "澳门"],
    &["tw", "taiwan", "台湾"],
    &["jp", "japan", "日本"],
    &["kr", "south korea", "韩国"],
    &["sg", "singapore", "新加坡"],
    &["us", "united states", "美国"],
    &["gb", "united kingdom", "英国"],
    &["de", "germany", "德国"],
    &["fr", "france", "法国"],
    &["beijing", "北京"],
    &["tianjin", "天津"],
    &["shanghai", "上海"],
    &["chongqing", "重庆"],
    &["hebei", "河北"],
    &["shanxi", "山西"],
    &["nei mongol", "inner mongolia", "内蒙古"],
    &["liaoning", "辽宁"],
    &["jilin", "吉林"],
    &["heilongjiang", "黑龙江"],
    &["jiangsu", "江苏"],
    &["zhejiang", "浙江"],
    &["anhui", "安徽"],
    &["fujian", "福建"],
    &["jiangxi", "江西"],
    &["shandong", "山东"],
    &["henan", "河南"],
    &["hubei", "湖北"],
    &["hunan", "湖南"],
    &["guangdong", "广东"],
    &["guangxi", "广西"],
    &["hainan", "海南"],
    &["sichuan", "四川"],
    &["guizhou", "贵州"],
    &["yunnan", "云南"],
    &["xizang", "tibet", "西藏"],
    &["shaanxi", "陕西"],
    &["gansu", "甘肃"],
    &["qinghai", "青海"],
    &["ningxia", "宁夏"],
    &["xinjiang", "新疆"],
    &["shenzhen", "深圳"],
    &["guangzhou", "广州"],
    &["dongguan", "东莞"],
    &["foshan", "佛山"],
    &["zhuhai", "珠海"],
    &["hangzhou", "杭州"],
    &["ningbo", "宁波"],
    &["wenzhou", "温州"],
    &["nanjing", "南京"],
    &["suzhou", "苏州"],
    &["wuxi", "无锡"],
    &["wuhan", "武汉"],
    &["changsha", "长沙"],
    &["chengdu", "成都"],
    &["xi'an", "xian", "西安"],
    &["zhengzhou", "郑州"],
    &["jinan", "济南"],
    &["qingdao", "青岛"],
    &["shenyang", "沈阳"],
    &["dalian", "大连"],
    &["harbin", "哈尔滨"],
    &["changchun", "长春"],
    &["shijiazhuang", "石家庄"],
    &["taiyuan", "太原"],
    &["hohhot", "呼和浩特"],
    &["hefei", "合肥"],
    &["nanchang", "南昌"],
    &["fuzhou", "福州"],
    &["xiamen", "厦门"],
    &["quanzhou", "泉州"],
    &["nanning", "南宁"],
    &["guilin", "桂林"],
    &["haikou", "海口"],
    &["sanya", "三亚"],
    &["guiyang", "贵阳"],
    &["kunming", "昆明"],
    &["lhasa", "拉萨"],
    &["lanzhou", "兰州"],
    &["xining", "西宁"],
    &["yinchuan", "银川"],
    &["urumqi", "ürümqi", "乌鲁木齐"],
    &["local", "本地", "本机", "内网ip"],
];

/// Returns the folded name and every other name of the same place.
pub(super) fn names_of(name: &str) -> Vec<String> {
    let plain = fold(name);
    if plain.is_empty() {
        return Vec::new();
    }
    let known = ALIASES.iter().find(|names| names.contains(&&*plain));
    let others = known.into_iter().flat_map(|names| names.iter().map(|name| (*name).to_owned()));
    std::iter::once(plain.clone()).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_city_is_known_by_its_names_in_both_languages() {
        assert!(names_of("深圳市").contains(&"shenzhen".to_owned()));
        assert!(names_of("Shenzhen").contains(&"深圳".to_owned()));
        assert_eq!(names_of("Atlantis"), ["atlantis"]);
        assert!(names_of(" ").is_empty());
    }
}
