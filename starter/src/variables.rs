use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use gray_config::HumanDuration;
#[cfg(feature = "nacos")]
use gray_config::nacos::NacosProperties;

/// Why a variable of the environment cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: `{part}` is not {wanted}")]
pub struct InvalidVariable {
    name: &'static str,
    part: String,
    wanted: &'static str,
}

/// The variables of an environment; those that are empty are not there.
pub(crate) struct Variables<'a>(pub(crate) &'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| !text.is_empty())
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }

    pub(crate) fn pairs(
        &self,
        name: &'static str,
    ) -> Result<BTreeMap<String, String>, InvalidVariable> {
        let mut pairs = BTreeMap::new();
        for part in self.list(name) {
            let wrong = |wanted| InvalidVariable { name, part: part.clone(), wanted };
            let (key, value) =
                part.split_once('=').ok_or_else(|| wrong("of the form key=value"))?;
            let (key, value) = (key.trim(), value.trim());
            if key.is_empty() || value.is_empty() {
                return Err(wrong("of the form key=value, with something on both sides"));
            }
            if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(wrong("the only one of its key"));
            }
        }
        Ok(pairs)
    }

    pub(crate) fn flag(&self, name: &'static str) -> Result<bool, InvalidVariable> {
        let wanted = "true or false";
        let Some(part) = self.text(name) else { return Ok(false) };
        match part.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(InvalidVariable { name, part, wanted }),
        }
    }

    pub(crate) fn paths(&self, name: &'static str) -> Result<Vec<String>, InvalidVariable> {
        let wanted = "a path, which begins with `/`";
        let path = |part: String| {
            if part.starts_with('/') {
                Ok(part)
            } else {
                Err(InvalidVariable { name, part, wanted })
            }
        };
        self.list(name).into_iter().map(path).collect()
    }

    pub(crate) fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        wanted: &'static str,
    ) -> Result<Option<T>, InvalidVariable> {
        let parse =
            |part: String| part.parse().map_err(|_: T::Err| InvalidVariable { name, part, wanted });
        self.text(name).map(parse).transpose()
    }

    pub(crate) fn duration(
        &self,
        name: &'static str,
    ) -> Result<Option<HumanDuration>, InvalidVariable> {
        self.parsed(name, "a length of time, such as 500ms or 10s")
    }

    pub(crate) fn address(&self, name: &'static str) -> Result<Option<IpAddr>, InvalidVariable> {
        self.parsed(name, "an IP address")
    }

    #[cfg(feature = "nacos")]
    pub(crate) fn nacos(&self) -> Option<NacosProperties> {
        let servers = self.list("NACOS_ADDR");
        (!servers.is_empty()).then(|| NacosProperties {
            servers,
            namespace: self.text("NACOS_NAMESPACE").unwrap_or_default(),
            username: self.text("NACOS_USERNAME").unwrap_or_default(),
            password: self.text("NACOS_PASSWORD").unwrap_or_default(),
            ..NacosProperties::default()
        })
    }

    #[cfg(not(feature = "nacos"))]
    pub(crate) fn no_nacos(&self) -> Result<(), InvalidVariable> {
        let wanted = "understood by this program, which was built without the feature `nacos`";
        let name = "NACOS_ADDR";
        self.text(name).map_or(Ok(()), |part| Err(InvalidVariable { name, part, wanted }))
    }
}
