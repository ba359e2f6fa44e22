use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::fmt;

/// A stretch of time, and the hours and days within it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) from: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    /// Start and end of day; a start after its end means over midnight.
    pub(crate) daily: Option<(Time, Time)>,
    /// Empty for every day.
    pub(crate) weekdays: Vec<Weekday>,
    pub(crate) zone: TimeZone,
}

impl Window {
    /// Tells whether a moment lies in the window; its end does not belong to it.
    pub(crate) fn holds(&self, now: Timestamp) -> bool {
        if self.from.is_some_and(|from| now < from) || self.until.is_some_and(|until| now >= until)
        {
            return false;
        }
        if self.daily.is_none() && self.weekdays.is_empty() {
            return true;
        }
        let local = Zoned::new(now, self.zone.clone());
        let day = self.weekdays.is_empty() || self.weekdays.contains(&local.weekday());
        day && self.daily.is_none_or(|daily| within(daily, local.time()))
    }
}

/// What of it is limited, in words: `from … until …, daily 22:00:00 to 06:00:00 on Monday (Asia/Shanghai)`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.from.map(|from| format!("from {from}")));
        words.extend(self.until.map(|until| format!("until {until}")));
        words.extend(self.daily.map(|(start, end)| format!("daily {start} to {end}")));
        if !self.weekdays.is_empty() {
            let days: Vec<_> = self.weekdays.iter().map(|day| format!("{day:?}")).collect();
            words.push(format!("on {}", days.join(", ")));
        }
        if self.daily.is_some() || !self.weekdays.is_empty() {
            words.push(format!("({})", self.zone.iana_name().unwrap_or("an offset")));
        }
        f.write_str(&words.join(" "))
    }
}

fn within((start, end): (Time, Time), time: Time) -> bool {
    if start <= end { start <= time && time < end } else { time >= start || time < end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always() -> Window {
        Window { from: None, until: None, daily: None, weekdays: Vec::new(), zone: TimeZone::UTC }
    }

    #[track_caller]
    fn check(window: &Window, now: &str, expected: bool) {
        assert_eq!(window.holds(now.parse().unwrap()), expected, "{now}");
    }

    #[test]
    fn begins_and_ends() {
        let from = Some("2026-11-01T00:00:00Z".parse().unwrap());
        let until = Some("2026-12-01T00:00:00Z".parse().unwrap());
        let window = Window { from, until, ..always() };
        check(&window, "2026-10-31T23:59:59Z", false);
        check(&window, "2026-11-01T00:00:00Z", true);
        check(&window, "2026-12-01T00:00:00Z", false);
    }

    #[test]
    fn says_what_it_is() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let daily = Some((Time::constant(22, 0, 0, 0), Time::constant(6, 0, 0, 0)));
        let from = Some("2026-11-01T00:00:00Z".parse().unwrap());
        let window = Window { from, daily, weekdays: vec![Weekday::Monday], zone, ..always() };
        let words =
            "from 2026-11-01T00:00:00Z daily 22:00:00 to 06:00:00 on Monday (Asia/Shanghai)";
        assert_eq!(window.to_string(), words);
    }

    #[test]
    fn knows_hours_and_days_of_its_zone() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let daily = Some((Time::constant(22, 0, 0, 0), Time::constant(6, 0, 0, 0)));
        let window = Window { daily, weekdays: vec![Weekday::Monday], zone, ..always() };
        check(&window, "2026-11-23T15:00:00Z", true);
        check(&window, "2026-11-23T04:00:00Z", false);
        check(&window, "2026-11-24T15:00:00Z", false);
    }
}
