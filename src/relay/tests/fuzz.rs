use proptest::prelude::*;

use super::*;
use crate::auth::revocation::{Revocation, Target};

/// Everything a client might send, all valid at the rig's time.
fn corpus(rig: &mut Rig) -> Vec<Vec<u8>> {
    let tid = TransactionId([rig.tid + 1; 12]);
    let peer = xor(media(), tid);
    let mut all = vec![rig.signed(Method::CREATE_PERMISSION, &[(attr::XOR_PEER_ADDRESS, &peer)])];
    let tid = TransactionId([rig.tid + 1; 12]);
    let peer = xor(media(), tid);
    let channel = [0x40, 0, 0, 0];
    all.push(rig.signed(
        Method::CHANNEL_BIND,
        &[(attr::CHANNEL_NUMBER, &channel), (attr::XOR_PEER_ADDRESS, &peer)],
    ));
    all.push(rig.signed(Method::REFRESH, &[(attr::LIFETIME, &600_u32.to_be_bytes())]));
    all.push(rig.signed(
        Method::ALLOCATE,
        &[
            (attr::REQUESTED_TRANSPORT, UDP),
            (attr::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]),
            (attr::EVEN_PORT, &[0]),
            (attr::DONT_FRAGMENT, &[]),
        ],
    ));
    all.push(send_indication(media(), b"data"));
    all.push(vec![0x40, 0, 0, 4, 1, 2, 3, 4]);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn random_bytes_make_no_state(
        first in prop::sample::select(vec![0_u8, 1, 0x40, 0x4f, 0x16, 0x80]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
        cookie: bool,
    ) {
        let mut rig = Rig::new();
        let mut bytes = vec![first];
        bytes.extend(rest);
        if cookie && bytes.len() >= 20 {
            let keep = bytes.len() & !3;
            bytes.truncate(keep);
            let length = (keep - 20) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&stun_cookie());
        }
        prop_assert!(!matches!(rig.send(&bytes), Handled::ToPeer(_)));
        prop_assert_eq!(rig.allocations(), 0);
        prop_assert_eq!(rig.relay.poll_timeout(), None);
    }

    /// Whoever alters one byte of a signed request before its MESSAGE-INTEGRITY ends changes
    /// nothing; altered data packets at most change their payload.
    #[test]
    fn mutated_messages_make_no_state(which in 0..6_usize, at in 0..400_usize, flip in 1..=255_u8) {
        let mut rig = Rig::new();
        rig.challenge();
        let mut bytes = corpus(&mut rig).swap_remove(which);
        let place = at % bytes.len();
        bytes[place] ^= flip;
        let _ = rig.send(&bytes);
        prop_assert_eq!(rig.allocations(), 0);
        prop_assert_eq!(rig.relay.poll_timeout(), None);
    }

    #[test]
    fn mutations_and_cuts_never_panic_nor_reach_another_peer(
        which in 0..6_usize,
        edits in prop::collection::vec((0..400_usize, any::<u8>()), 0..4),
        cut in 0..24_usize,
        fix_length: bool,
    ) {
        let mut rig = Rig::connected(Some(0x4000));
        let mut bytes = corpus(&mut rig).swap_remove(which);
        for (at, value) in edits {
            let place = at % bytes.len();
            bytes[place] = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        if fix_length && bytes.len() >= 20 {
            let length = (bytes.len() - 20) as u16;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        if let Handled::ToPeer(to) = rig.send(&bytes) {
            prop_assert_eq!(to.peer, media());
            prop_assert!(bytes.get(to.payload).is_some());
        }
        prop_assert!(rig.count(Id::RelayPermissions) <= 1 && rig.count(Id::RelayChannels) <= 1);
    }

    /// The authenticated state machine under random programs: gauges agree with the table, and
    /// everything ends.
    #[test]
    fn random_programs_of_valid_requests_keep_the_books(
        program in prop::collection::vec((0..7_u8, 0..3_u16, 0..400_u64), 1..40)
    ) {
        let mut rig = Rig::new();
        rig.user = mint("user-42", 30_000, 43_200);
        for (step, who, pause) in program {
            rig.tuple = tuple(&format!("198.51.100.7:{}", 5000 + who));
            rig.nonce.clear();
            let _ = match step {
                0 => rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]),
                1 => rig.refresh(u32::from(who) * 1000),
                2 => rig.permit(media()),
                3 => rig.bind(0x4000 + who, media()),
                4 => rig.bind(0x4000, media()),
                5 => rig.permit(addr("10.0.0.1:1")),
                _ => {
                    let _ = rig.send(&send_indication(media(), b"x"));
                    Ok(())
                }
            };
            if pause % 2 == 0 { rig.wait(secs(pause)) } else { rig.advance(secs(pause)) }
            books_agree(&rig)?;
        }
        everything_ends(&mut rig)?;
    }

    /// The same with both families, rooms, pairs, revocation and lost connections.
    #[test]
    fn random_programs_of_every_kind_keep_the_books(
        program in prop::collection::vec((0..14_u8, 0..4_u8, 0..400_u64), 1..40)
    ) {
        let mut config = config();
        config.media.push(addr("[2001:db8::10]:20000"));
        config.relayed_ip6 = Some("2001:db8::10".parse().unwrap());
        let shared = config.shared.clone();
        let mut rig = Rig::with(config);
        let mut relayed = vec![media()];
        for (step, who, pause) in program {
            rig.tuple = tuple(&format!("198.51.100.7:{}", 5000 + u16::from(who)));
            rig.tuple.transport = if who == 0 { Transport::Tls } else { Transport::Udp };
            let class = if who < 2 { Policy::Forwarder } else { Policy::Room };
            let subject = format!("user-{who}");
            let mint = Mint { subject: &subject, room: Some("lobby"), class, ttl: secs(30_000),
                session_limit: secs(43_200) };
            rig.user = keys().mint(Unix::from_secs(1_780_000_000), &mint, [9; 12]).unwrap();
            rig.nonce.clear();
            let v6 = [2, 0, 0, 0];
            let transport = (attr::REQUESTED_TRANSPORT, UDP);
            let peer = relayed[pause as usize % relayed.len()];
            let zero = (attr::LIFETIME, &[0; 4][..]);
            let ask = (attr::REQUESTED_ADDRESS_FAMILY, &v6[..]);
            let outcome = match step {
                0 => rig.request(Method::ALLOCATE, &[transport]),
                1 => rig.request(
                    Method::ALLOCATE, &[transport, (attr::ADDITIONAL_ADDRESS_FAMILY, &v6)]),
                2 => rig.request(Method::ALLOCATE, &[transport, ask]),
                3 => rig.request(Method::ALLOCATE, &[transport, (attr::EVEN_PORT, &[0x80])]),
                4 => rig.refresh(600),
                5 => rig.refresh(0),
                6 => rig.request(Method::REFRESH, &[zero, ask]),
                7 => rig.request(
                    Method::REFRESH, &[zero, (attr::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0])]),
                8 => rig.request(Method::REFRESH, &[ask]),
                9 => rig.permit(peer),
                10 => rig.bind(0x4000 + u16::from(who) % 2, peer),
                11 => {
                    if let Handled::ToRelayed(to) = rig.send(&send_indication(peer, b"x")) {
                        prop_assert!(peer == to.hairpin.to && who >= 2);
                        let _ = rig.relay.deliver(&to.hairpin);
                    }
                    Ok(())
                }
                12 => {
                    let target = Target::Subject(crate::ids::SubjectHash::of(&subject));
                    let expires = rig.now.advanced(secs(pause)).unix;
                    let not_before = rig.now.unix;
                    rig.relay.revoke(rig.now, &[Revocation { target, not_before, expires }]);
                    Ok(())
                }
                _ => {
                    rig.relay.on_disconnect(rig.now, rig.tuple, &mut rig.counters);
                    Ok(())
                }
            };
            if step < 4 && outcome.is_ok() {
                let reply = rig.last();
                for (kind, value) in reply.attributes() {
                    if kind == attr::XOR_RELAYED_ADDRESS {
                        relayed.push(reply.decode_xor_address(value).unwrap());
                    }
                }
            }
            if pause % 2 == 0 { rig.wait(secs(pause)) } else { rig.advance(secs(pause)) }
            books_agree(&rig)?;
            let rooms = live(&rig).filter(|a| a.owner.class == Policy::Room);
            let ports: usize = rooms.map(|a| a.relayed.iter().filter(|r| r.port != 0).count()).sum();
            prop_assert_eq!(shared.claimed(), ports);
        }
        everything_ends(&mut rig)?;
        prop_assert_eq!(shared.claimed(), 0);
    }
}

fn live(rig: &Rig) -> impl Iterator<Item = &table::Allocation> {
    (0..4_u32).filter_map(|index| rig.relay.table.get(index))
}

fn books_agree(rig: &Rig) -> Result<(), TestCaseError> {
    let permissions: usize =
        live(rig).map(|a| a.permissions.iter().filter(|p| **p != Mono::ZERO).count()).sum();
    let channels: usize =
        live(rig).map(|a| a.channels.iter().filter(|c| c.number != 0).count()).sum();
    prop_assert_eq!(rig.count(Id::RelayAllocations), live(rig).count() as u64);
    prop_assert_eq!(rig.count(Id::RelayPermissions), permissions as u64);
    prop_assert_eq!(rig.count(Id::RelayChannels), channels as u64);
    Ok(())
}

fn everything_ends(rig: &mut Rig) -> Result<(), TestCaseError> {
    rig.wait(secs(3601));
    prop_assert_eq!(rig.allocations(), 0);
    prop_assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (0, 0));
    let mut ended = 0;
    while rig.relay.poll_ended().is_some() {
        ended += 1;
    }
    prop_assert_eq!(rig.count(Id::RelayAllocationsCreated), ended);
    Ok(())
}

fn stun_cookie() -> [u8; 4] {
    crate::wire::stun::MAGIC_COOKIE.to_be_bytes()
}
