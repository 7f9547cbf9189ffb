use proptest::prelude::*;

use super::*;

#[path = "../../tests/forward_kit/dependency.rs"]
mod kit;

use kit::{L1T3, L3T3_KEY, Template, Written};

/// The frame of each template, by a structure written with these chains and sizes.
fn frames(templates: &[Template], chains: u32, resolutions: bool) -> Vec<(u8, u8, u8)> {
    let first = Written {
        starts: true,
        offset: 61,
        structure: Some(templates),
        chains,
        resolutions,
        active: Some((1, templates[0].2.len() as u8)),
        ..Written::default()
    };
    let bytes = first.bytes();
    let descriptor = Descriptor::parse(&bytes).expect("well formed");
    let structure = descriptor.structure().expect("well formed").expect("it carries one");
    (0..templates.len() as u8)
        .map(|template| {
            let bytes = Written { template, offset: 61, ..Written::default() }.bytes();
            let frame = Descriptor::parse(&bytes).expect("well formed").frame(&structure);
            let Frame { spatial, temporal, up_to } = frame.expect("a known template");
            (spatial, temporal, up_to)
        })
        .collect()
}

#[test]
fn the_mandatory_fields_tell_where_a_frame_starts_and_ends() {
    for (starts, ends) in [(false, false), (true, false), (false, true), (true, true)] {
        let bytes = Written { starts, ends, template: 5, ..Written::default() }.bytes();
        assert_eq!(bytes.len(), 3);
        let descriptor = Descriptor::parse(&bytes).expect("well formed");
        assert_eq!((descriptor.starts, descriptor.ends), (starts, ends));
        assert!(!descriptor.has_structure());
        assert!(descriptor.structure().expect("well formed").is_none());
    }
    assert!(Descriptor::parse(&[0x80, 1]).is_err());
}

#[test]
fn each_template_tells_its_layers_and_where_one_may_rise() {
    let expected = [
        (0, 0, 2),
        (0, 0, 2),
        (0, 1, 2),
        (0, 2, 2),
        (0, 2, 2),
        (1, 0, 2),
        (1, 0, 2),
        (1, 1, 2),
        (1, 2, 2),
        (1, 2, 2),
        (2, 0, 2),
        (2, 0, 2),
        (2, 1, 2),
        (2, 2, 2),
        (2, 2, 2),
    ];
    for (chains, resolutions) in [(0, false), (0, true), (3, true), (9, false)] {
        assert_eq!(frames(&L3T3_KEY, chains, resolutions), expected, "{chains} {resolutions}");
    }
    assert_eq!(frames(&L1T3, 1, true), [(0, 0, 2), (0, 0, 0), (0, 1, 1), (0, 2, 2)]);
}

/// Bytes by hand: two temporal layers, one chain, 640 x 360.
#[test]
fn bits_are_read_as_the_specification_lays_them_out() {
    #[rustfmt::skip]
    let bits = concat!(
        "1", "0", "000000", "0000000000000111",  // start, not end, template 0, frame 7
        "1", "0", "0", "0", "0",                  // a structure, nothing custom
        "000000", "00001",                        // offset 0, two decode targets
        "00", "01", "11",                         // T0, T0, T1
        "1010", "1010", "0001",                   // SS, SS, -D
        "0", "1" , "0001", "0", "1", "0000", "0", // none; 2; 1
        "10",                                     // one chain, of 0 to 2
        "0000", "0010", "0001",                   // of each template
        "1", "0000001001111111", "0000000101100111",
    );
    let bytes: Vec<u8> = bits
        .as_bytes()
        .chunks(8)
        .map(|byte| byte.iter().enumerate().map(|(at, bit)| (bit - b'0') << (7 - at)).sum())
        .collect();
    let descriptor = Descriptor::parse(&bytes).expect("well formed");
    assert!(descriptor.starts && !descriptor.ends);
    let structure = descriptor.structure().expect("well formed").expect("it carries one");
    assert_eq!((structure.count, structure.target_count), (3, 2));
    let lower = Frame { spatial: 0, temporal: 0, up_to: 1 };
    assert_eq!(descriptor.frame(&structure), Ok(lower));
    let upper = Descriptor::parse(&[0x02, 0, 8]).expect("well formed").frame(&structure);
    assert_eq!(upper, Ok(Frame { spatial: 0, temporal: 1, up_to: 1 }));
    assert!(Descriptor::parse(&bytes[..bytes.len() - 1]).expect("three").structure().is_err());
}

#[test]
fn a_frame_that_a_lower_target_needs_is_of_that_target() {
    let first = Written { starts: true, structure: Some(&L3T3_KEY), ..Written::default() }.bytes();
    let structure = Descriptor::parse(&first).expect("read").structure().expect("read");
    let structure = structure.expect("it carries one");
    let of = |custom| {
        let bytes = Written { template: 7, custom: Some(custom), ..Written::default() }.bytes();
        Descriptor::parse(&bytes).expect("well formed").frame(&structure).expect("known")
    };
    assert_eq!(of("---RRR---"), Frame { spatial: 1, temporal: 0, up_to: 0 });
    assert_eq!(of("-RRRRR---"), Frame { spatial: 0, temporal: 0, up_to: 0 });
    assert_eq!(of("---------"), Frame { spatial: 1, temporal: 1, up_to: 1 });
}

#[test]
fn a_template_that_the_structure_has_not_is_malformed() {
    let first = Written { starts: true, structure: Some(&L1T3), ..Written::default() }.bytes();
    let structure = Descriptor::parse(&first).expect("read").structure().expect("read");
    let structure = structure.expect("it carries one");
    for template in [4, 63] {
        let bytes = Written { template, ..Written::default() }.bytes();
        let descriptor = Descriptor::parse(&bytes).expect("well formed");
        assert_eq!(descriptor.frame(&structure), Err(Malformed));
    }
}

#[test]
fn more_layers_or_templates_than_there_may_be_are_malformed() {
    // A structure of one target whose templates go on and on, one kind of step each.
    for step in [0x00, 0x55, 0xAA] {
        let mut bytes = vec![0x80, 0, 0, 0x80, 0x00];
        bytes.extend([step; 200]);
        assert!(Descriptor::parse(&bytes).expect("well formed").structure().is_err());
    }
}

proptest! {
    #[test]
    fn random_descriptors_never_panic(
        mut first in prop::collection::vec(any::<u8>(), 0..200),
        mut second in prop::collection::vec(any::<u8>(), 0..40),
        cut in 0_usize..120,
        template in 0_u8..15,
    ) {
        let whole = Written { structure: Some(&L3T3_KEY), chains: 3, ..Written::default() };
        let cut = whole.bytes().into_iter().take(cut).collect::<Vec<_>>();
        for bytes in [&mut first, &mut second] {
            if let Some(flags) = bytes.get_mut(3) {
                *flags |= 0xA0;
            }
        }
        let known = whole.bytes();
        let known = Descriptor::parse(&known).expect("read").structure().expect("read");
        let mut all = vec![known.expect("it carries one")];
        for bytes in [&first, &second, &cut] {
            let Ok(descriptor) = Descriptor::parse(bytes) else { continue };
            all.extend(descriptor.structure().ok().flatten());
        }
        for structure in &all {
            for bytes in [&first, &second, &cut] {
                let Ok(descriptor) = Descriptor::parse(bytes) else { continue };
                let read = Descriptor { template: template.wrapping_add(structure.offset), ..descriptor };
                for descriptor in [descriptor, read] {
                    if let Ok(frame) = descriptor.frame(structure) {
                        prop_assert!(frame.spatial <= MAX_SPATIAL && frame.temporal <= MAX_TEMPORAL);
                        prop_assert!((frame.temporal..=MAX_TEMPORAL).contains(&frame.up_to));
                    }
                }
            }
        }
    }
}
