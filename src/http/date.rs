//! HTTP dates (RFC 9110, section 5.6.7) and the `Retry-After` header (10.2.3).

use std::{ops::Range, time::Duration};

const DAY: i64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns how long a `Retry-After` of this value asks to wait, at this Unix time.
pub(crate) fn retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a wait without end.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = u64::try_from(parse_imf_fixdate(value)?).unwrap_or(0);
    Some(Duration::from_secs(date.saturating_sub(now)))
}

/// Parses an IMF-fixdate, such as `Sun, 06 Nov 1994 08:49:37 GMT`, into Unix seconds.
/// Whether the day of the week is the date's isn't checked.
fn parse_imf_fixdate(text: &str) -> Option<i64> {
    // The form has a fixed length.
    let number = |place: Range<usize>| text.get(place)?.parse::<u16>().ok().map(i64::from);
    let (weekday, month_name) = (text.get(..3)?, text.get(8..11)?);
    let (day, year) = (number(5..7)?, number(12..16)?);
    let (hour, minute, second) = (number(17..19)?, number(20..22)?, number(23..25)?);
    let time = format!("{hour:02}:{minute:02}:{second:02}");
    let is_fixdate = text == format!("{weekday}, {day:02} {month_name} {year:04} {time} GMT");
    // A second of 60 is a leap second.
    let is_possible = WEEKDAYS.contains(&weekday) && hour < 24 && minute < 60 && second <= 60;
    let month = 1 + MONTHS.iter().position(|name| *name == month_name)? as i64;
    // A year begins within two days of this one, as 400 have 146,097 days. A date that
    // doesn't exist, such as 30 February, isn't found in it.
    let new_year = (year - 1970) * 146_097 / 400;
    let mut days = new_year - 2..new_year + 368;
    let days = days.find(|days| civil_from_days(*days) == (year, month, day))?;
    (is_fixdate && is_possible).then_some(days * DAY + hour * 3_600 + minute * 60 + second)
}

/// Formats the date of a Unix time, such as `1994-11-06`, in UTC.
pub(crate) fn format_date(unix_seconds: i64) -> String {
    let (year, month, day) = civil_from_days(unix_seconds.div_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Returns the date of a day of the proleptic Gregorian calendar, counted from 1970-01-01.
/// Years begin in March here, so that a leap day is the last of its year.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12 + 1;
    (era * 400 + year + i64::from(month < 3), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn imf_fixdate(unix_seconds: i64) -> String {
        let days = unix_seconds.div_euclid(DAY);
        let (year, month, day) = civil_from_days(days);
        let time = unix_seconds.rem_euclid(DAY);
        format!(
            "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
            // 1970-01-01 was a Thursday.
            WEEKDAYS[(days + 3).rem_euclid(7) as usize],
            MONTHS[month as usize - 1],
            time / 3_600,
            time / 60 % 60,
            time % 60
        )
    }

    #[test]
    fn every_day_of_ten_thousand_years_follows_the_one_before() {
        let (mut year, mut month, mut day) = (0, 1, 1);
        for days in -719_528..=2_932_896 {
            assert_eq!(civil_from_days(days), (year, month, day));
            if let (1, 1) | (2, 28..) | (12, 31) = (month, day) {
                let read = parse_imf_fixdate(&imf_fixdate(days * DAY));
                assert_eq!(read, Some(days * DAY));
            }
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, day) if day == last => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
        assert_eq!((year, month, day), (10_000, 1, 1));
    }

    #[test]
    fn an_imf_fixdate_is_read() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
            ("Tue, 19 Jan 2038 03:14:08 GMT", 2_147_483_648),
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
            ("Mon, 01 Jan 0001 00:00:00 GMT", -62_135_596_800),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
            // The day of the week is another one.
            ("Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ] {
            assert_eq!(parse_imf_fixdate(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn impossible_dates_and_other_forms_are_refused() {
        for text in [
            "",
            "GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "1994-11-06T08:49:37Z",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 gmt",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun,  06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994  08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Xxx, 06 Nov 1994 08:49:37 GMT",
            "06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 19940 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1994 08:49:61 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 32 Dec 1994 08:49:37 GMT",
            "Wed, 29 Feb 2023 00:00:00 GMT",
            "Thu, 29 Feb 1900 00:00:00 GMT",
            "Sun, 29 Feb 2100 00:00:00 GMT",
            "Thu, 30 Feb 2024 00:00:00 GMT",
            "Sun, ٠٦ Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_imf_fixdate(text), None, "{text}");
        }
    }

    #[test]
    fn a_date_is_formatted_in_utc() {
        for (seconds, date) in [
            (784_111_777, "1994-11-06"),
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (86_400, "1970-01-02"),
            (-1, "1969-12-31"),
            (951_782_400, "2000-02-29"),
            (-62_167_219_200, "0000-01-01"),
            (253_402_300_799, "9999-12-31"),
            (i64::MAX, "292277026596-12-04"),
            (i64::MIN, "-292277022657-01-27"),
        ] {
            assert_eq!(format_date(seconds), date);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_nothing_else() {
        let now = 784_111_777;
        let seconds = |count| Some(Duration::from_secs(count));
        for (value, wait) in [
            ("0", seconds(0)),
            ("120", seconds(120)),
            ("\t007 ", seconds(7)),
            ("99999999999999999999999", seconds(u64::MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            (" Sun, 06 Nov 1994 08:49:38 GMT ", seconds(1)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(0)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", seconds(0)),
            ("Mon, 01 Jan 0001 00:00:00 GMT", seconds(0)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1 s", None),
            ("1, 2", None),
            ("soon", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
        ] {
            assert_eq!(retry_after(value, now), wait, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in -62_167_219_200..=253_402_300_799_i64) {
            prop_assert_eq!(parse_imf_fixdate(&imf_fixdate(seconds)), Some(seconds));
        }

        #[test]
        fn a_changed_character_is_no_panic(
            seconds in 0..=253_402_300_799_i64, at in 0..29_usize, other in any::<char>(),
        ) {
            let text: String = imf_fixdate(seconds)
                .chars()
                .enumerate()
                .map(|(i, c)| if i == at { other } else { c })
                .collect();
            let _ = (parse_imf_fixdate(&text), retry_after(&text, 0));
        }
    }
}
