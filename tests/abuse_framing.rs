//! TURN on a stream, cut and stalled as no client would (T14 of the abuse checklist): over TCP and
//! TLS, against the real binary.

mod common;
mod turn_kit;

use std::io::{ErrorKind, Read as _, Write as _};

use common::Gateway;
use turn_kit::message::{Reply, Writer, hex};
use turn_kit::{ALLOCATE, Client, PATIENCE, REFRESH, REQUESTED_TRANSPORT, Transport, UDP, tcp};

const STREAMS: [Transport; 2] = [Transport::Tcp, Transport::Tls];

fn refresh(client: &Client) -> Vec<u8> {
    client.sign(Writer::new(REFRESH, client.id())).done()
}

#[test]
fn messages_that_come_byte_by_byte_are_answered() {
    let gateway = Gateway::start(1);
    for wire in STREAMS {
        let mut client = Client::allocated(&gateway, wire);
        for _ in 0..3 {
            let request = refresh(&client);
            let (last, most) = request.split_last().expect("bytes");
            for byte in most {
                // With TLS each is a record of its own.
                client.send(&[*byte]);
            }
            client.send(&[*last]);
            let reply = Reply(client.receive(PATIENCE).expect("an answer"));
            assert_eq!((reply.id(), reply.code()), (&request[8..20], 0), "over {wire:?}");
        }
    }
}

#[test]
fn hundred_messages_of_one_segment_are_all_answered_in_their_order() {
    let gateway = Gateway::start(1);
    for wire in STREAMS {
        let mut client = Client::allocated(&gateway, wire);
        let requests: Vec<_> = (0..100).map(|_| refresh(&client)).collect();
        client.send(&requests.concat());
        for request in &requests {
            let reply = Reply(client.receive(PATIENCE).expect("an answer"));
            assert_eq!((reply.id(), reply.code()), (&request[8..20], 0), "over {wire:?}");
        }
        // In pieces that end nowhere near a message's end.
        let all = requests.concat();
        for piece in all.chunks(77) {
            client.send(piece);
        }
        for request in &requests {
            let reply = Reply(client.receive(PATIENCE).expect("an answer"));
            assert_eq!(reply.id(), &request[8..20], "over {wire:?}");
        }
    }
}

#[test]
fn lengths_that_lie_end_the_connection_and_its_allocation_at_once() {
    let gateway = Gateway::start(1);
    let lies = [
        // A STUN message of an odd length, of 64 KiB, without its cookie.
        "000300052112a442",
        "0003fffc2112a442",
        "0003000821120000",
        // ChannelData of 64 KiB; of a number nobody can bind.
        "4000ffff41414141",
        "8000000441414141",
        "ffffffffffffffff",
    ];
    for wire in STREAMS {
        for lie in lies {
            let mut client = Client::allocated(&gateway, wire);
            client.send(&hex(lie));
            assert!(client.is_closed(), "{lie} over {wire:?}");
        }
    }
    let all = 2.0 * lies.len() as f64;
    gateway.metrics_when("all are gone", |m| {
        m.sum("veilgate_engine_streams_closed_total", &["reason=\"not_turn\""]) == all
            && m.sum("veilgate_relay_allocations_ended_total", &["reason=\"disconnected\""]) == all
            && m.sum("veilgate_relay_allocations", &[]) == 0.0
    });
}

#[test]
fn claims_that_are_never_kept_hold_little_and_not_for_long() {
    let gateway = Gateway::start(1);
    let mut stalled = Vec::new();
    for wire in STREAMS {
        // As long as a frame may be, and not a byte of it; with and without an allocation.
        let mut client = Client::allocated(&gateway, wire);
        client.send(&hex("40000ffc"));
        stalled.push(client);
        let mut client = Client::new(&gateway, wire);
        client.challenge();
        client.send(&hex("000301002112a442"));
        stalled.push(client);
    }
    // Before their first byte of TURN: nothing, a first byte, half of a TLS hello.
    let mut raw: Vec<_> = (0..3).map(|_| tcp(&gateway)).collect();
    raw[1].write_all(&[0x00]).expect("sent");
    raw[2].write_all(&hex("160301020001000001fc0303")).expect("sent");
    for client in &mut stalled {
        assert!(client.is_closed());
    }
    for stream in &mut raw {
        let end = stream.read(&mut [0; 16]);
        let open =
            end.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(!open, "it is still open");
    }
    gateway.metrics_when("nothing is left", |m| {
        m.sum("veilgate_engine_streams", &[]) == 0.0
            && m.sum("veilgate_relay_allocations", &[]) == 0.0
    });
    // And nobody else was kept waiting.
    let mut client = Client::new(&gateway, Transport::Tcp);
    let request = Writer::new(ALLOCATE, client.id()).attribute(REQUESTED_TRANSPORT, &UDP).done();
    assert_eq!(client.exchange(&request).code(), 401);
}
