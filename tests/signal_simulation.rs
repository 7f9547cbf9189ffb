//! A room of strangers who say anything at any time, break off, come back and never read: for many
//! seeds it answers each request once, tells nobody what is not theirs, and stays within its bounds.

mod signal_kit;

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use signal_kit::{Claims, Guest, Hall, fits_client};
use veilgate::control::rooms::media::StreamEvent;
use veilgate::control::rooms::outbox::MAX_WAITING;
use veilgate::control::rooms::request::Start;
use veilgate::control::rooms::room::RESUME_WITHIN;

const SEEDS: u64 = 200;
const STEPS: usize = 300;
const STREAMS: [&str; 5] = ["a", "b", "c", "d", "secret"];

/// One who reads, and what it knows.
struct Stranger {
    guest: Guest,
    reads: bool,
    away: bool,
    over: bool,
    asked: BTreeSet<u64>,
    offer: Option<u64>,
}

fn claims(rng: &mut StdRng, n: usize) -> Claims {
    let mut claims = Claims::all(&format!("guest{}", n % 7));
    claims.jti = format!("jti{n}");
    (claims.chat, claims.data) = (rng.random(), rng.random());
    claims.admin = rng.random_ratio(1, 8);
    // The last stream is not for everybody.
    if rng.random() {
        claims.play = vec!["lobby/a", "lobby/b", "lobby/c", "lobby/d"];
    }
    claims
}

fn message(rng: &mut StdRng, others: &[String], offer: Option<u64>) -> Value {
    let stream = *STREAMS.choose(rng).expect("some");
    let nobody = "0123456789abcdef".to_owned();
    let other = others.choose(rng).unwrap_or(&nobody);
    let sdp = if rng.random_ratio(1, 6) { "rubbish" } else { "sdp" };
    let track = rng.random_range(0..3);
    match rng.random_range(0..20) {
        0..3 => json!({"type": "publish", "stream": stream, "sdp": sdp}),
        3 => json!({"type": "unpublish"}),
        4 => json!({"type": "restart", "connection": "publish", "sdp": sdp}),
        5 => json!({"type": "restart", "connection": "play"}),
        6..10 => json!({"type": "answer", "revision": offer.unwrap_or(1), "sdp": sdp}),
        10 => json!({"type": "subscribe", "streams": "all"}),
        11 => json!({"type": "subscribe", "streams": [stream, "a"]}),
        12 => json!({"type": "layer", "stream": stream, "rid": "h", "temporal": 1}),
        13 => json!({"type": "pause", "stream": stream, "track": track}),
        14 => {
            json!({"type": "mute", "stream": stream, "track": track, "muted": rng.random::<bool>()})
        }
        15 => json!({"type": "chat", "text": "x".repeat(rng.random_range(1..2_000)), "to": other}),
        16 => json!({"type": "data", "data": {"x": 1}}),
        17 => json!({"type": "last_n", "n": rng.random_range(0..3)}),
        18 if rng.random_ratio(1, 4) => json!({"type": "kick", "participant": other}),
        _ => json!({"type": "ping"}),
    }
}

impl Stranger {
    fn new(guest: Guest, reads: bool) -> Self {
        let asked = BTreeSet::new();
        Self { guest, reads, away: false, over: false, asked, offer: None }
    }

    /// Reads all there is; the invariants of what is said to one participant.
    fn read(&mut self) {
        let private = !self.guest.claims.play.contains(&"lobby/*");
        let heard = self.guest.hears();
        assert!(heard.len() <= MAX_WAITING + 1);
        for message in heard {
            if message.get("close").is_some() {
                self.over = true;
                return;
            }
            if let Some(id) = message["id"].as_u64() {
                assert!(self.asked.remove(&id), "answered twice or never asked: {message}");
            }
            if message["type"] == "offer" {
                self.offer = message["revision"].as_u64();
                let tracks = message["tracks"].as_array().expect("a list");
                assert!(!private || tracks.iter().all(|track| track["stream"] != "secret"));
            }
            let own = message["participant"] == self.guest.id();
            if message["type"] == "stream_added" && private {
                assert!(own || message["stream"] != "secret", "{message}");
            }
        }
    }
}

/// What the data plane would report for sessions that were told to end.
fn end_closed(hall: &mut Hall) {
    for stream in STREAMS {
        if let Some(resource) = hall.media.resource_of(stream)
            && hall.media.was_closed(&resource)
        {
            hall.end(stream);
            hall.event(&StreamEvent::SessionEnded { resource });
        }
    }
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut hall = Hall::with_places(12);
    let mut strangers: Vec<Stranger> = Vec::new();
    let mut id = 0;
    for step in 0..STEPS {
        match rng.random_range(0..100) {
            0..6 => {
                let claims = claims(&mut rng, step);
                if let Ok(guest) = hall.try_join(&claims, Start::All, None) {
                    strangers.push(Stranger::new(guest, rng.random_ratio(7, 8)));
                }
            }
            6..9 => {
                let stream = *STREAMS.choose(&mut rng).expect("some");
                if hall.media.resource_of(stream).is_some() {
                    let event = hall.media.start(signal_kit::camera(stream));
                    hall.event(&event);
                } else {
                    hall.whip(stream);
                }
            }
            9..11 => hall.end(STREAMS.choose(&mut rng).expect("some")),
            11..14 => end_closed(&mut hall),
            14..16 => {
                if let Some(playing) = hall.media.playing().choose(&mut rng) {
                    let event = hall.media.end_playing(playing);
                    hall.event(&event);
                }
            }
            16..19 => {
                let stream = *STREAMS.choose(&mut rng).expect("some");
                hall.media.set_level(stream, rng.random_range(0..=127), rng.random());
            }
            19..29 => hall.wait(Duration::from_millis(rng.random_range(0..8_000))),
            29..31 => hall.room.resync(hall.now.mono),
            31..36 => {
                if let Some(one) = strangers.choose_mut_of(&mut rng) {
                    if one.away {
                        if let Ok(guest) = hall.resume(&one.guest) {
                            *one = Stranger::new(guest, one.reads);
                        } else {
                            one.over = true;
                        }
                    } else {
                        hall.disconnect(&one.guest);
                        one.away = true;
                    }
                }
            }
            _ => {
                let others: Vec<String> =
                    strangers.iter().map(|one| one.guest.id().to_owned()).collect();
                if let Some(one) = strangers.choose_mut_of(&mut rng)
                    && !one.away
                {
                    id += 1;
                    let mut message = message(&mut rng, &others, one.offer);
                    assert!(fits_client(&message), "{message}");
                    message["id"] = json!(id);
                    one.asked.insert(id);
                    hall.say(&one.guest, &message);
                }
            }
        }
        strangers.iter_mut().filter(|one| one.reads && !one.away).for_each(Stranger::read);
        strangers.retain(|one| !one.over);
        assert!(hall.room.len() <= 12);
        assert!(hall.media.playing().len() <= hall.room.len(), "one playing connection each");
    }
    // Everything that was asked was answered, but what waits for a name for two more seconds.
    end_closed(&mut hall);
    hall.wait(Duration::from_secs(3));
    for one in strangers.iter_mut().filter(|one| one.reads && !one.away) {
        one.read();
        assert!(one.over || one.asked.is_empty(), "never answered: {:?}", one.asked);
    }
    // And when all are gone nothing is left.
    strangers.iter().for_each(|one| hall.disconnect(&one.guest));
    hall.wait(RESUME_WITHIN + Duration::from_secs(1));
    assert!(hall.room.is_empty());
    assert!(hall.media.playing().is_empty());
}

trait ChooseMut<T> {
    fn choose_mut_of(&mut self, rng: &mut StdRng) -> Option<&mut T>;
}

impl<T> ChooseMut<T> for Vec<T> {
    fn choose_mut_of(&mut self, rng: &mut StdRng) -> Option<&mut T> {
        if self.is_empty() {
            return None;
        }
        let at = rng.random_range(0..self.len());
        self.get_mut(at)
    }
}

#[test]
fn room_of_strangers_keeps_its_promises_for_every_seed() {
    for seed in 0..SEEDS {
        let ran = std::panic::catch_unwind(|| run(seed));
        if let Err(panic) = ran {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
