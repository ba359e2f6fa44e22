use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

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
    fn knows_hours_and_days_of_its_zone() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let daily = Some((Time::constant(22, 0, 0, 0), Time::constant(6, 0, 0, 0)));
        let window = Window { daily, weekdays: vec![Weekday::Monday], zone, ..always() };
        check(&window, "2026-11-23T15:00:00Z", true);
        check(&window, "2026-11-23T04:00:00Z", false);
        check(&window, "2026-11-24T15:00:00Z", false);
    }
}
