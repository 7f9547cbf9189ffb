//! How loud a publisher is, from the levels its packets carry (RFC 6464). Levels are -dBov: 0 is
//! the loudest, 127 silence.

use std::time::Duration;

use crate::time::Mono;

/// Silence.
pub const SILENCE: u8 = 127;

/// Speech begins when the smoothed level is at least this loud, -dBov.
const SPEECH: u16 = 50;
/// It goes on while packets are louder than this: between words it gets quieter.
const PAUSE: u16 = 60;
/// So long after the last of these it is over.
const HANGOVER: Duration = Duration::from_millis(600);
/// Told at most so often, unless speech begins or ends.
const TELL_INTERVAL: Duration = Duration::from_millis(200);
/// Smoothed values are kept in 1/16.
const SCALE: u16 = 16;

/// What is told of a track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// Smoothed, -dBov.
    pub level: u8,
    /// Whether that is speech, with some patience for pauses.
    pub speaking: bool,
}

/// Smooths one publisher's levels.
#[derive(Debug)]
pub(super) struct Meter {
    smoothed: u16,
    speaking: bool,
    loud_until: Mono,
    told: Option<(Level, Mono)>,
}

impl Default for Meter {
    fn default() -> Self {
        let smoothed = u16::from(SILENCE) * SCALE;
        Self { smoothed, speaking: false, loud_until: Mono::ZERO, told: None }
    }
}

impl Meter {
    /// Takes the level of a packet. The voice activity bit is not looked at: some senders always
    /// set it. Gives what is to be told, when something is.
    pub(super) fn on_packet(&mut self, now: Mono, value: u8) -> Option<Level> {
        let level = u16::from(value & 0x7f);
        let target = level * SCALE;
        // Louder counts at once, quieter slowly: a syllable is short.
        self.smoothed = if target < self.smoothed {
            self.smoothed - (self.smoothed - target).div_ceil(2)
        } else {
            self.smoothed + (target - self.smoothed).div_ceil(8)
        };
        if level < PAUSE {
            self.loud_until = now.plus(HANGOVER);
        }
        let begins = self.smoothed <= SPEECH * SCALE;
        self.speaking = if self.speaking { now < self.loud_until } else { begins };
        let level = Level { level: (self.smoothed / SCALE) as u8, speaking: self.speaking };
        let due = self.told.is_none_or(|(told, at)| {
            told.speaking != level.speaking || now.since(at) >= TELL_INTERVAL
        });
        due.then(|| {
            self.told = Some((level, now));
            level
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 20 ms from `from` on; what is told, with its time in ms.
    fn play(meter: &mut Meter, from: u64, levels: &[u8]) -> Vec<(u64, Level)> {
        let times = (0..).map(|n| from + 20 * n);
        let at = |ms| Mono::from_nanos(ms * 1_000_000);
        let told = times.zip(levels).map(|(ms, level)| (ms, meter.on_packet(at(ms), *level)));
        told.filter_map(|(ms, level)| Some((ms, level?))).collect()
    }

    #[test]
    fn speech_is_told_at_once_and_outlasts_a_pause() {
        let mut meter = Meter::default();
        let quiet = play(&mut meter, 0, &[90; 50]);
        assert!(quiet.iter().all(|(_, level)| !level.speaking));
        let talk = play(&mut meter, 1_000, &[30; 50]);
        let begun = talk.iter().find(|(_, level)| level.speaking).expect("speech");
        assert!(begun.0 <= 1_060, "{begun:?}");
        let pause = play(&mut meter, 2_000, &[90; 25]);
        assert!(pause.iter().all(|(_, level)| level.speaking), "{pause:?}");
        let silence = play(&mut meter, 2_500, &[90; 25]);
        let over = silence.iter().find(|(_, level)| !level.speaking).expect("an end");
        assert!((2_500..2_700).contains(&over.0), "{over:?}");
    }

    #[test]
    fn one_loud_packet_in_noise_is_no_speech_for_long() {
        let mut meter = Meter::default();
        play(&mut meter, 0, &[100; 50]);
        let told = play(&mut meter, 1_000, &[49]);
        assert!(told.iter().all(|(_, level)| !level.speaking), "half way up is not there");
    }

    #[test]
    fn levels_are_told_five_times_a_second() {
        let mut meter = Meter::default();
        let told = play(&mut meter, 0, &[70; 500]);
        assert!((45..=55).contains(&told.len()), "{} in ten seconds", told.len());
        assert_eq!(told.last().map(|(_, level)| level.level), Some(70));
    }

    #[test]
    fn the_voice_bit_is_not_part_of_the_level() {
        let mut meter = Meter::default();
        let told = play(&mut meter, 0, &[0x80 | 127; 100]);
        assert!(told.iter().all(|(_, level)| *level == Level { level: 127, speaking: false }));
    }
}
