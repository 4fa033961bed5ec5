//! text: how the words of commands look: cleaned of what a terminal would obey, coloured where that is wanted, times and spans for people.

use crate::flow::Time;
use crate::flow::words::garbles;
use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};

/// Clocks that differ by so many seconds are right enough: what was stamped a moment ahead is told as 0 s ago.
const AHEAD_MAX: u64 = 60;

/// How a text is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Plain,
    Coloured,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Yellow,
    Red,
    Faint,
}

impl Look {
    /// Colours on a terminal that takes them, and not where the user asks for none: `NO_COLOR`, `CLICOLOR`, `TERM=dumb`
    /// (<https://no-color.org>, <https://bixense.com/clicolors/>).
    pub(crate) fn of(out: &impl RawStream) -> Self {
        if AutoStream::choice(out) == ColorChoice::Never { Self::Plain } else { Self::Coloured }
    }

    pub(crate) fn paint(self, text: &str, colour: Colour) -> String {
        let code = match colour {
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
            Colour::Faint => "2",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// One line of what others wrote: nothing in it that a terminal obeys, or that turns what stands around it.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if garbles(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The same of a text of several lines.
pub(crate) fn clean_lines(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && garbles(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// How long ago that was. Also of what another clock stamped: a time that is still to come is not called fresh.
pub(crate) fn ago(time: Time, now: Time) -> String {
    let (past, ahead) = (seconds(time, now), seconds(now, time));
    if ahead > AHEAD_MAX { format!("in {}", span(ahead)) } else { format!("{} ago", span(past)) }
}

/// From one time to a later one; 0 where it is no later.
pub(crate) fn seconds(from: Time, to: Time) -> u64 {
    (to - from).num_seconds().max(0).unsigned_abs()
}

/// The two largest units: 3 d 4 h, 12 min 5 s, 0 s.
pub(crate) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_for_people() {
        let spans = [0, 59, 61, 3_600, 90_061, 864_000].map(span);
        assert_eq!(spans, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h", "10 d 0 h"]);
    }

    /// Fault: a stamp of another clock that lies an hour ahead of the host's. Shows: the table says that it is to come, not that it is fresh.
    #[test]
    fn fm_47_a_stamp_from_the_future_is_not_called_fresh() {
        let now: Time = "2026-11-23T06:00:00Z".parse().unwrap();
        let seconds = |seconds| now + chrono::TimeDelta::seconds(seconds);
        let told = [-61, 0, 30, 3600].map(|ahead| ago(seconds(ahead), now));
        assert_eq!(told, ["1 min 1 s ago", "0 s ago", "0 s ago", "in 1 h 0 min"]);
    }

    #[test]
    fn a_text_of_others_commands_no_terminal() {
        assert_eq!(clean("a\u{1b}[31m\r\nb\u{202e}c"), "a\u{fffd}[31m\u{fffd}\u{fffd}b\u{fffd}c");
        assert_eq!(clean_lines("a\u{1b}\r\nb\u{202e}c"), "a\u{fffd}\u{fffd}\nb\u{fffd}c");
        assert_eq!(Look::Plain.paint("x", Colour::Red), "x");
        assert_eq!(Look::Coloured.paint("x", Colour::Red), "\x1b[31mx\x1b[0m");
    }
}
