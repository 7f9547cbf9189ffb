//! Vectors of RFC 3711 appendix B, RFC 6188 and RFC 7714 sections 16 and 17, and behaviour tests.

use super::cipher::{Cipher, Gcm};
use super::kdf::{Kdf, Label, ctr_key, ctr_xor};
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const ALL: [Profile; 3] = [Profile::Aead128Gcm, Profile::Aead256Gcm, Profile::AesCm128HmacSha1_80];

fn pair(profile: Profile) -> (Sender, Receiver) {
    let key: Vec<u8> = (0..profile.key_len() as u8).collect();
    let salt: Vec<u8> = (0xa0..0xa0 + profile.salt_len() as u8).collect();
    let master = Master { key: &key, salt: &salt };
    (Sender::new(profile, master).unwrap(), Receiver::new(profile, master).unwrap())
}

fn rtp(ssrc: u32, sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 1]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..payload).map(|i| i as u8));
    packet
}

fn sealed(sender: &mut Sender, packet: &[u8]) -> Vec<u8> {
    let mut buf = packet.to_vec();
    buf.resize(packet.len() + MAX_TRAILER, 0);
    let len = sender.protect_rtp(&mut buf, packet.len()).unwrap();
    buf.truncate(len);
    buf
}

fn sealed_rtcp(sender: &mut Sender, packet: &[u8]) -> Vec<u8> {
    let mut buf = packet.to_vec();
    buf.resize(packet.len() + MAX_TRAILER, 0);
    let len = sender.protect_rtcp(&mut buf, packet.len()).unwrap();
    buf.truncate(len);
    buf
}

#[test]
fn aes_cm_keystream_is_that_of_rfc_3711_b2() {
    let key = ctr_key(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
    let iv = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().unwrap();
    let mut stream = vec![0; 0xff02 * 16];
    ctr_xor(&key, iv, &mut stream).unwrap();
    assert_eq!(
        stream[..48],
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
             41E95B3BB0A2E8DD477901E4FCA894C0")
    );
    assert_eq!(
        stream[0xfeff * 16..],
        hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE
             6A2CC3787889374FBEB4C81B17BA6C44")
    );
}

#[test]
fn derived_keys_are_those_of_rfc_3711_b3() {
    let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let kdf = Kdf::new(Master { key: &key, salt: &salt }).unwrap();
    let cipher: [u8; 16] = kdf.array(Label::RtpEncryption).unwrap();
    assert_eq!(cipher[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
    let salt: [u8; 14] = kdf.array(Label::RtpSalt).unwrap();
    assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    let auth: [u8; 94] = kdf.array(Label::RtpAuthentication).unwrap();
    assert_eq!(
        auth[..],
        hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE
             E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25
             6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2")
    );
}

#[test]
fn keys_derived_with_aes_256_are_those_of_rfc_6188_7_4() {
    let key = hex("f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6");
    let salt = hex("3b04803de51ee7c96423ab5b78d2");
    let kdf = Kdf::new(Master { key: &key, salt: &salt }).unwrap();
    let cipher: [u8; 32] = kdf.array(Label::RtpEncryption).unwrap();
    assert_eq!(
        cipher[..],
        hex("5ba1064e30ec51613cad926c5a28ef73 1ec7fb397f70a960653caf06554cd8c4")
    );
    let salt: [u8; 14] = kdf.array(Label::RtpSalt).unwrap();
    assert_eq!(salt[..], hex("fa31791685ca444a9e07c6c64e93"));
    let auth: [u8; 20] = kdf.array(Label::RtpAuthentication).unwrap();
    assert_eq!(auth[..], hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"));
}

const RFC_7714_RTP: &str = "8040f17b 8041f8d3 5501a0b2
    47616c6c6961 20 657374 20 6f6d6e6973 20 646976697361 20 696e 20 706172746573 20 74726573";

#[test]
fn aead_srtp_is_that_of_rfc_7714_section_16() {
    let salt: [u8; 12] = hex("517569642070726f2071756f").try_into().unwrap();
    let key: Vec<u8> = (0..32).collect();
    for (key, expected) in [
        (
            &key[..16],
            "8040f17b8041f8d35501a0b2 f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a
             51c7d19b36de3adf8833 899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            &key[..],
            "8040f17b8041f8d35501a0b2 32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a02
             76ffae0f1ba63799b87b 7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ] {
        let gcm = || Cipher::Gcm(Box::new(Gcm::from_session_key(key, salt)));
        let plain = hex(RFC_7714_RTP);
        let mut packet = sealed(&mut Sender::with_cipher(gcm()), &plain);
        assert_eq!(packet, hex(expected));
        let len = Receiver::with_cipher(gcm()).unprotect_rtp(&mut packet).unwrap();
        assert_eq!(packet[..len], plain);
    }
}

#[test]
fn aead_srtcp_is_that_of_rfc_7714_section_17() {
    let salt: [u8; 12] = hex("517569642070726f2071756f").try_into().unwrap();
    let key: Vec<u8> = (0..32).collect();
    let plain = hex("81c8000d4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                     deadbeef deadbeef deadbeef deadbeef deadbeef");
    for (key, expected) in [
        (
            &key[..16],
            "81c8000d4d617273 63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda
             4ce09b4686303ded0bb9275b c84aa45896cf4d2fc5abf87245d9eade 800005d4",
        ),
        (
            &key[..],
            "81c8000d4d617273 d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be
             8415f658c61de0476f1b6fad 1d1eb30c4446839f57ff6f6cb26ac3be 800005d4",
        ),
    ] {
        let gcm = || Cipher::Gcm(Box::new(Gcm::from_session_key(key, salt)));
        let mut sender = Sender::with_cipher(gcm());
        sender.skip_to(0x4d61_7273, None, 0x5d4);
        let mut packet = sealed_rtcp(&mut sender, &plain);
        assert_eq!(packet, hex(expected));
        let len = Receiver::with_cipher(gcm()).unprotect_rtcp(&mut packet).unwrap();
        assert_eq!(packet[..len], plain);
    }
}

/// What libsrtp's own test driver expects: key derivation and transform together.
#[test]
fn packets_are_those_of_libsrtp() {
    let body = "ab".repeat(16);
    let cases = [
        (
            Profile::AesCm128HmacSha1_80,
            "e1f97a0d3e018be0d64fa32c06de4139",
            "0ec675ad498afeebb6960b3aabe6",
            "800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb",
            "81c8000bcafebabe 7128035be487b9bdbef89041f977a5a8 80000001 993e08cd54d6c1230798",
        ),
        (
            Profile::Aead128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "a0a1a2a3a4a5a6a7a8a9aaab",
            "800f1234decafbadcafebabe c5002ede04cfdd2eb91159e0880aa06e
             d2976826f796b201df3131a127e8a392",
            "81c8000bcafebabe c98b8b5df0392a55852b6c21ac8e7025
             c52c6fbea2b3b446ea31123ba88ce61e 80000001",
        ),
    ];
    for (profile, key, salt, rtp, rtcp) in cases {
        let (key, salt) = (hex(key), hex(salt));
        let mut sender = Sender::new(profile, Master { key: &key, salt: &salt }).unwrap();
        let plain = hex(&format!("800f1234decafbadcafebabe{body}"));
        assert_eq!(sealed(&mut sender, &plain), hex(rtp), "{profile:?}");
        let plain = hex(&format!("81c8000bcafebabe{body}"));
        assert_eq!(sealed_rtcp(&mut sender, &plain), hex(rtcp), "{profile:?}");
    }
}

#[test]
fn roll_over_is_followed_through_loss_and_reordering() {
    for profile in ALL {
        let (mut sender, mut receiver) = pair(profile);
        let mut late = None;
        for step in 0u32..200_000 {
            let sequence = (step + 30_000) as u16;
            let plain = rtp(7, sequence, 3);
            let mut packet = sealed(&mut sender, &plain);
            if step % 5 == 1 {
                late = Some((packet, plain));
                continue;
            }
            let len = receiver.unprotect_rtp(&mut packet).unwrap();
            assert_eq!(packet[..len], plain);
            if let Some((mut packet, plain)) = late.take() {
                let len = receiver.unprotect_rtp(&mut packet).unwrap();
                assert_eq!(packet[..len], plain);
            }
        }
    }
}

#[test]
fn a_retransmission_across_the_roll_over_is_byte_identical() {
    for profile in ALL {
        let (mut sender, _) = pair(profile);
        let first = sealed(&mut sender, &rtp(7, 65_535, 20));
        sealed(&mut sender, &rtp(7, 0, 20));
        sealed(&mut sender, &rtp(7, 1, 20));
        assert_eq!(sealed(&mut sender, &rtp(7, 65_535, 20)), first, "{profile:?}");
    }
}

#[test]
fn replays_and_packets_older_than_the_window_are_refused() {
    for profile in ALL {
        let (mut sender, mut receiver) = pair(profile);
        let packets: Vec<_> = (0..1100u16).map(|s| sealed(&mut sender, &rtp(1, s, 9))).collect();
        for packet in packets.iter().skip(2) {
            receiver.unprotect_rtp(&mut packet.clone()).unwrap();
        }
        for packet in &packets {
            let again = receiver.unprotect_rtp(&mut packet.clone());
            assert_eq!(again, Err(Error::Replay), "{profile:?}");
        }
        let report = sealed_rtcp(&mut sender, &hex("80c9000100000001"));
        receiver.unprotect_rtcp(&mut report.clone()).unwrap();
        assert_eq!(receiver.unprotect_rtcp(&mut report.clone()), Err(Error::Replay));
    }
}

#[test]
fn every_flipped_bit_is_noticed_and_leaves_no_state() {
    for profile in ALL {
        let (mut sender, mut receiver) = pair(profile);
        let good = sealed(&mut sender, &rtp(1, 100, 24));
        let report = sealed_rtcp(&mut sender, &hex("80c9000300000001aabbccdd00112233"));
        for bit in 0..good.len() * 8 {
            let mut packet = good.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.unprotect_rtp(&mut packet).is_err(), "{profile:?} bit {bit}");
        }
        for bit in 0..report.len() * 8 {
            let mut packet = report.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            assert!(receiver.unprotect_rtcp(&mut packet).is_err(), "{profile:?} bit {bit}");
        }
        receiver.unprotect_rtp(&mut good.clone()).unwrap();
        receiver.unprotect_rtcp(&mut report.clone()).unwrap();
    }
}

#[test]
fn truncated_packets_are_malformed_or_forged_never_a_panic() {
    for profile in ALL {
        let (mut sender, mut receiver) = pair(profile);
        let good = sealed(&mut sender, &rtp(1, 100, 24));
        let report = sealed_rtcp(&mut sender, &hex("80c9000100000001"));
        for len in 0..good.len() {
            assert!(receiver.unprotect_rtp(&mut good.clone()[..len]).is_err());
        }
        for len in 0..report.len() {
            assert!(receiver.unprotect_rtcp(&mut report.clone()[..len]).is_err());
        }
    }
}

#[test]
fn sources_are_bounded_in_both_directions() {
    let (_, mut receiver) = pair(Profile::Aead128Gcm);
    let count = MAX_SSRCS as u32 + 1;
    for ssrc in 0..count {
        // A sender of its own for each SSRC, so that only the receiver's bound is met.
        let (mut sender, _) = pair(Profile::Aead128Gcm);
        let got = receiver.unprotect_rtp(&mut sealed(&mut sender, &rtp(ssrc, 1, 4)));
        assert_eq!(got.is_ok(), ssrc + 1 < count);
    }
    let (mut sender, _) = pair(Profile::Aead128Gcm);
    let count = MAX_SENT_SSRCS as u32 + 1;
    for ssrc in 0..count {
        let mut packet = rtp(ssrc, 1, 4);
        packet.resize(60, 0);
        assert_eq!(sender.protect_rtp(&mut packet, 16).is_ok(), ssrc + 1 < count);
    }
}

#[test]
fn sealing_stops_when_room_or_index_space_ends() {
    for profile in ALL {
        let (mut sender, _) = pair(profile);
        let mut packet = rtp(1, 1, 4);
        assert_eq!(sender.protect_rtp(&mut packet, 16), Err(Error::NoRoom));
        assert_eq!(sender.protect_rtp(&mut packet, 17), Err(Error::NoRoom));
        let mut report = hex("80c9000100000001");
        assert_eq!(sender.protect_rtcp(&mut report, 8), Err(Error::NoRoom));

        sender.skip_to(9, Some(0xffff_ffff_ffff), SRTCP_MAX_INDEX);
        let mut packet = rtp(9, 0, 40);
        assert_eq!(sender.protect_rtp(&mut packet, 16), Err(Error::Exhausted));
        let mut report = hex("80c9000100000009");
        report.resize(40, 0);
        assert!(sender.protect_rtcp(&mut report, 8).is_ok());
        let mut report = hex("80c9000100000009");
        report.resize(40, 0);
        assert_eq!(sender.protect_rtcp(&mut report, 8), Err(Error::Exhausted));
    }
}

#[test]
fn unencrypted_srtcp_is_refused() {
    for profile in ALL {
        let (mut sender, mut receiver) = pair(profile);
        let mut report = sealed_rtcp(&mut sender, &hex("80c9000100000001"));
        let at = report.len() - if profile == Profile::AesCm128HmacSha1_80 { 14 } else { 4 };
        report[at] &= 0x7f;
        assert_eq!(receiver.unprotect_rtcp(&mut report), Err(Error::Malformed));
    }
}
