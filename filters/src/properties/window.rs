use gray_config::{Faults, KeyPath};
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::Timestamp;
use crate::window::Window;

/// A stretch of time as an operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WindowProperties {
    /// Its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Its end, which no longer belongs to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The hours of each day, such as `22:00-06:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<String>,
    /// The days: `mon`, `tue`, … `sun`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weekdays: Vec<WeekdayWord>,
    /// The zone of hours and days, such as `Asia/Shanghai`; UTC where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WeekdayWord {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl WindowProperties {
    pub(super) fn compile(&self, at: &KeyPath, faults: &mut Faults) -> Option<Window> {
        if *self == Self::default() {
            faults.error(at, "name at least one of from, until, daily and weekdays");
            return None;
        }
        let (from, until) = (self.from.map(|it| it.0), self.until.map(|it| it.0));
        if from.zip(until).is_some_and(|(from, until)| from >= until) {
            faults.warning(at, "the window ends before it begins, so it never holds");
        }
        let zone = self.zone.as_deref().map_or(Ok(TimeZone::UTC), |name| {
            TimeZone::get(name).map_err(|_| format!("there is no time zone `{name}`"))
        });
        let zone = faults.check(&at.key("zone"), zone);
        let daily = match &self.daily {
            None => Some(None),
            Some(text) => {
                let error = || format!("`{text}` is no stretch of a day; write 22:00-06:00");
                faults.check(&at.key("daily"), daily(text).ok_or_else(error)).map(Some)
            }
        };
        let weekdays = self.weekdays.iter().map(|day| day.weekday()).collect();
        Some(Window { from, until, daily: daily?, weekdays, zone: zone? })
    }
}

fn daily(text: &str) -> Option<(Time, Time)> {
    let (start, end) = text.split_once('-')?;
    Some((start.trim().parse().ok()?, end.trim().parse().ok()?))
}

impl WeekdayWord {
    const fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}
