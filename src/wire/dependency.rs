//! The dependency descriptor, a header extension of the AV1 RTP specification (its appendix A):
//! which layer a packet is of, and who can do without it. Reads up to the decode targets of a
//! frame; what it refers to beyond that is of no use to a forwarder.

/// Bytes of the mandatory fields.
const MANDATORY: usize = 3;
/// Most templates of a structure: their ids have six bits.
const MAX_TEMPLATES: usize = 64;
const MAX_TARGETS: usize = 32;
const MAX_SPATIAL: u8 = 3;
const MAX_TEMPORAL: u8 = 7;

/// Bytes that are not a descriptor, or not one of this structure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the dependency descriptor is malformed")]
pub struct Malformed;

/// A view of one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor<'a> {
    /// First packet of its frame; each spatial layer of a picture is a frame.
    pub starts: bool,
    /// Last packet of its frame.
    pub ends: bool,
    /// Six bits.
    template: u8,
    extended: &'a [u8],
}

/// What a frame is to one decode target: its two bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Indication {
    NotPresent,
    /// Nothing that the target needs depends on it.
    Discardable,
    /// From it on all frames of the target can be decoded.
    Switch,
    Required,
}

/// The layers a frame or a decode target is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Layer {
    spatial: u8,
    temporal: u8,
}

/// The layers of a coded video sequence, as told in its first packet.
#[derive(Clone, Debug)]
pub struct Structure {
    offset: u8,
    templates: [Template; MAX_TEMPLATES],
    /// Of `templates`.
    count: usize,
    /// What a decode target shows.
    targets: [Layer; MAX_TARGETS],
    /// Of `targets`.
    target_count: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Template {
    layer: Layer,
    /// Two bits for each decode target, from the lowest.
    indications: u64,
}

/// What a packet's frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The least spatial layer that needs it, 0 to 3.
    pub spatial: u8,
    /// The least temporal layer that needs it, 0 to 7.
    pub temporal: u8,
    /// Who decoded this frame may take this temporal layer and those below from the next frame on.
    pub up_to: u8,
}

impl<'a> Descriptor<'a> {
    /// Reads the mandatory fields.
    ///
    /// # Errors
    /// [`Malformed`] when they are not all there.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, extended) = bytes.split_first_chunk::<MANDATORY>().ok_or(Malformed)?;
        let (starts, ends) = (fixed[0] & 0x80 != 0, fixed[0] & 0x40 != 0);
        Ok(Self { starts, ends, template: fixed[0] & 0x3F, extended })
    }

    /// Whether it carries a [`Structure`]: a coded video sequence begins.
    #[must_use]
    pub fn has_structure(&self) -> bool {
        self.extended.first().is_some_and(|flags| flags & 0x80 != 0)
    }

    /// The structure it carries, if any.
    ///
    /// # Errors
    /// [`Malformed`] when it is cut off or goes beyond what the specification allows.
    pub fn structure(&self) -> Result<Option<Structure>, Malformed> {
        let mut bits = Bits::new(self.extended);
        let carried = self.has_structure();
        carried.then(|| bits.take(5).and_then(|_| Structure::read(&mut bits))).transpose()
    }

    /// What its frame is, by the structure that holds for it.
    ///
    /// # Errors
    /// [`Malformed`] when the structure has no such template, or bits are missing.
    pub fn frame(&self, structure: &Structure) -> Result<Frame, Malformed> {
        let index = usize::from(self.template.wrapping_sub(structure.offset) & 0x3F);
        let templates = structure.templates.get(..structure.count).ok_or(Malformed)?;
        let mut template = *templates.get(index).ok_or(Malformed)?;
        let custom = self.extended.first().is_some_and(|flags| flags & 0x20 != 0);
        if custom {
            let mut bits = Bits::new(self.extended);
            let flags = bits.take(5)?;
            if flags & 0x10 != 0 {
                Structure::read(&mut bits)?;
            }
            if flags & 0x08 != 0 {
                // Which decode targets are sent: seen by what comes.
                bits.take(structure.target_count)?;
            }
            template.indications = bits.indications(structure.target_count)?;
        }
        Ok(structure.frame(&template))
    }
}

impl Structure {
    fn read(bits: &mut Bits<'_>) -> Result<Self, Malformed> {
        let offset = bits.take(6)? as u8;
        let target_count = bits.take(5)? as usize + 1;
        let mut structure = Self {
            offset,
            templates: [Template::default(); MAX_TEMPLATES],
            count: 0,
            targets: [Layer::default(); MAX_TARGETS],
            target_count,
        };
        structure.read_layers(bits)?;
        let count = structure.count;
        for template in structure.templates.iter_mut().take(count) {
            template.indications = bits.indications(target_count)?;
        }
        structure.derive_targets();
        // What frames refer to.
        for _ in 0..count {
            while bits.take(1)? == 1 {
                bits.take(4)?;
            }
        }
        let chains = bits.non_symmetric(target_count as u32 + 1)?;
        if chains > 0 {
            for _ in 0..target_count {
                bits.non_symmetric(chains)?;
            }
            for _ in 0..count * chains as usize {
                bits.take(4)?;
            }
        }
        // Sizes of the pictures.
        if bits.take(1)? == 1 {
            let layers = structure.templates.iter().take(count).map(|it| it.layer.spatial).max();
            for _ in 0..=layers.unwrap_or_default() {
                bits.take(32)?;
            }
        }
        Ok(structure)
    }

    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Result<(), Malformed> {
        let mut layer = Layer::default();
        for template in &mut self.templates {
            template.layer = layer;
            self.count += 1;
            match bits.take(2)? {
                0 => {}
                1 => layer.temporal += 1,
                2 => layer = Layer { spatial: layer.spatial + 1, temporal: 0 },
                _ => return Ok(()),
            }
            if layer.spatial > MAX_SPATIAL || layer.temporal > MAX_TEMPORAL {
                return Err(Malformed);
            }
        }
        Err(Malformed)
    }

    /// A decode target shows the highest layers of what is present in it.
    fn derive_targets(&mut self) {
        let templates = self.templates.get(..self.count).unwrap_or_default();
        for (target, shown) in self.targets.iter_mut().enumerate().take(self.target_count) {
            for template in templates {
                if indication(template.indications, target) != Indication::NotPresent {
                    shown.spatial = shown.spatial.max(template.layer.spatial);
                    shown.temporal = shown.temporal.max(template.layer.temporal);
                }
            }
        }
    }

    fn frame(&self, template: &Template) -> Frame {
        let shown = || {
            let shown = self.targets.iter().take(self.target_count).enumerate();
            shown.map(|(target, layer)| (*layer, indication(template.indications, target)))
        };
        let needs = || {
            let present = shown().filter(|(_, indication)| *indication != Indication::NotPresent);
            present.map(|(layer, _)| layer)
        };
        let own = template.layer;
        let spatial = needs().map(|layer| layer.spatial).min().unwrap_or(own.spatial);
        let temporal = needs().map(|layer| layer.temporal).min().unwrap_or(own.temporal);
        let may_switch = |up: u8| {
            let mut of_layer = shown()
                .filter(|(layer, _)| (layer.spatial, layer.temporal) == (own.spatial, up))
                .peekable();
            of_layer.peek().is_some() && of_layer.all(|(_, it)| it == Indication::Switch)
        };
        let above = (temporal.saturating_add(1)..=MAX_TEMPORAL).take_while(|up| may_switch(*up));
        Frame { spatial, temporal, up_to: above.last().unwrap_or(temporal) }
    }
}

const fn indication(indications: u64, target: usize) -> Indication {
    match (indications >> (2 * (target & 31))) & 3 {
        0 => Indication::NotPresent,
        1 => Indication::Discardable,
        2 => Indication::Switch,
        _ => Indication::Required,
    }
}

/// Bits, the highest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// So many bits, at most 32.
    fn take(&mut self, count: usize) -> Result<u32, Malformed> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8).ok_or(Malformed)?;
            value = (value << 1) | u32::from((byte >> (7 - self.at % 8)) & 1);
            self.at += 1;
        }
        Ok(value)
    }

    /// `ns(n)`: a number below `n`, which is not 0.
    fn non_symmetric(&mut self, n: u32) -> Result<u32, Malformed> {
        let width = n.checked_ilog2().ok_or(Malformed)?;
        let short = (1_u32 << (width + 1)) - n;
        let value = self.take(width as usize)?;
        if value < short {
            return Ok(value);
        }
        Ok((value << 1) - short + self.take(1)?)
    }

    fn indications(&mut self, targets: usize) -> Result<u64, Malformed> {
        let mut all = 0;
        for target in 0..targets.min(MAX_TARGETS) {
            all |= u64::from(self.take(2)?) << (2 * target);
        }
        Ok(all)
    }
}

#[cfg(test)]
#[path = "dependency_tests.rs"]
mod tests;
