use proptest::prelude::*;

use super::*;
use crate::wire::channel_data;
use crate::wire::stun::{Builder, Class, Message, Method, TransactionId, attr};

fn stun(value: usize) -> Vec<u8> {
    let mut buf = vec![0; 65_600];
    let id = TransactionId([5; 12]);
    let mut builder = Builder::new(&mut buf, Class::Request, Method::ALLOCATE, id);
    builder.attribute(attr::DATA, &vec![7; value]);
    let len = builder.finish().unwrap();
    buf.truncate(len);
    buf
}

fn channel(len: u16) -> Vec<u8> {
    let mut bytes = vec![0; 4 + usize::from(len)];
    channel_data::write_header(bytes.first_chunk_mut().unwrap(), 0x4001, len);
    bytes[4..].fill(9);
    bytes
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len().next_multiple_of(4), 0);
    frame
}

/// Feeds a stream in pieces of `step` bytes.
fn cut(framer: &mut Framer, stream: &[u8], step: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut frames = Vec::new();
    for piece in stream.chunks(step) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while let Some(frame) = framer.next(&mut input)? {
            frames.push(frame.to_vec());
        }
        assert!(input.is_empty(), "None means used up");
    }
    Ok(frames)
}

#[test]
fn frames_come_out_whole_whatever_the_pieces() {
    let frames = [stun(0), channel(0), channel(5), stun(33), channel(1_400), channel(3), stun(900)];
    let stream: Vec<u8> = frames.iter().cloned().flat_map(padded).collect();
    for step in [1, 2, 3, 4, 5, 7, 8, 19, 20, 21, 64, 1_000, stream.len()] {
        let mut framer = Framer::default();
        assert_eq!(cut(&mut framer, &stream, step).unwrap(), frames, "pieces of {step}");
        assert_eq!(framer.pending(), 0);
    }
}

#[test]
fn hundred_messages_in_one_segment_are_cut_in_place() {
    let mut stream: Vec<u8> =
        (0..100_u16).flat_map(|n| if n % 2 == 0 { stun(8) } else { padded(channel(n)) }).collect();
    let (start, len) = (stream.as_ptr() as usize, stream.len());
    let mut framer = Framer::default();
    let mut input = &mut stream[..];
    let mut count = 0;
    while let Some(frame) = framer.next(&mut input).unwrap() {
        let at = frame.as_ptr() as usize - start;
        assert!(at + frame.len() <= len, "not copied");
        assert!(Message::parse(frame).is_ok() || channel_data::parse(frame).is_ok());
        count += 1;
    }
    assert_eq!((count, framer.partial.capacity()), (100, 0));
}

#[test]
fn half_a_frame_is_held_and_the_rest_awaited() {
    let mut framer = Framer::default();
    let frame = stun(64);
    assert_eq!(cut(&mut framer, &frame[..50], 50).unwrap(), Vec::<Vec<u8>>::new());
    assert_eq!(framer.pending(), 50);
    assert_eq!(cut(&mut framer, &frame[50..], 50).unwrap(), [frame]);
    assert_eq!(framer.pending(), 0);
}

#[test]
fn padding_is_awaited_and_never_shown() {
    let mut framer = Framer::default();
    assert!(cut(&mut framer, &channel(5), 100).unwrap().is_empty(), "three bytes are missing");
    assert_eq!(cut(&mut framer, &[0xee; 3], 1).unwrap(), [channel(5)]);
}

#[test]
fn longest_channel_data_does_not_wrap() {
    for len in 0xfffc..=0xffff_u16 {
        for step in [1, 60_000, 70_000] {
            let stream = [padded(channel(len)), stun(4)].concat();
            let mut framer = Framer::new(4 + 0x1_0000);
            assert_eq!(cut(&mut framer, &stream, step).unwrap(), [channel(len), stun(4)]);
            let mut framer = Framer::default();
            assert_eq!(cut(&mut framer, &stream, step), Err(FrameError::TooLong));
            assert_eq!(framer.pending(), 0, "refused at the header, nothing was gathered");
        }
    }
}

#[test]
fn lies_end_the_stream_for_good() {
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let odd = [&[0, 3, 0, 2], &cookie[..], &[0; 14]].concat();
    let long = [&[0, 3, 0xff, 0xfc], &cookie[..]].concat();
    for (stream, error) in [
        (&b"*1\r\n$4\r\n"[..], FrameError::NotTurn),
        // S and G would be ChannelData, of 0x482d and 0x5420 bytes.
        (b"SSH-2.0-x\r\n", FrameError::TooLong),
        (b"GET / HTTP/1.1\r\n", FrameError::TooLong),
        (&[0x16, 3, 1, 2, 0], FrameError::NotTurn),
        (&[0x80, 0, 0, 0], FrameError::NotTurn),
        (&[0x80], FrameError::NotTurn),
        (&[0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x43], FrameError::NotTurn),
        (&odd, FrameError::Length),
        (&long, FrameError::TooLong),
        (&long[..4], FrameError::TooLong),
        (&[0x40, 0, 0xff, 0xff], FrameError::TooLong),
    ] {
        for step in [1, 3, 100] {
            let mut framer = Framer::default();
            // Behind a good frame, too.
            let stream = [&stun(4), stream].concat();
            assert_eq!(cut(&mut framer, &stream, step), Err(error), "{stream:02x?} by {step}");
            assert_eq!(cut(&mut framer, &stun(4), 100), Err(error), "it stays dead");
        }
    }
}

#[test]
fn frame_of_exactly_the_limit_is_the_longest() {
    let limit = channel(96);
    assert_eq!(cut(&mut Framer::new(100), &limit, 7).unwrap(), [limit]);
    assert_eq!(cut(&mut Framer::new(100), &channel(97), 7), Err(FrameError::TooLong));
}

proptest! {
    #[test]
    fn bytes_of_any_kind_are_bounded(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..40),
        head in prop::sample::select(vec![0_u8, 1, 0x40, 0x4f]),
    ) {
        let mut framer = Framer::new(256);
        for mut piece in pieces {
            if let Some(first) = piece.first_mut() {
                *first = head;
            }
            let mut input = &mut piece[..];
            while let Ok(Some(frame)) = framer.next(&mut input) {
                prop_assert!(frame.len() <= 256);
            }
            prop_assert!(framer.pending() < 256);
        }
    }
}
