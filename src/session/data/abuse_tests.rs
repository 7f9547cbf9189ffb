//! A client that writes its SCTP packets by hand.

use super::tests::{Client, Pair, data_chunk};
use super::*;

fn forward(cumulative: u32) -> Vec<u8> {
    [&[192, 0, 0, 8], &cumulative.to_be_bytes()[..]].concat()
}

fn reset(request: u32, last: u32, stream: u16) -> Vec<u8> {
    let mut chunk = vec![130, 0, 0, 22, 0, 13, 0, 18];
    chunk.extend(request.to_be_bytes());
    chunk.extend([0; 4]);
    chunk.extend(last.to_be_bytes());
    chunk.extend(stream.to_be_bytes());
    chunk
}

fn init(flags: u8, tag: u32, tsn: u32) -> Vec<u8> {
    let mut chunk = vec![1, flags, 0, 20];
    chunk.extend(tag.to_be_bytes());
    chunk.extend([0, 1, 0, 0, 0, 9, 0, 9]);
    chunk.extend(tsn.to_be_bytes());
    chunk
}

/// What the client sent last.
fn established() -> (Pair, u32) {
    let mut pair = Pair::connected();
    pair.client.open(0, "chat");
    pair.client.say(0, b"hello", Ppid::String);
    pair.exchange();
    assert_eq!(pair.messages().len(), 1);
    pair.exchange();
    let last = pair.data.gate.acknowledged();
    (pair, last)
}

#[test]
fn a_forward_tsn_over_half_of_all_numbers_is_dropped() {
    let (mut pair, last) = established();
    pair.inject(&forward(last.wrapping_add(i32::MAX as u32)));
    assert_eq!(pair.counters.get(Id::DataDropFlood), 1);
    // One that a client with much under way may send is not.
    pair.inject(&forward(last.wrapping_add(1)));
    assert_eq!(pair.counters.get(Id::DataDropFlood), 1);
}

#[test]
fn an_init_that_the_library_does_not_take_moves_nothing() {
    let (mut pair, last) = established();
    let far = last.wrapping_add(i32::MAX as u32);
    // Its flags must be 0, and its verification tag too.
    pair.inject(&init(1, 7, far));
    pair.inject(&forward(far));
    assert_eq!(pair.data.gate.acknowledged(), last);
    assert_eq!(pair.counters.get(Id::DataDropFlood), 1);
}

#[test]
fn an_init_sent_again_with_another_number_is_dropped() {
    let (mut pair, _) = established();
    pair.tag = 0;
    pair.inject(&init(0, 7, 1_000));
    assert_eq!(pair.data.gate.acknowledged(), 999);
    let before = pair.counters.get(Id::DataDropMalformed);
    pair.inject(&init(0, 7, 2_000_000_000));
    assert_eq!(pair.counters.get(Id::DataDropMalformed), before + 1);
    pair.inject(&init(0, 7, 1_000));
    assert_eq!(pair.counters.get(Id::DataDropMalformed), before + 1);
}

#[test]
fn streams_beyond_those_agreed_are_not_made() {
    let (mut pair, last) = established();
    for stream in gate::STREAMS..gate::STREAMS + 10 {
        pair.inject(&data_chunk(last.wrapping_add(1), stream, 0));
    }
    assert_eq!(pair.counters.get(Id::DataDropFlood), 10);
}

#[test]
fn messages_that_never_become_whole_end_the_association() {
    let (mut pair, mut tsn) = established();
    // Each is one byte, of messages that wait for one before them that never comes.
    for _ in 0..2_000 {
        let chunks: Vec<u8> = (0..30)
            .flat_map(|n| {
                data_chunk(tsn.wrapping_add(n + 1), 2, 9_000 + (tsn.wrapping_add(n) & 0xFFF) as u16)
            })
            .collect();
        tsn = tsn.wrapping_add(30);
        pair.inject(&chunks);
        assert!(pair.messages().is_empty());
        pair.drain();
        pair.now = pair.now.plus(Duration::from_millis(5));
        if pair.data.association.is_none() {
            break;
        }
    }
    assert!(pair.data.association.is_none());
    assert_eq!(pair.counters.get(Id::DataAssociationsEnded), 1);
}

#[test]
fn resets_that_wait_for_data_are_not_collected() {
    let (mut pair, last) = established();
    for request in 0..1_000 {
        pair.inject(&reset(request, last.wrapping_add(1), 0));
        // The library would answer each: "in progress".
        assert!(pair.data.poll_transmit(pair.now).is_none(), "{request}");
        pair.now = pair.now.plus(Duration::from_millis(5));
    }
}

#[test]
fn a_gap_report_over_everything_again_and_again_is_dropped() {
    let (mut pair, _) = established();
    let blocks: Vec<u8> = [0, 1, 0xFF, 0xFF].repeat(200);
    let mut sack = vec![3, 0, 0x03, 0x30, 0, 0, 0, 0, 0, 1, 0, 0, 0, 200, 0, 0];
    sack.extend(blocks);
    pair.inject(&sack);
    assert_eq!(pair.counters.get(Id::DataDropFlood), 1);
}

#[test]
fn associations_begun_in_a_loop_are_dropped_beyond_a_rate() {
    let (mut pair, _) = established();
    pair.tag = 0;
    for tag in 1..2_000 {
        pair.inject(&init(0, tag, 1));
        pair.drain();
    }
    assert!(pair.counters.get(Id::DataDropFlood) > 1_500);
    // And the client may still begin one that it means.
    pair.now = pair.now.plus(Duration::from_secs(1));
    pair.client = Client::new();
    pair.exchange();
    assert!(!pair.client.association.is_handshaking());
}

#[test]
fn packets_are_no_longer_than_a_path_carries() {
    let (mut pair, _) = established();
    for _ in 0..40 {
        assert!(pair.send(SessionId(1), "bob/bulk", 30_000) || pair.now > Mono::ZERO);
        for _ in 0..200 {
            pair.send(SessionId(2), "eve/chat", 1);
        }
        while let Some(packet) = pair.data.poll_transmit(pair.now) {
            assert!(packet.len() <= LONGEST_PACKET, "{}", packet.len());
        }
        pair.exchange();
    }
}
