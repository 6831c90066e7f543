//! The moment as the header `Date` has it, made once a second.
//!
//! # Source
//! RFC 9110, section 5.6.7; the calendar from days by the algorithm of Howard Hinnant, "chrono-compatible low-level date
//! algorithms".
use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

const LENGTH: usize = 29;
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A moment as text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Date {
    second: u64,
    text: [u8; LENGTH],
}

impl Date {
    pub(crate) fn at(now: SystemTime) -> Self {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { second, text: text(second) }
    }

    /// The same, or the text of a later second.
    pub(crate) fn renewed(self, now: SystemTime) -> Self {
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second == self.second { self } else { Self { second, text: text(second) } }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

fn text(second: u64) -> [u8; LENGTH] {
    let (day, of_day) = (second / 86_400, second % 86_400);
    let (year, month, of_month) = calendar(day);
    let name = |names: &'static [&'static str], index: u64| {
        usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or("Jan")
    };
    let mut text = [b' '; LENGTH];
    let (weekday, month) = (name(&DAYS, day % 7), name(&MONTHS, month - 1));
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // A year has four digits for the next 8,000 of them; what is longer is cut.
    let _ = write!(
        text.as_mut_slice(),
        "{weekday}, {of_month:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT"
    );
    text
}

/// Year, month and day of the month of so many days after 1970-01-01.
fn calendar(days: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_written_as_the_rfc_writes_them() {
        for (second, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_767_225_599, "Wed, 31 Dec 2025 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            let date = Date::at(UNIX_EPOCH + Duration::from_secs(second));
            assert_eq!(String::from_utf8_lossy(date.as_bytes()), want);
            let later = date.renewed(UNIX_EPOCH + Duration::from_secs(second + 1));
            assert_ne!(later.as_bytes(), date.as_bytes());
        }
    }
}
