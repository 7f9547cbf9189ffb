//! Dependency descriptors (AV1 RTP specification, appendix A), written bit by bit.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part of the kit")]

/// Spatial and temporal layer of a template, and what its frames are to each decode target: `-`
/// not present, `D` discardable, `S` switch, `R` required.
pub type Template = (u8, u8, &'static str);

/// As Chromium has it: spatial layers that depend on each other at keyframes only, three temporal
/// ones in each.
pub const L3T3_KEY: [Template; 15] = [
    (0, 0, "SSSSSSSSS"),
    (0, 0, "SSS------"),
    (0, 1, "-DS------"),
    (0, 2, "--D------"),
    (0, 2, "--D------"),
    (1, 0, "---SSSSSS"),
    (1, 0, "---SSS---"),
    (1, 1, "----DS---"),
    (1, 2, "-----D---"),
    (1, 2, "-----D---"),
    (2, 0, "------SSS"),
    (2, 0, "------SSS"),
    (2, 1, "-------DS"),
    (2, 2, "--------D"),
    (2, 2, "--------D"),
];

/// Three temporal layers, of which only the first picture lets a player rise.
pub const L1T3: [Template; 4] = [(0, 0, "SSS"), (0, 0, "SRR"), (0, 1, "-DR"), (0, 2, "--D")];

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u8,
}

impl Bits {
    fn put(&mut self, value: u32, count: u8) {
        for bit in (0..count).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            let byte = self.bytes.last_mut().expect("just there");
            *byte |= (((value >> bit) & 1) as u8) << (7 - self.used);
            self.used = (self.used + 1) % 8;
        }
    }

    /// `ns(n)`.
    fn put_below(&mut self, value: u32, n: u32) {
        let width = n.ilog2() as u8 + 1;
        let short = (1 << width) - n;
        if value < short {
            self.put(value, width - 1);
        } else {
            self.put(value + short, width);
        }
    }

    fn indications(&mut self, told: &str) {
        for told in told.chars() {
            self.put("-DSR".find(told).expect("a known letter") as u32, 2);
        }
    }
}

/// One descriptor.
#[derive(Clone, Copy, Default)]
pub struct Written<'a> {
    pub starts: bool,
    pub ends: bool,
    /// Index into the templates.
    pub template: u8,
    pub offset: u8,
    pub frame: u16,
    pub structure: Option<&'a [Template]>,
    pub chains: u32,
    pub resolutions: bool,
    /// The decode targets that are sent, and how many there are.
    pub active: Option<(u32, u8)>,
    /// Indications of this frame in place of the template's.
    pub custom: Option<&'a str>,
}

impl Written<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.put(u32::from(self.starts), 1);
        bits.put(u32::from(self.ends), 1);
        bits.put(u32::from(self.template.wrapping_add(self.offset) & 0x3F), 6);
        bits.put(u32::from(self.frame), 16);
        if self.structure.is_none() && self.active.is_none() && self.custom.is_none() {
            return bits.bytes;
        }
        bits.put(u32::from(self.structure.is_some()), 1);
        bits.put(u32::from(self.active.is_some()), 1);
        bits.put(u32::from(self.custom.is_some()), 1);
        bits.put(0, 2);
        if let Some(templates) = self.structure {
            self.put_structure(&mut bits, templates);
        }
        if let Some((active, targets)) = self.active {
            bits.put(active, targets);
        }
        if let Some(custom) = self.custom {
            bits.indications(custom);
        }
        bits.bytes
    }

    fn put_structure(&self, bits: &mut Bits, templates: &[Template]) {
        let targets = templates[0].2.len() as u32;
        bits.put(u32::from(self.offset), 6);
        bits.put(targets - 1, 5);
        for pair in templates.windows(2) {
            let [(spatial, temporal, _), (next_spatial, next_temporal, _)] = pair else { continue };
            match (next_spatial - spatial, i16::from(*next_temporal) - i16::from(*temporal)) {
                (0, 0) => bits.put(0, 2),
                (0, 1) => bits.put(1, 2),
                (1, _) => bits.put(2, 2),
                _ => panic!("templates are in order"),
            }
        }
        bits.put(3, 2);
        for (_, _, told) in templates {
            bits.indications(told);
        }
        for index in 0..templates.len() as u32 {
            // Each refers to one frame but the first.
            if index > 0 {
                bits.put(1, 1);
                bits.put(index & 0xF, 4);
            }
            bits.put(0, 1);
        }
        bits.put_below(self.chains, targets + 1);
        if self.chains > 0 {
            for target in 0..targets {
                bits.put_below(target % self.chains, self.chains);
            }
            for index in 0..templates.len() as u32 * self.chains {
                bits.put(index & 0xF, 4);
            }
        }
        bits.put(u32::from(self.resolutions), 1);
        if self.resolutions {
            let top = templates.iter().map(|it| it.0).max().expect("a template");
            for spatial in 0..=u32::from(top) {
                bits.put((320 << spatial) - 1, 16);
                bits.put((180 << spatial) - 1, 16);
            }
        }
    }
}

/// An RTP packet with one extension element in the two-byte form (RFC 8285 section 4.3).
pub fn long_rtp(plain: &[u8], id: u8, value: &[u8]) -> Vec<u8> {
    let mut element = vec![id, value.len() as u8];
    element.extend(value);
    element.resize(element.len().next_multiple_of(4), 0);
    let mut packet = plain[..12].to_vec();
    assert_eq!(packet[0], 0x80, "without elements yet");
    packet[0] |= 0x10;
    packet.extend([0x10, 0x00, 0, (element.len() / 4) as u8]);
    packet.extend(element);
    packet.extend(&plain[12..]);
    packet
}
