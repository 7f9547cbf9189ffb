//! The layers of AV1, which only its dependency descriptors tell. Without one that can be read a
//! packet counts as of the lowest layer, so that nobody misses it.

use crate::wire::dependency::{Descriptor, Frame, Malformed, Structure};

use super::descriptor::Place;

/// The structures of one encoding: the newest, and the one before for packets that come late.
#[derive(Debug, Default)]
pub(crate) struct Dependencies {
    newest: Option<Box<Structure>>,
    before: Option<Box<Structure>>,
    /// The sequence that the newest came with.
    since: u64,
}

impl Dependencies {
    /// The place of the packet with this sequence, and whether a keyframe starts with it.
    pub(crate) fn read(&mut self, sequence: u64, value: &[u8]) -> Option<(Place, bool)> {
        self.try_read(sequence, value).ok().flatten()
    }

    fn try_read(
        &mut self,
        sequence: u64,
        value: &[u8],
    ) -> Result<Option<(Place, bool)>, Malformed> {
        let descriptor = Descriptor::parse(value)?;
        if descriptor.has_structure() {
            self.learn(sequence, &descriptor)?;
        }
        let late = self.newest.is_some() && sequence < self.since;
        let structure = if late { &self.before } else { &self.newest };
        let Some(structure) = structure else { return Ok(None) };
        let Frame { spatial, temporal, up_to } = descriptor.frame(structure)?;
        let place = Place { spatial, temporal, up_to, sync: false, ends: descriptor.ends };
        // Where the spatial layers are independent, each begins with the structure.
        let keyframe = descriptor.has_structure() && descriptor.starts && spatial == 0;
        Ok(Some((place, keyframe)))
    }

    fn learn(&mut self, sequence: u64, descriptor: &Descriptor<'_>) -> Result<(), Malformed> {
        let Some(structure) = descriptor.structure()? else { return Ok(()) };
        let slot = if self.newest.is_none() || sequence > self.since {
            self.since = sequence;
            std::mem::swap(&mut self.newest, &mut self.before);
            &mut self.newest
        } else if sequence < self.since {
            &mut self.before
        } else {
            return Ok(());
        };
        // Their memory is taken twice, for all keyframes.
        match slot {
            Some(known) => **known = structure,
            None => *slot = Some(Box::new(structure)),
        }
        Ok(())
    }
}
