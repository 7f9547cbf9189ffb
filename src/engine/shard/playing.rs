//! Sessions whose streams change while they play.

use std::sync::Arc;

use super::lifecycle::MOST_HOPS;
use super::{Part, Role, Shard};
use crate::engine::mailbox::{Message, PlayChange};

impl Shard {
    /// Makes a session play what control says, and nothing else.
    pub(super) fn change_playing(&mut self, change: Box<PlayChange>) {
        let Some(index) = self.by_session.get(&change.session).copied() else {
            self.pass_change_on(change);
            return;
        };
        let now = self.now;
        let PlayChange { revision, streams, .. } = *change;
        self.with_endpoint(index, |endpoint, shard| {
            let Role::Play(playing) = &mut endpoint.role else { return };
            if revision <= playing.revision {
                return;
            }
            playing.revision = revision;
            playing.parts.retain(|part| {
                let stays = streams.iter().any(|(_, spec)| part.fits(spec));
                if !stays {
                    shard.detach_player(index, &part.stream);
                }
                stays
            });
            for (stream, spec) in streams {
                if !playing.parts.iter().any(|part| part.fits(&spec)) {
                    shard.attach_player(index, &stream);
                    let rng = &mut shard.parts.rng;
                    playing.parts.push(Part::new(Arc::clone(&stream), spec, rng, now));
                }
            }
        });
        // Newcomers ask for their keyframe.
        self.touch(index);
    }

    /// The session moved while the message was under way, or is on its way here behind it.
    fn pass_change_on(&mut self, mut change: Box<PlayChange>) {
        if change.hops < MOST_HOPS
            && let Some(by) = self.parts.parked.holder(&change.ufrag)
        {
            change.hops += 1;
            self.post(by, Message::Play(change));
        }
    }
}
