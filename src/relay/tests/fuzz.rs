use proptest::prelude::*;

use super::*;

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
            let live = || (0..3_u32).filter_map(|index| rig.relay.table.get(index));
            let permissions: usize =
                live().map(|a| a.permissions.iter().filter(|p| **p != Mono::ZERO).count()).sum();
            let channels: usize =
                live().map(|a| a.channels.iter().filter(|c| c.number != 0).count()).sum();
            prop_assert_eq!(rig.count(Id::RelayAllocations), live().count() as u64);
            prop_assert_eq!(rig.count(Id::RelayPermissions), permissions as u64);
            prop_assert_eq!(rig.count(Id::RelayChannels), channels as u64);
        }
        rig.wait(secs(3601));
        prop_assert_eq!(rig.allocations(), 0);
        prop_assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (0, 0));
        let mut ended = 0;
        while rig.relay.poll_ended().is_some() { ended += 1; }
        prop_assert_eq!(rig.count(Id::RelayAllocationsCreated), ended);
    }
}

fn stun_cookie() -> [u8; 4] {
    crate::wire::stun::MAGIC_COOKIE.to_be_bytes()
}
