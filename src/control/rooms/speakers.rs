//! Who speaks, and who spoke last.

use super::media::AudioLevel;
use super::room::Room;
use super::said::{Level, Said};
use crate::ids::StreamName;
use crate::time::Mono;

/// Most levels in a message: the loudest.
const MAX_LEVELS: usize = 16;
/// A level that moved by less is no news, dB.
const MOVED: u8 = 6;

/// What the room hears.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    /// All streams, those that spoke last first.
    order: Vec<String>,
    active: Option<String>,
    told: Vec<(String, AudioLevel)>,
}

impl Speakers {
    /// Streams, those that spoke last first.
    pub(super) fn recent(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }

    pub(super) fn arrived(&mut self, stream: &str) {
        if !self.order.iter().any(|known| known == stream) {
            self.order.push(stream.to_owned());
        }
    }

    pub(super) fn went(&mut self, stream: &str) {
        self.order.retain(|known| known != stream);
        self.told.retain(|(known, _)| known != stream);
        self.active.take_if(|known| known == stream);
    }

    /// Takes what is heard now; whether there is news.
    fn hear(&mut self, heard: Vec<(String, AudioLevel)>) -> bool {
        let speaking: Vec<&String> =
            heard.iter().filter(|(_, level)| level.speaking).map(|(stream, _)| stream).collect();
        // Who speaks on keeps the floor, however loud another one laughs.
        let holds = self.active.as_ref().is_some_and(|active| speaking.contains(&active));
        for stream in speaking.iter().rev() {
            if let Some(at) = self.order.iter().position(|known| known == *stream) {
                let stream = self.order.remove(at);
                self.order.insert(0, stream);
            }
        }
        let active = match speaking.first() {
            Some(loudest) if !holds => Some((*loudest).clone()),
            _ => self.active.clone(),
        };
        if let Some(at) = self.order.iter().position(|known| Some(known) == active.as_ref())
            && !speaking.is_empty()
        {
            let stream = self.order.remove(at);
            self.order.insert(0, stream);
        }
        let news = active != self.active
            || heard.len() != self.told.len()
            || heard.iter().any(|(stream, level)| {
                let told = self.told.iter().find(|(known, _)| known == stream);
                told.is_none_or(|(_, told)| {
                    told.speaking != level.speaking || told.level.abs_diff(level.level) >= MOVED
                })
            });
        if news {
            self.active = active;
            self.told = heard;
        }
        news
    }
}

impl Room {
    /// Asks how loud it is, and tells.
    pub(super) fn hear(&mut self, now: Mono) {
        let names: Vec<StreamName> = self.streams.values().map(|s| s.name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let levels = self.media.audio_levels(&names);
        let heard = names.iter().zip(levels);
        let mut heard: Vec<(String, AudioLevel)> =
            heard.filter_map(|(name, level)| Some((name.stream().to_owned(), level?))).collect();
        heard.sort_by_key(|(_, level)| (!level.speaking, level.level));
        heard.truncate(MAX_LEVELS);
        if !self.speakers.hear(heard) {
            return;
        }
        for id in self.ids() {
            let Some(participant) = self.participants.get(&id) else { continue };
            let sees = |stream: &str| {
                self.streams.get(stream).is_some_and(|known| participant.sees(&known.name))
            };
            let levels = self.speakers.told.iter().filter(|(stream, _)| sees(stream));
            let levels = levels.map(|(stream, level)| Level {
                stream,
                level: level.level.min(127),
                speaking: level.speaking,
            });
            let active = self.speakers.active.as_deref().filter(|stream| sees(stream));
            let text = Said::Speakers { active, levels: levels.collect() }.text();
            self.say(now, &id, text);
        }
    }
}
