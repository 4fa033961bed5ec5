//! Wrong times in the seeded runs: of one or several answers of the source at any moment, and of the host.

use crate::dice::Dice;
use crate::faults::Kind;
use crate::source::WrongDates;
use crate::weather::hits;
use crate::world::World;
use chrono::TimeDelta;
use std::time::Duration;

/// How often, and what. Dice of their own: the other runs stay as they were.
pub(crate) struct Clocks {
    dice: Dice,
    odds: u64,
}

impl Clocks {
    pub(crate) fn of(world: &World, seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x54);
        let odds = [0, 0, 12, 4][dice.below(4) as usize];
        let clocks = Self { dice, odds };
        if clocks.odds > 0 {
            let mut first = Self { dice: Dice::new(seed ^ 0x55), ..clocks };
            first.strike(world);
            return Self { dice: Dice::new(seed ^ 0x56), ..first };
        }
        clocks
    }

    /// Answers that are wrong for less than a minute: whoever is wrong for longer, and the same way, is right as far as one can tell.
    pub(crate) fn strike(&mut self, world: &World) {
        let mut state = world.state();
        if !hits(&mut self.dice, self.odds) {
            if self.dice.one_in(6) {
                state.host_skew = TimeDelta::zero();
            }
            return;
        }
        if self.dice.one_in(4) {
            state.host_skew = -TimeDelta::seconds(self.dice.below(20 * 3600) as i64);
            state.struck.by(Kind::HostClockBehind);
            return;
        }
        let days = [400, 130, 3, 1][self.dice.below(4) as usize];
        let by = TimeDelta::days(if self.dice.one_in(3) { -days } else { days });
        let until = tokio::time::Instant::now() + Duration::from_secs(50);
        state.source.wrong_dates = Some(WrongDates { left: 1 + self.dice.below(4), until, by });
    }
}
