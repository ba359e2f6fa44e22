use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::text::Text;

thread_local! {
    /// The second, and the line that says it.
    static LINE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// Writes the field `Date` (RFC 9110, section 6.6.1), whose text is made once a second.
pub(super) fn write_date(to: &mut Text) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LINE.with_borrow_mut(|(second, line)| {
        if *second != now || line.is_empty() {
            let at = UNIX_EPOCH + Duration::from_secs(now);
            (*second, *line) = (now, format!("date: {}\r\n", httpdate::fmt_http_date(at)));
        }
        to.push(line.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_todays() {
        let mut to = Text::default();
        write_date(&mut to);
        let text = String::from_utf8(to.left().to_vec()).unwrap();
        let date = text.strip_prefix("date: ").unwrap().strip_suffix(" GMT\r\n").unwrap();
        let read = httpdate::parse_http_date(&format!("{date} GMT")).unwrap();
        assert!(SystemTime::now().duration_since(read).unwrap() < Duration::from_secs(5));
    }
}
