//! Seeded chance: the same seed, label and number always give the same rolls.

/// A SplitMix64 sequence.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

/// Golden ratio of 2^64: the step of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Dice {
    /// The sequence of one thing: its label keeps it apart from other things with the same number.
    pub(super) fn of(seed: u64, label: &str, number: u64) -> Self {
        let label = label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut dice = Self(seed ^ label);
        dice.0 = dice.roll().wrapping_add(number.wrapping_mul(STEP));
        dice.0 = dice.roll();
        dice
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.roll().checked_rem(n).unwrap_or(0)
    }

    /// A number in `0.0..1.0`.
    pub(super) fn share(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.share() < share
    }

    /// One of the entries; the default value when there are none.
    pub(super) fn pick<T: Copy + Default>(&mut self, from: &[T]) -> T {
        let n = self.below(from.len() as u64);
        usize::try_from(n).ok().and_then(|n| from.get(n)).copied().unwrap_or_default()
    }

    /// 26 upper-case base32 characters, as users, sessions and events have.
    pub(super) fn upper_id(&mut self) -> String {
        base32(self.bits(), b'A')
    }

    /// 26 lower-case base32 characters, as vaults, items and devices have.
    pub(super) fn lower_id(&mut self) -> String {
        base32(self.bits(), b'a')
    }

    fn bits(&mut self) -> u128 {
        u128::from(self.roll()) << 64 | u128::from(self.roll())
    }
}

/// 128 bits in 26 characters: the last two of the 130 bits are zero, so that the text re-encodes to itself.
fn base32(bits: u128, first_letter: u8) -> String {
    let mut text = String::with_capacity(26);
    for place in 0..25 {
        text.push(letter((bits >> (123 - 5 * place)) as u8 & 31, first_letter));
    }
    text.push(letter((bits as u8 & 7) << 2, first_letter));
    text
}

fn letter(digit: u8, first_letter: u8) -> char {
    char::from(if digit < 26 { first_letter + digit } else { b'2' + digit - 26 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::EventId;

    #[test]
    fn ids_are_canonical_and_repeatable() {
        let id = Dice::of(7, "x", 1).upper_id();
        assert_eq!(id, Dice::of(7, "x", 1).upper_id());
        assert_ne!(id, Dice::of(7, "x", 2).upper_id());
        assert_ne!(id, Dice::of(8, "x", 1).upper_id());
        let bits = Dice::of(7, "x", 1).bits();
        assert_eq!(
            EventId::of_uuid(&id),
            EventId(bits.to_be_bytes()),
            "a hashed id would not be the 16 bytes themselves"
        );
    }
}
